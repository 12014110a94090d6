package tor_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/tor"
)

// lastLines keeps the end of a log.
type lastLines struct {
	mu   sync.Mutex
	last []string
}

func (l *lastLines) add(s string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.last = append(l.last, s); len(l.last) > 100 {
		l.last = l.last[1:]
	}
}

func (l *lastLines) Write(p []byte) (int, error) {
	l.add(strings.TrimSpace(string(p)))
	return len(p), nil
}

func (l *lastLines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.last, "\n")
}

// TestPrivateNetwork is one network for all that needs one: it takes half a minute to come up.
func TestPrivateNetwork(t *testing.T) {
	p := needTor(t)
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	dir := shortDir(t)
	n := startPrivate(ctx, t, p, dir)

	one := startClient(ctx, t, p, n)
	two := startClient(ctx, t, p, n)
	two.reach(ctx, t, one.addEcho(t))

	// An authority that dies is back, under another id, and the network works.
	before := torsOf(t, dir)
	if len(before) != 6 {
		t.Fatalf("%d tors run: %v", len(before), before)
	}
	killed := before["authority0"]
	if err := syscall.Kill(killed, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	gone(t, killed)
	awaitTors(ctx, t, dir, 6)
	ready(ctx, t, n)
	if back := torsOf(t, dir)["authority0"]; back == killed || back == 0 {
		t.Errorf("the authority's process is %d, after %d", back, killed)
	}
	two.reach(ctx, t, one.addEcho(t))

	// Closed, nothing is left.
	one.proc.Stop(5 * time.Second)
	two.proc.Stop(5 * time.Second)
	authorities := n.Client(dir, dir).Test.Authorities
	n.Close()
	if left := torsOf(t, dir); len(left) > 0 {
		t.Errorf("still running: %v", left)
	}
	for _, port := range portsOf(t, authorities) {
		l, err := net.Listen("tcp4", "127.0.0.1:"+port)
		if err != nil {
			t.Errorf("a port is still taken: %v", err)
			continue
		}
		l.Close()
	}

	// Started again it is the same network, but for a port that another program has taken.
	l, err := net.Listen("tcp4", "127.0.0.1:"+portsOf(t, authorities[:1])[0])
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() { // as a program does that is spoken to in another language: a client that takes it for its guard would else wait for its handshake for minutes
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	n = startPrivate(ctx, t, p, dir)
	again := n.Client(dir, dir).Test.Authorities
	if len(again) != 3 || again[1] != authorities[1] || again[2] != authorities[2] || again[0] == authorities[0] {
		t.Errorf("the authorities were\n%q\nand are\n%q", authorities, again)
	}
	if id := regexp.MustCompile(`v3ident=\w+`); id.FindString(again[0]) != id.FindString(authorities[0]) {
		t.Error("the authority has other keys")
	}
	one = startClient(ctx, t, p, n)
	two = startClient(ctx, t, p, n)
	two.reach(ctx, t, one.addEcho(t))
}

func startPrivate(ctx context.Context, t *testing.T, p tor.Program, dir string) *tor.Private {
	t.Helper()
	var log lastLines
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(log.String())
		}
	})
	began := time.Now()
	n, err := tor.StartPrivate(ctx, tor.PrivateConfig{Dir: dir, Program: p, Log: &log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	t.Logf("all tors listen after %v", time.Since(began).Round(10*time.Millisecond))
	ready(ctx, t, n)
	t.Logf("ready after %v", time.Since(began).Round(10*time.Millisecond))
	return n
}

func ready(ctx context.Context, t *testing.T, n *tor.Private) {
	t.Helper()
	last, words := -1, ""
	err := n.Ready(ctx, func(percent int, waiting string) {
		if percent < last || percent > 100 || (waiting == "") != (percent == 100) {
			t.Errorf("progress went from %d %% to %d %% (%q)", last, percent, waiting)
		}
		if percent == last && waiting == words {
			t.Errorf("the same was said twice: %d %% (%q)", percent, waiting)
		}
		last, words = percent, waiting
	})
	if err != nil {
		t.Fatal(err)
	}
	if last != 100 {
		t.Errorf("ready at %d %%", last)
	}
}

// torsOf finds the processes of a private network by what /proc says of every process.
func torsOf(t *testing.T, dir string) map[string]int {
	t.Helper()
	found, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil || len(found) == 0 {
		t.Fatalf("/proc: %v", err)
	}
	out := map[string]int{}
	for _, f := range found {
		args, err := os.ReadFile(f)
		if err != nil {
			continue // it has ended
		}
		for arg := range strings.SplitSeq(string(args), "\x00") {
			if rest, ok := strings.CutPrefix(arg, dir+"/"); ok && filepath.Base(rest) == "torrc" {
				out[filepath.Dir(rest)], _ = strconv.Atoi(filepath.Base(filepath.Dir(f)))
			}
		}
	}
	return out
}

func awaitTors(ctx context.Context, t *testing.T, dir string, n int) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for len(torsOf(t, dir)) != n {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("there are not %d tors: %v", n, torsOf(t, dir))
		}
	}
}

// portsOf are the ports in lines of authorities, two each.
func portsOf(t *testing.T, lines []string) (out []string) {
	t.Helper()
	for _, l := range lines {
		m := regexp.MustCompile(`orport=(\d+) .* 127\.0\.0\.1:(\d+) `).FindStringSubmatch(l)
		if m == nil {
			t.Fatalf("no ports in %q", l)
		}
		out = append(out, m[1], m[2])
	}
	return out
}

func TestPrivateNetworkRefuses(t *testing.T) {
	p := needTor(t)
	for name, cfg := range map[string]tor.PrivateConfig{
		"relative":         {Dir: "x", Program: p},
		"a line":           {Dir: "/x\ny", Program: p},
		"too few":          {Dir: t.TempDir(), Program: p, Authorities: 1, Relays: 2},
		"too many":         {Dir: t.TempDir(), Program: p, Relays: 100},
		"authorities":      {Dir: t.TempDir(), Program: p, Authorities: 10},
		"votes too often":  {Dir: t.TempDir(), Program: p, VotingInterval: time.Second},
		"votes at no time": {Dir: t.TempDir(), Program: p, VotingInterval: 11 * time.Second},
		"no program":       {Dir: t.TempDir()},
	} {
		n, err := tor.StartPrivate(t.Context(), cfg)
		var f *fault.Error
		if !errors.As(err, &f) || n != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	// One that is cancelled leaves nothing running.
	dir := shortDir(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(fmt.Errorf("enough"))
	if _, err := tor.StartPrivate(ctx, tor.PrivateConfig{Dir: dir, Program: p}); err == nil || len(torsOf(t, dir)) > 0 {
		t.Errorf("%v, and %v runs", err, torsOf(t, dir))
	}
	// What is damaged is named.
	if err := os.WriteFile(filepath.Join(dir, "ports.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "relay0", "data"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "relay0", "data", "fingerprint"), []byte("relay0 nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := tor.StartPrivate(t.Context(), tor.PrivateConfig{Dir: dir, Program: p}); err == nil || !strings.Contains(err.Error(), "relay0") {
		t.Errorf("a damaged fingerprint: %v", err)
	}
}
