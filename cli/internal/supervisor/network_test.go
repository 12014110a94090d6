package supervisor

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shallot-net/shallot/cli/internal/invite"
	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/home"
)

func TestNetworkBecomesReadyAndLeavesNothing(t *testing.T) {
	t.Parallel()
	r := startNetwork(t, 3, 2)
	nodes := r.awaitReady(t)
	var names []string
	for _, n := range nodes {
		names = append(names, n.Name)
		if n.PeerID != "peer-"+n.Name || !strings.HasPrefix(n.GatewayURL, "http://127.0.0.1:") || n.Home != filepath.Join(r.dir, n.Name) {
			t.Errorf("node is %+v", n)
		}
	}
	if want := []string{"provider-1", "provider-2", "provider-3", "consumer-1", "consumer-2"}; !slices.Equal(names, want) {
		t.Errorf("nodes are %v, want %v", names, want)
	}
	if got := len(processesUnder(t, r.dir)); got != 3*6+2*4 {
		t.Errorf("%d processes carry a node's home on their command line, want 26", got)
	}
	file, err := ReadNetwork(r.dir)
	if err != nil || file.PID != os.Getpid() || len(file.Nodes) != 5 || file.Nodes[3].Role != Consumer {
		t.Errorf("dev.json is %+v, %v", file, err)
	}
	h := r.home(t, "consumer-1")
	if !Running(h) || RecordedRole(h) != Consumer {
		t.Error("consumer-1 does not look as if it ran")
	}
	begin := time.Now()
	r.stop()
	if err := <-r.ended; err != nil {
		t.Errorf("stopped with %v", err)
	}
	r.ended <- nil
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("stopping took %v", took)
	}
	if left := processesUnder(t, r.dir); len(left) > 0 {
		t.Errorf("still running: %v", left)
	}
	if err := filepath.WalkDir(r.dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type()&fs.ModeSocket != 0 {
			t.Errorf("socket %s was left", path)
		}
		return err
	}); err != nil {
		t.Error(err)
	}
	if Running(h) {
		t.Error("consumer-1 looks as if it still ran")
	}
	if file, _ := ReadNetwork(r.dir); file.PID != 0 || len(file.Nodes) != 5 {
		t.Errorf("dev.json is %+v after the stop", file)
	}
}

func TestHomeTooDeepForSockets(t *testing.T) {
	t.Parallel()
	deep := strings.Repeat("x", 120)
	r := startNetwork(t, 1, 0, func(dir string) string { return filepath.Join(dir, deep) })
	r.awaitReady(t)
	h := r.home(t, "provider-1")
	if pidOf(t, h, "node") == 0 || mustProbe(t, h).GetPeerId() != "peer-provider-1" {
		t.Error("the node is not where others look for it")
	}
	short := filepath.Dir(h.Socket("node"))
	r.stop()
	r.ended <- <-r.ended
	if _, err := os.Stat(short); !os.IsNotExist(err) {
		t.Errorf("%s was left: %v", short, err)
	}
}

func TestSecondNetworkOnTheSameDirectoryIsRefused(t *testing.T) {
	t.Parallel()
	r := startNetwork(t, 1, 0)
	r.awaitReady(t)
	cfg := NetworkConfig{Dir: r.dir, Providers: 1, Finder: Finder{Path: true, Dirs: []string{binOf(t, r, "provider-1")}}, Print: NewPrinter(&buffer{})}
	err := RunNetwork(t.Context(), cfg)
	var f *fault.Error
	if !errors.As(err, &f) || f.Reason != "HOME_IN_USE" || !strings.Contains(err.Error(), "pid ") {
		t.Errorf("a second network got %v", err)
	}
	if _, err := OpenNode(NodeConfig{Name: "x", Role: Provider, Home: filepath.Join(r.dir, "provider-1"), Print: cfg.Print}); !errors.As(err, &f) || f.Reason != "HOME_IN_USE" {
		t.Errorf("up on a node of a network got %v", err)
	}
}

// binOf is the directory that a running node's programs are in.
func binOf(t *testing.T, r *running, node string) string {
	t.Helper()
	exe, err := os.Readlink("/proc/" + itoa(pidOf(t, r.home(t, node), "broker")) + "/exe")
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Dir(exe)
}

