package anonymous

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	discoveryv1 "github.com/shallot-net/shallot/proto/shallot/discovery/v1"
	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
	"github.com/shallot-net/shallot/test/internal/dev"
	"github.com/shallot-net/shallot/test/internal/hostile"
	"github.com/shallot-net/shallot/test/internal/module"
)

// patience is how long anything may take on a machine that is busy with other tests.
const patience = 2 * time.Minute

// Outcome is how a command ended.
type Outcome struct {
	Stdout, Stderr string
	Code           int
}

// Shallot runs the command against a node.
func (n *Network) Shallot(t testing.TB, node, stdin string, args ...string) Outcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var in io.Reader
	if stdin != "" {
		in = strings.NewReader(stdin)
	}
	out, talk, code, err := n.CLI(ctx, node, in, args...)
	if err != nil {
		t.Fatalf("shallot %s: %v", strings.Join(args, " "), err)
	}
	return Outcome{string(out), string(talk), code}
}

// Want runs a command that must succeed and print this.
func (n *Network) Want(t testing.TB, node, stdout string, args ...string) {
	t.Helper()
	if r := n.Shallot(t, node, "", args...); r.Code != 0 || r.Stdout != stdout {
		t.Errorf("shallot %s: exit code %d, stdout %.200q, want %.200q, stderr %s", strings.Join(args, " "), r.Code, r.Stdout, stdout, r.Stderr)
	}
}

// Status is what a node says of itself, peer id and addresses among it.
func (n *Network) Status(t testing.TB, node string) *nodev1.Node {
	t.Helper()
	c, ctx := n.client(t, node)
	r, err := c.GetNode(ctx, &nodev1.GetNodeRequest{ShowAddresses: true})
	if err != nil {
		t.Fatalf("GetNode of %s: %v", node, err)
	}
	return r.GetNode()
}

func (n *Network) client(t testing.TB, node string) (nodev1.NodeServiceClient, context.Context) {
	t.Helper()
	c, err := n.Node(node)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return c, ctx
}

// Addresses of all providers.
func (n *Network) Addresses(t testing.TB) (all []string) {
	t.Helper()
	for _, node := range n.Nodes() {
		all = append(all, n.Status(t, node).GetAddresses()...)
	}
	return all
}

// Knows tells whether a node takes a peer for an available provider.
func (n *Network) Knows(t testing.TB, node, peer string) bool {
	t.Helper()
	c, ctx := n.client(t, node)
	r, err := c.ListPeers(ctx, &nodev1.ListPeersRequest{State: "available", ShowAddresses: true})
	if err != nil {
		t.Fatalf("ListPeers of %s: %v", node, err)
	}
	return slices.ContainsFunc(r.GetPeers(), func(p *discoveryv1.Peer) bool { return p.GetPeerId() == peer })
}

// idle is a metric that makes a provider welcome.
var idle = &eventv1.Metric{Cpu: &eventv1.Cpu{Cores: 64, Threads: 128, Mhz: 5000}, Memory: &eventv1.Memory{Total: 1 << 40, Free: 1 << 40}, Queue: &eventv1.Queue{Slots: 1 << 20, Capacity: 1 << 20}}

// Poison has two peers say canaries to all providers until the test ends, and returns when the consumer takes the first for a provider. The other says them in announcements, too, and so
// nobody may. They are reached through the tor of a node.
func (n *Network) Poison(t testing.TB, at, consumer string) (believed, blunt *hostile.Poisoner) {
	t.Helper()
	tor, err := n.Tor(at)
	if err != nil {
		t.Fatal(err)
	}
	victims := n.Addresses(t)
	start := func(name string, blunt bool) *hostile.Poisoner {
		p, err := hostile.NewPoisoner(t.Context(), tor, filepath.Join(n.cfg.Dir, name), idle, blunt)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = p.Close() })
		go func() {
			if err := p.Run(t.Context(), victims...); err != nil {
				t.Error(err)
			}
		}()
		return p
	}
	believed, blunt = start("p.sock", false), start("b.sock", true)
	Eventually(t, patience, "the consumer takes the poisoner for a provider", func() bool { return n.Knows(t, consumer, believed.ID) })
	return believed, blunt
}

// Eventually waits until f says true, and fails the test after the timeout.
func Eventually(t testing.TB, timeout time.Duration, what string, f func() bool) {
	t.Helper()
	deadline := time.NewTimer(timeout)
	defer deadline.Stop()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for !f() {
		select {
		case <-deadline.C:
			t.Fatalf("not within %v: %s", timeout, what)
		case <-tick.C:
		}
	}
}

// Logs are the ends of the nodes' logs, for a test that has failed.
func (n *Network) Logs() string {
	files, _ := filepath.Glob(filepath.Join(n.Dir, "*", "logs", "*.log"))
	var out strings.Builder
	for _, f := range files {
		b, _ := os.ReadFile(f)
		fmt.Fprintf(&out, "%s:\n%s\n", f, b[max(0, len(b)-2000):])
	}
	return out.String()
}

