package supervisor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/shallot-net/shallot/cli/internal/clitest"
	"github.com/shallot-net/shallot/kit/alias"
	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/fence"
	"github.com/shallot-net/shallot/kit/home"
	"github.com/shallot-net/shallot/kit/tor"
)

// fakeNetwork is a private Tor network that is ready when it is told.
type fakeNetwork struct {
	ready  chan struct{}
	closed atomic.Bool
}

func (*fakeNetwork) Client(dir, runDir string) tor.ClientConfig {
	return tor.ClientConfig{Dir: dir, RunDir: runDir, Test: &tor.TestNetwork{Authorities: []string{"authority0 orport=1 no-v2 v3ident=AA 127.0.0.1:2 BB"}}}
}

func (f *fakeNetwork) Ready(ctx context.Context, progress func(int, string)) error {
	progress(40, "the authorities' first vote")
	select {
	case <-f.ready:
		progress(100, "")
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (f *fakeNetwork) Close() { f.closed.Store(true) }

// startAnonymous starts a network of stand-ins with a fake private Tor network and a fake tor.
func startAnonymous(t *testing.T, sub string, providers, consumers int, unfenced bool) (*running, *fakeNetwork) {
	t.Helper()
	f := &fakeNetwork{ready: make(chan struct{})}
	r := launch(t, func(r *running, cfg *NetworkConfig) {
		r.dir = filepath.Join(r.dir, sub)
		cfg.Providers, cfg.Consumers = providers, consumers
		cfg.Anonymous = &AnonymousNetwork{Unfenced: unfenced}
		cfg.startTor = func(_ context.Context, p tor.PrivateConfig) (torNetwork, error) {
			if p.Dir != filepath.Join(r.dir, "tor") || p.Program.Version.String() != "0.4.9.11" {
				t.Errorf("the private Tor network is to be %+v", p)
			}
			return f, nil
		}
	})
	return r, f
}

func needFence(t *testing.T) {
	t.Helper()
	if _, err := fence.Available(t.Context()); err != nil {
		t.Skipf("no fence here: %v", err)
	}
	if f, err := fence.Observe(); err != nil || f.Enclosed {
		t.Skip("these tests are enclosed themselves")
	}
}

func TestAnonymousNetworkBecomesReadyEnclosed(t *testing.T) {
	t.Parallel()
	needFence(t)
	r, f := startAnonymous(t, "", 2, 1, false)
	eventually(t, "tor is waited for", func() bool { return len(processesUnder(t, r.dir)) == 7+6+4 }) // all but those that need an address to join through
	for _, p := range processesUnder(t, r.dir) {
		if strings.HasSuffix(p, " -f") {
			t.Errorf("a tor runs before there is a network for it: %s", p)
		}
	}
	close(f.ready)
	for _, n := range r.awaitReady(t) {
		if n.Alias != "alias-of-peer-"+n.Name || n.PeerID != "" {
			t.Errorf("%s is called %q, and its peer id %q is shown", n.Name, n.Alias, n.PeerID)
		}
		if info, err := os.Stat(alias.Path(n.Home)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s has no key for aliases: %v, %v", n.Name, info, err)
		}
		for _, p := range Processes(n.Role, Anonymous) {
			if p == "gateway" {
				continue
			}
			if seen, err := clitest.Observed(n.Home, p); err != nil || seen.Enclosed != enclosed(p) {
				t.Errorf("%s of %s sees %+v, %v", p, n.Name, seen, err)
			}
		}
		s, err := ReadState(r.home(t, n.Name))
		if err != nil || s.Mode != Anonymous || s.Fence != "enclosed" || s.Processes[0].Name != Tor || s.Processes[0].PID == 0 {
			t.Errorf("%s is %+v, %v", n.Name, s, err)
		}
		torrc, err := os.ReadFile(filepath.Join(n.Home, "tor", "torrc"))
		if err != nil || !strings.Contains(string(torrc), "TestingTorNetwork 1") {
			t.Errorf("%s's tor has %s, %v", n.Name, torrc, err)
		}
		if log, err := os.ReadFile(LogFile(r.home(t, n.Name), Tor)); err != nil || !strings.Contains(string(log), "Bootstrapped 100%") {
			t.Errorf("%s's tor logged %s, %v", n.Name, log, err)
		}
	}
	file, err := ReadNetwork(r.dir)
	if err != nil || file.Mode != Anonymous {
		t.Errorf("dev.json is %+v, %v", file, err)
	}
	h := r.home(t, "provider-1")
	for _, name := range []string{Tor, Onion, Broker} { // each comes back, and into the fence where it belongs there
		old := pidOf(t, h, name)
		if err := os.Remove(filepath.Join(h.Dir, "observed."+name)); err != nil && name != Tor {
			t.Fatal(err)
		}
		if err := syscall.Kill(old, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		eventually(t, name+" runs again", func() bool {
			seen, err := clitest.Observed(h.Dir, name)
			now := pidOf(t, h, name)
			return now != 0 && now != old && (name == Tor || err == nil && seen.Enclosed == enclosed(name))
		})
	}
	begin := time.Now()
	r.stop()
	r.ended <- <-r.ended
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("stopping took %v", took)
	}
	if !f.closed.Load() {
		t.Error("the private Tor network was left")
	}
	for _, s := range []string{"tor-control", "tor-socks", Onion} {
		if _, err := os.Lstat(h.Socket(s)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the socket of %s was left: %v", s, err)
		}
	}
	for _, want := range []string{"a private Tor network on this machine: nothing of this reaches the internet", "the private Tor network is up", "have no network but Tor's socket"} {
		if !strings.Contains(r.out.String(), want) {
			t.Errorf("%q is not in\n%s", want, r.out)
		}
	}
	// The directory is an anonymous network's from now on.
	var fe *fault.Error
	err = RunNetwork(t.Context(), NetworkConfig{Dir: r.dir, Providers: 1, Finder: Finder{Dirs: []string{r.bin}}, Print: NewPrinter(&buffer{})})
	if !errors.As(err, &fe) || fe.Reason != "MODE_MISMATCH" || !strings.Contains(err.Error(), filepath.Join("supervisor", "node.json")) {
		t.Errorf("in open mode it got %v", err)
	}
}

func TestUnfencedNetworkSaysSo(t *testing.T) {
	t.Parallel()
	r, f := startAnonymous(t, strings.Repeat("x", 120), 1, 0, true) // its sockets are in a shorter directory, tor's too
	close(f.ready)
	r.awaitReady(t)
	if s, err := ReadState(r.home(t, "provider-1")); err != nil || s.Fence != "none" {
		t.Errorf("the state is %+v, %v", s, err)
	}
	if runtime.GOOS == "linux" {
		if seen, err := clitest.Observed(filepath.Join(r.dir, "provider-1"), Broker); err != nil || seen.Enclosed {
			t.Errorf("the broker sees %+v, %v", seen, err)
		}
	}
	if !strings.Contains(r.out.String(), "WARNING: --unfenced") {
		t.Errorf("it said\n%s", r.out)
	}
}

// upAnonymous runs one node of stand-ins until the test ends.
func upAnonymous(t *testing.T, dir string, a AnonymousSingle) (out *buffer, ready chan ReadyNode, ended chan error) {
	t.Helper()
	out, ready, ended = &buffer{}, make(chan ReadyNode, 1), make(chan error, 1)
	ctx, stop := context.WithCancel(t.Context())
	bin := clitest.Install(t)
	go func() {
		ended <- RunSingle(ctx, SingleConfig{Home: dir, Role: Provider, Executors: []string{"grep=unix:/run/grep"}, Anonymous: &a, Finder: Finder{Dirs: []string{bin}},
			Print: NewPrinter(out), Ready: func(n ReadyNode) { ready <- n }})
	}()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("the node ended with %v", err)
		}
		if left := processesUnder(t, dir); len(left) > 0 {
			t.Errorf("still running: %v", left)
		}
	})
	return out, ready, ended
}