func TestKilledProcessesRunAgainAtOnce(t *testing.T) {
	t.Parallel()
	r := startNetwork(t, 1, 1)
	r.awaitReady(t)
	h := r.home(t, "provider-1")
	for _, name := range Processes(Provider, Open) {
		old := pidOf(t, h, name)
		begin := time.Now()
		if err := syscall.Kill(old, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		var now int
		eventually(t, name+" runs again", func() bool { now = pidOf(t, h, name); return now != old && now != 0 })
		if took := time.Since(begin); took > time.Second { // 100 ms on a quiet machine
			t.Errorf("%s ran again after %v", name, took)
		}
		if !zombieFree(old) {
			t.Errorf("%s was left as a zombie", name)
		}
	}
	s, _ := ReadState(h)
	for _, p := range s.Processes {
		if p.Restarts != 1 || p.LastError == "" {
			t.Errorf("process is %+v", p)
		}
	}
	if p := mustProbe(t, h); p == nil {
		t.Error("the node does not answer")
	}
	if out := r.out.String(); !strings.Contains(out, "provider-1: broker ended: signal: killed") || !strings.Contains(out, "provider-1: broker runs again") {
		t.Errorf("it said %s", out)
	}
}

func TestProcessThatKeepsDyingIsTriedForEver(t *testing.T) {
	t.Parallel()
	r := startNetwork(t, 1, 0)
	r.awaitReady(t)
	h := r.home(t, "provider-1")
	crash := filepath.Join(h.Dir, "crash.metric")
	if err := os.WriteFile(crash, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pidOf(t, h, "metric"), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	restarts := func() int {
		s, _ := ReadState(h)
		return s.Processes[2].Restarts
	}
	eventually(t, "it has paused and been tried again", func() bool { return restarts() > restartThreshold+1 })
	if n := restarts(); n > 4*restartThreshold {
		t.Errorf("%d restarts: there is no pause", n)
	}
	if err := os.Remove(crash); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it runs", func() bool { return answers(h.Socket("metric")) })
	if out := r.out.String(); !strings.Contains(out, "metric ended: exit status 1: shallot-metric: a file says that it must die") {
		t.Errorf("its last words are not in\n%s", out)
	}
}

func TestProcessThatIgnoresTheStopIsKilled(t *testing.T) {
	t.Parallel()
	r := startNetwork(t, 1, 0, func(dir string) string {
		if err := os.MkdirAll(filepath.Join(dir, "provider-1"), 0o700); err != nil {
			t.Fatal(err)
		}
		for _, p := range []string{"task", Broker} {
			if err := os.WriteFile(filepath.Join(dir, "provider-1", "deaf."+p), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return dir
	})
	r.awaitReady(t)
	begin := time.Now()
	r.stop()
	r.ended <- <-r.ended
	if took := time.Since(begin); took > 5*time.Second || took < serviceGrace {
		t.Errorf("stopping took %v", took)
	}
	if answers(r.home(t, "provider-1").Socket("task")) {
		t.Error("task still answers")
	}
}

func TestPortsAndRolesStay(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var p ports
	first, err := p.swarm(nil)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := new(ports).swarm(first); err != nil || !slices.Equal(again, first) {
		t.Errorf("port of %v became %v, %v", first, again, err)
	}
	if other, err := p.swarm(first); err != nil || slices.Equal(other, first) {
		t.Errorf("two nodes were given %v, %v", other, err)
	}
	print := NewPrinter(&buffer{})
	n, err := OpenNode(NodeConfig{Name: "n", Role: Provider, Home: dir, Print: print})
	if err != nil {
		t.Fatal(err)
	}
	n.Close()
	var f *fault.Error
	if _, err := OpenNode(NodeConfig{Name: "n", Role: Consumer, Home: dir, Print: print}); !errors.As(err, &f) || f.Reason != "ROLE_FIXED" {
		t.Errorf("the other role got %v", err)
	}
	if n, err = OpenNode(NodeConfig{Name: "n", Role: Provider, Home: dir, Print: print}); err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	if want := []string{"--home", dir, "--listen-addrs", "/ip4/0.0.0.0/tcp/4001", "--routing", "server"}; !slices.Equal(n.args(Broker), want) {
		t.Errorf("arguments are %v, want %v", n.args(Broker), want)
	}
	gateway := n.args("gateway")
	if len(gateway) != 4 || gateway[2] != "--http" || !strings.HasPrefix(gateway[3], "127.0.0.1:2") && !strings.HasPrefix(gateway[3], "127.0.0.1:3") {
		t.Errorf("arguments are %v", gateway)
	}
	// What the user has configured is not overruled.
	if err := os.WriteFile(filepath.Join(dir, "config.yaml"), []byte("broker:\n  listen_addrs: [/ip4/10.0.0.1/tcp/1]\n  routing: client\ngateway:\n  http: 127.0.0.1:8080\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := append(n.args(Broker), n.args("gateway")...); len(got) != 4 {
		t.Errorf("arguments are %v", got)
	}
	// In a dev network the gateways share a token and know each other, unless one is told otherwise.
	n.cfg.Siblings = "/net/dev.json"
	if want := []string{"--home", dir, "--token-file", "/net/gateway.token", "--siblings", "/net/dev.json"}; !slices.Equal(n.args("gateway"), want) {
		t.Errorf("arguments are %v, want %v", n.args("gateway"), want)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.yaml"), []byte("gateway:\n  http: 127.0.0.1:8080\n  token_file: /own\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if want := []string{"--home", dir, "--siblings", "/net/dev.json"}; !slices.Equal(n.args("gateway"), want) {
		t.Errorf("arguments are %v, want %v", n.args("gateway"), want)
	}
}

// A node of a private network is started with its key and with the addresses that its invite held.
func TestNodesUseTheNetworkOfTheirHome(t *testing.T) {
	t.Parallel()
	print := NewPrinter(&buffer{})
	dir := t.TempDir()
	h, err := home.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	const first, given = "/ip4/192.0.2.1/tcp/1/p2p/x", "/ip4/192.0.2.2/tcp/1/p2p/y"
	if err := WriteNetwork(h, invite.Invite{Key: invite.NewKey(), Addresses: []string{first}}); err != nil {
		t.Fatal(err)
	}
	up, err := OpenNode(NodeConfig{Name: "n", Role: Consumer, Home: dir, Print: print, BootstrapAddrs: func() []string { return []string{given} }})
	if err != nil {
		t.Fatal(err)
	}
	defer up.Close()
	if got := strings.Join(up.args("node"), " "); !strings.HasSuffix(got, "--bootstrap "+given+","+first) {
		t.Errorf("a node joins with %s", got)
	}
	if got := strings.Join(up.args(Broker), " "); strings.Contains(got, "routing") { // a consumer only asks, which is the broker's default
		t.Errorf("a consumer's broker has %s", got)
	}
	if got := strings.Join(up.args(Broker), " "); strings.Contains(got, "network-key") { // it finds its home's own
		t.Errorf("its broker has %s", got)
	}
	inner, err := OpenNode(NodeConfig{Name: "m", Role: Provider, Home: filepath.Join(dir, "provider-1"), Network: dir, Print: print})
	if err != nil {
		t.Fatal(err)
	}
	defer inner.Close()
	if got := strings.Join(inner.args(Broker), " "); !strings.Contains(got, "--network-key-file "+filepath.Join(dir, "network.key")) {
		t.Errorf("the broker of a dev network's node has %s", got)
	}
	if got := strings.Join(inner.args("discovery"), " "); !strings.HasSuffix(got, "--bootstrap "+first) {
		t.Errorf("it joins with %s", got)
	}
}

// A private network is for one mode, and its key is used in no other.
func TestAPrivateNetworkIsForOneMode(t *testing.T) {
	t.Parallel()
	print := NewPrinter(&buffer{})
	for _, anonymous := range []bool{false, true} {
		h, err := home.Open(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		if err := WriteNetwork(h, invite.Invite{Key: invite.NewKey(), Anonymous: anonymous}); err != nil {
			t.Fatal(err)
		}
		system, dev := &Anonymity{Tor: TorSettings{Control: "unix:/c", Socks: "unix:/s"}}, &AnonymousNetwork{}
		for _, up := range []bool{false, true} {
			cfg, net := NodeConfig{Name: "n", Role: Consumer, Home: h.Dir, Print: print}, network{dir: h}
			if up {
				cfg.Anonymity, net.cfg.Anonymous = system, dev
			}
			errs := map[string]error{"dev": net.checkModes()}
			n, err := OpenNode(cfg)
			if errs["up"] = err; err == nil {
				n.Close()
			}
			for what, err := range errs {
				if ok := err == nil || fault.From(err).Reason != "MODE_MISMATCH"; ok != (up == anonymous) {
					t.Errorf("%s in anonymous mode %v, with a network of anonymous nodes %v: %v", what, up, anonymous, err)
				}
			}
		}
	}
	// An earlier version did not say.
	h, err := home.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(h.Dir, "network.key"), invite.KeyFile(invite.NewKey()), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(CheckMode(h, Open), CheckMode(h, Anonymous)); err != nil {
		t.Errorf("a network of an earlier version: %v", err)
	}
	if err := os.WriteFile(filepath.Join(h.Dir, "network.mode"), []byte("other\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := CheckMode(h, Open); err == nil || fault.From(err).Reason != "STATE_UNREADABLE" {
		t.Errorf("a mode that is none: %v", err)
	}
}

func TestMissingProgramsAreNamed(t *testing.T) {
	t.Parallel()
	err := RunNetwork(t.Context(), NetworkConfig{Dir: t.TempDir(), Providers: 1, Finder: Finder{Dirs: []string{"/nowhere"}}, Print: NewPrinter(&buffer{})})
	for _, want := range []string{"shallot-broker", "shallot-gateway", "/nowhere", "make build"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
	if err := RunNetwork(t.Context(), NetworkConfig{Dir: t.TempDir(), Providers: 0}); err == nil {
		t.Error("a network without a provider started")
	}
}