// Probe compiles the WASI program for tests and returns its path in a folder.
func Probe(dir string) (string, error) {
	path := filepath.Join(dir, "probe.wasm")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", path, "github.com/shallot-net/shallot/test/programs/probe")
	build.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the probe: %w: %s", err, out)
	}
	return path, nil
}

// Tasks gives a consumer one task of every kind, each with its known result: a sum, a program that travels with its task, one that goes by reference as its input and its result of
// some MiB do, and a job.
func (n *Network) Tasks(t testing.TB, consumer, probe string) {
	t.Helper()
	dir := t.TempDir()
	large, small := make([]byte, 4<<20), module.Small()
	_, _ = rand.Read(large)
	for name, data := range map[string][]byte{"large": large, "small.wasm": small, "in/0.txt": nil, "in/1.txt": nil, "in/2.txt": nil} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, data, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	program, out := filepath.Join(dir, "small.wasm"), filepath.Join(dir, "out")
	n.Want(t, consumer, "6\n", "run", "sum", "1", "2", "3")
	n.Want(t, consumer, "done\n", "run", "wasm", program)
	n.Want(t, consumer, string(large), "run", "wasm", probe, "--input", filepath.Join(dir, "large"), "--", "read", "large")
	n.twoExposures(t, consumer)
	if r := n.Shallot(t, consumer, "", "map", "wasm", program, "--inputs", filepath.Join(dir, "in", "*.txt"), "--output", out); r.Code != 0 {
		t.Errorf("the job: exit code %d, %s%s", r.Code, r.Stdout, r.Stderr)
	}
	if shards, err := filepath.Glob(filepath.Join(out, "?.txt*")); err != nil || len(shards) != 3 {
		t.Errorf("the job made %v, %v", shards, err)
	}
}

// twoExposures checks that providers have one onion service for events and one for content, and that a consumer has none.
func (n *Network) twoExposures(t testing.TB, consumer string) {
	t.Helper()
	for _, node := range n.Nodes() {
		data, err := os.ReadFile(filepath.Join(n.Home(node), "state", "onion", "services.json"))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		services := map[string]any{}
		if len(data) > 0 {
			if err := json.Unmarshal(data, &services); err != nil {
				t.Fatalf("%s: %v", node, err)
			}
		}
		switch {
		case node == consumer && len(services) != 0:
			t.Errorf("%s, a consumer, has %d onion services", node, len(services))
		case strings.HasPrefix(node, "provider-") && len(services) != 2:
			t.Errorf("%s has %d onion services, want one for events and one for content", node, len(services))
		}
	}
}

// Up starts one more node, in the folder of that name, that uses the tor of another one as the machine's own, and joins through that one. It is stopped when the test ends, or before by
// the function that is returned; the same name starts it again.
func (n *Network) Up(t testing.TB, name, at string, args ...string) (stop func()) {
	t.Helper()
	tor, err := n.Tor(at)
	if err != nil {
		t.Fatal(err)
	}
	return n.up(t, name, at, append([]string{"--tor-control", "unix:" + tor.Control, "--tor-socks", "unix:" + tor.Socks}, args...)...)
}

func (n *Network) up(t testing.TB, name, at string, args ...string) (stop func()) {
	t.Helper()
	argv := append([]string{"up", "--anonymous", "--home", n.Home(name), "--bootstrap", n.Status(t, at).GetAddresses()[0]}, args...)
	up, err := dev.Start(t.Context(), dev.Config{Bin: n.Bin, Dir: n.Home(name), Command: func(cmd *exec.Cmd) { cmd.Args = append(cmd.Args[:1], argv...) }})
	if err != nil {
		t.Fatal(err)
	}
	stop = sync.OnceFunc(func() {
		if err := up.Stop(); err != nil {
			t.Errorf("stop %s: %v\n%s", name, err, up.Tail())
		}
	})
	t.Cleanup(stop)
	return stop
}

// Metric is the sum of a node's metric over those of its samples that have all these labels, each as NAME="VALUE"; 0 where it cannot be had.
func (n *Network) Metric(t testing.TB, node, name string, labels ...string) (sum float64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	all, err := n.Telemetry(ctx, node)
	if err != nil {
		t.Logf("metrics of %s: %v", node, err)
	}
	for _, p := range all {
		for line := range strings.Lines(string(p.GetText())) {
			if slices.ContainsFunc(labels, func(l string) bool { return !strings.Contains(line, l) }) {
				continue
			}
			rest, ok := strings.CutPrefix(line, name)
			if i := strings.LastIndexByte(rest, ' '); ok && i >= 0 && (rest[0] == '{' || rest[0] == ' ') {
				v, _ := strconv.ParseFloat(strings.TrimSpace(rest[i:]), 64)
				sum += v
			}
		}
	}
	return sum
}