func TestTorThatHangsIsExplained(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	hang := filepath.Join(dir, "hang.tor")
	if err := os.WriteFile(hang, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	out, ready, _ := upAnonymous(t, dir, AnonymousSingle{Unfenced: true, Tor: TorSettings{Bridges: []string{"192.0.2.7:443"}}})
	const why = "tor is at 45 % (Asking for relay descriptors), and says: Stuck at 45% (requesting_descriptors): Asking for relay descriptors. (Connection refused)"
	eventually(t, "the reason is said", func() bool { return strings.Contains(out.String(), "provider: "+why+"\n") })
	eventually(t, "it is waited for", func() bool { return strings.Contains(out.String(), "still waiting for provider: "+why) })
	if strings.Contains(out.String(), "192.0.2.") {
		t.Errorf("an address of tor's is in\n%s", out)
	}
	if err := os.Remove(hang); err != nil {
		t.Fatal(err)
	}
	h, err := home.Find(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pidOf(t, h, Tor), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ready:
	case <-time.After(time.Minute):
		t.Fatalf("it was not ready in time:\n%s", out)
	}
	if torrc, err := os.ReadFile(filepath.Join(dir, "tor", "torrc")); err != nil || !strings.Contains(string(torrc), "Bridge 192.0.2.7:443") {
		t.Errorf("torrc is %s, %v", torrc, err)
	}
}

func TestModesAreForGood(t *testing.T) {
	t.Parallel()
	print := NewPrinter(&buffer{})
	var f *fault.Error
	open := func(dir string, a *Anonymity) error {
		n, err := OpenNode(NodeConfig{Name: "n", Role: Consumer, Home: dir, Print: print, Anonymity: a})
		if err == nil {
			n.Close()
		}
		return err
	}
	system := func() *Anonymity { return &Anonymity{Tor: TorSettings{Control: "unix:/c", Socks: "unix:/s"}} }
	first, second, third := t.TempDir(), t.TempDir(), t.TempDir()
	if err := errors.Join(open(first, nil), open(first, nil), open(second, system()), open(second, system())); err != nil {
		t.Fatal(err)
	}
	if err := open(first, system()); !errors.As(err, &f) || f.Reason != "MODE_MISMATCH" || !strings.Contains(err.Error(), "another --home") {
		t.Errorf("an open home in anonymous mode: %v", err)
	}
	if err := open(second, nil); !errors.As(err, &f) || f.Reason != "MODE_MISMATCH" || !strings.Contains(err.Error(), "give --anonymous") {
		t.Errorf("an anonymous home in open mode: %v", err)
	}
	// A broker was run in it without a supervisor.
	if err := os.MkdirAll(filepath.Join(third, "state", "broker"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(third, "state", "broker", "mode"), []byte("open\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := open(third, system()); !errors.As(err, &f) || f.Reason != "MODE_MISMATCH" || !strings.Contains(err.Error(), filepath.Join("broker", "mode")) {
		t.Errorf("a broker's home in anonymous mode: %v", err)
	}
	// What cannot be read may be an anonymous node's.
	if err := os.WriteFile(filepath.Join(second, "state", "supervisor", "node.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := open(second, nil); !errors.As(err, &f) || f.Reason != "STATE_UNREADABLE" {
		t.Errorf("a broken home: %v", err)
	}
}

func TestArgumentsOfAnAnonymousNode(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "config.yaml"), []byte("task:\n  provider:\n    executors: [a=127.0.0.1:1]\nbroker:\n  listen_addrs: [/ip4/10.0.0.1/tcp/1]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	onion := "/onion3/" + strings.Repeat("a", 56) + ":1/p2p/x"
	n, err := OpenNode(NodeConfig{Name: "n", Role: Provider, Home: dir, Print: NewPrinter(&buffer{}), Anonymity: &Anonymity{Way: fence.UserNamespace},
		BootstrapAddrs: func() []string { return []string{onion, "/ip4/192.0.2.1/tcp/1/p2p/y"} }})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	socket := func(name string) string { return n.Home().Endpoint(name) }
	for process, want := range map[string][]string{
		Onion:       {"--control", socket("tor-control"), "--cookie-file", filepath.Join(dir, "tor", "data", "control_auth_cookie")},
		Broker:      {"--mode", "anonymous", "--onion.socks", socket("tor-socks"), "--onion.service=true"},
		"discovery": {"--role", "provider", "--mode", "anonymous", "--bootstrap", onion},
		"metric":    {"--role", "provider", "--mode", "anonymous"},
		"node":      {"--role", "provider", "--mode", "anonymous"},
		"gateway":   {"--mode", "anonymous", "--http", fmt.Sprintf("127.0.0.1:%d", n.keep.GatewayPort)},
		"task":      {"--role", "provider", "--mode", "anonymous", "--provider.executors", ""}, // those of the configuration were not named
	} {
		if got := n.args(process); !slices.Equal(got, append([]string{"--home", dir}, want...)) {
			t.Errorf("%s has %q, want %q", process, got, want)
		}
	}
	c, err := OpenNode(NodeConfig{Name: "n", Role: Consumer, Home: t.TempDir(), Print: NewPrinter(&buffer{}), Anonymity: &Anonymity{Tor: TorSettings{Control: "unix:/c", Socks: "unix:/s"}}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got, want := c.args(Broker)[2:], []string{"--mode", "anonymous", "--onion.socks", "unix:/s", "--unfenced=true"}; !slices.Equal(got, want) {
		t.Errorf("a consumer's broker without a fence has %q, want %q", got, want)
	}
	if got, want := c.args(Onion)[2:], []string{"--control", "unix:/c"}; !slices.Equal(got, want) {
		t.Errorf("onion at a tor of the system has %q, want %q", got, want)
	}
	if slices.Contains(c.processes(), Tor) {
		t.Error("a tor is started beside that of the system")
	}
}

func TestTorSettingsStay(t *testing.T) {
	t.Parallel()
	bridges := TorSettings{Bridges: []string{"b"}, Transports: []string{"t"}}
	system := TorSettings{Control: "unix:/c", Socks: "unix:/s"}
	for name, c := range map[string]struct {
		given  TorSettings
		before *TorSettings
		want   TorSettings
	}{
		"nothing":                {TorSettings{}, nil, TorSettings{}},
		"bridges stay":           {TorSettings{}, &bridges, bridges},
		"a system's tor stays":   {TorSettings{}, &system, system},
		"another bridge":         {TorSettings{Bridges: []string{"c"}}, &bridges, TorSettings{Bridges: []string{"c"}, Transports: []string{"t"}}},
		"no more bridges":        {TorSettings{Bridges: []string{None}, Transports: []string{None}}, &bridges, TorSettings{}},
		"a system's tor at last": {system, &bridges, system},
		"bridges at last":        {bridges, &system, bridges},
		"an own tor at last":     {TorSettings{Control: None, Socks: None}, &system, TorSettings{}},
	} {
		got := c.given.given(c.before)
		if got.Control != c.want.Control || got.Socks != c.want.Socks || !slices.Equal(got.Bridges, c.want.Bridges) || !slices.Equal(got.Transports, c.want.Transports) {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}

func TestTorSettingsThatCannotBe(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for want, s := range map[string]TorSettings{
		"give both":                  {Control: "unix:/c"},
		"or neither":                 {Control: None, Socks: "unix:/s"},
		"is not unix:/path":          {Control: "127.0.0.1:9051", Socks: "unix:/s"},
		"is there and is no socket":  {Control: "unix:/c", Socks: "unix:" + file},
		"use a shorter one":          {Control: "unix:/" + strings.Repeat("x", 200), Socks: "unix:/s"},
		"a tor that shallot starts":  {Control: "unix:/c", Socks: "unix:/s", Bridges: []string{"192.0.2.7:443"}},
		"this is no pluggable trans": {Transports: []string{"obfs4"}},
		"give it alone":              {Bridges: []string{None, "192.0.2.7:443"}},
	} {
		if err := s.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v does not say %q", s, err, want)
		}
	}
	if err := (TorSettings{Control: "unix:/c", Socks: "unix:/s"}).Check(); err != nil {
		t.Error(err)
	}
}

func TestMissingTorIsNamed(t *testing.T) {
	t.Parallel()
	bin := clitest.Install(t)
	if err := os.Remove(filepath.Join(bin, "tor")); err != nil {
		t.Fatal(err)
	}
	out := &buffer{}
	err := RunSingle(t.Context(), SingleConfig{Home: t.TempDir(), Role: Consumer, Anonymous: &AnonymousSingle{Unfenced: true}, Finder: Finder{Dirs: []string{bin}}, Print: NewPrinter(out)})
	if err == nil || !strings.Contains(err.Error(), "tor") || strings.Contains(out.String(), "starting") {
		t.Errorf("without a tor: %v, %s", err, out)
	}
}
