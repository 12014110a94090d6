package supervisor

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/shallot-net/shallot/kit/alias"
	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/home"
	"github.com/shallot-net/shallot/kit/tor"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
)

// NodeConfig says what a node is.
type NodeConfig struct {
	Name     string // what messages call it
	Role     string
	Home     string   // its directory; made where missing
	Listen   []string // swarm addresses of the broker; empty: those of before, else the role's default
	Siblings string   // the file that names the nodes of its dev network, where it is of one
	Network  string   // the folder whose private network the node is of, where it has one; empty: its home's
	Loopback bool     // listen on loopback where Listen does not say otherwise
	// Executors are a provider's own, TYPE=ADDRESS; empty: those of its configuration, and on an anonymous node none.
	Executors []string
	// Anonymity of the node; nil: an open one.
	Anonymity *Anonymity
	// TorReady is closed when the node's own tor may start. Nil: at once.
	TorReady <-chan struct{}
	// Progress has each step of a node's own tor printed.
	Progress bool
	Ports    *ports // shared by the nodes of a network
	Binaries map[string]string
	Print    *Printer
	// Mirror gets every line that a process writes; nil: only its log file does.
	Mirror func(node, process, line string)
	// Bootstrap is closed when BootstrapAddrs may be asked; those processes that need the addresses start then.
	// Nil: at once.
	Bootstrap      <-chan struct{}
	BootstrapAddrs func() []string
}

// Node is one node of this machine, and the lock on its home.
type Node struct {
	cfg     NodeConfig
	keep    settings
	home    home.Home
	release func()
	tor     *bootstrap // nil unless the node has a tor of its own

	healthy chan struct{} // closed by a network once its services are
	dirty   chan struct{}

	mu    sync.Mutex
	state State
}

// defaultListen: a provider is dialled by others and should stay where it is; a consumer only dials.
var defaultListen = map[string][]string{Provider: {"/ip4/0.0.0.0/tcp/4001"}, Consumer: {"/ip4/0.0.0.0/tcp/0"}}

// OpenNode locks the home and checks that it is one of this role and mode. Close it.
func OpenNode(cfg NodeConfig) (*Node, error) {
	h, err := home.Open(cfg.Home)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(h.Dir, "logs"), 0o700); err != nil {
		return nil, fault.FailedPrecondition("HOME_UNUSABLE", "cannot make the directory %s/logs", h.Dir).Because(err)
	}
	release, err := h.Lock(lockName)
	if err != nil {
		return nil, err
	}
	if err := CheckMode(h, cfg.mode()); err != nil {
		release()
		return nil, err
	}
	old, err := readSettings(h)
	if err == nil && old.Role != "" && old.Role != cfg.Role {
		release()
		return nil, fault.FailedPrecondition("ROLE_FIXED", "%s is the home of a %s and a node has one role: leave --role %s out, or give another --home", h.Dir, old.Role, cfg.Role)
	}
	keep, err := cfg.places(old)
	if err == nil {
		err = writeSettings(h, keep)
	}
	n := &Node{cfg: cfg, keep: keep, home: h, release: release, healthy: make(chan struct{}), dirty: make(chan struct{}, 1)}
	if err == nil {
		err = n.openTor()
	}
	if err == nil && cfg.Anonymity != nil {
		_, err = alias.Open(h.Dir) // before the first process logs a peer
	}
	if err != nil {
		release()
		return nil, err
	}
	n.state = State{Name: cfg.Name, Role: cfg.Role, Mode: cfg.mode(), Fence: cfg.Anonymity.fenceState(), SupervisorPID: os.Getpid(), StartedAt: time.Now().UTC()}
	for _, p := range n.processes() {
		n.state.Processes = append(n.state.Processes, ProcessState{Name: p})
	}
	return n, nil
}

func (cfg *NodeConfig) mode() string {
	if cfg.Anonymity != nil {
		return Anonymous
	}
	return Open
}

// openTor writes the configuration of the node's own tor.
func (n *Node) openTor() error {
	a := n.cfg.Anonymity
	if a == nil || !a.Tor.own() {
		return nil
	}
	n.tor = &bootstrap{}
	if n.cfg.Progress {
		n.tor.say = func(what string) { n.cfg.Print.Printf("%s: %s", n.cfg.Name, what) }
	}
	return a.client(n.home).Write()
}

// processes are all that the supervisor starts.
func (n *Node) processes() []string {
	names := Processes(n.cfg.Role, n.cfg.mode())
	if n.tor != nil {
		names = append([]string{Tor}, names...)
	}
	return names
}

// waits puts what tor waits for before what the rest of the node does: it is the reason of it more often than not. What the node's own tor logs
// tells more than what the node service knows of it; got is nil where that does not answer.
func (n *Node) waits(got *nodev1.Node, complaint string) string {
	waits := torWaits(got)
	if n.tor != nil && n.tor.waits() != "" {
		waits = n.tor.waits()
	}
	switch {
	case waits == "":
		return complaint
	case complaint == "":
		return waits
	default:
		return waits + ", " + complaint
	}
}

// places decides where the node listens.
func (cfg *NodeConfig) places(old settings) (settings, error) {
	if cfg.Ports == nil {
		cfg.Ports = &ports{}
	}
	keep := settings{Role: cfg.Role, Mode: cfg.mode(), Listen: cfg.Listen}
	var err error
	switch {
	case cfg.Anonymity != nil: // its only address is that of its onion service
		if cfg.Anonymity.Test == nil {
			keep.Tor = &cfg.Anonymity.Tor
		}
	case len(keep.Listen) > 0:
	case cfg.Loopback:
		if keep.Listen, err = cfg.Ports.swarm(old.Listen); err != nil {
			return keep, err
		}
	case len(old.Listen) > 0:
		keep.Listen = old.Listen
	default:
		keep.Listen = defaultListen[cfg.Role]
	}
	keep.GatewayPort, err = cfg.Ports.pick(old.GatewayPort)
	return keep, err
}

// Home is the node's home.
func (n *Node) Home() home.Home { return n.home }

// Name is what messages call the node.
func (n *Node) Name() string { return n.cfg.Name }

// Role is provider or consumer.
func (n *Node) Role() string { return n.cfg.Role }

// Close gives the home back.
func (n *Node) Close() { n.release() }

// Run keeps the node's processes running until ctx ends, then stops them: the broker after the services, because these say good-bye through it, and
// tor after the broker. It returns when all are gone, at most five seconds later.
func (n *Node) Run(ctx context.Context) error {
	if err := n.write(); err != nil {
		return err
	}
	stopWriting := make(chan struct{})
	written := make(chan struct{})
	go func() {
		defer close(written)
		n.writeLoop(stopWriting)
	}()
	brokerCtx, stopBroker := context.WithCancel(context.WithoutCancel(ctx))
	defer stopBroker()
	torCtx, stopTor := context.WithCancel(context.WithoutCancel(ctx))
	defer stopTor()
	var services, broker, last sync.WaitGroup
	for _, name := range n.processes() {
		p := n.process(name)
		switch name {
		case Broker:
			broker.Go(func() { p.run(brokerCtx) })
		case Onion, Tor:
			last.Go(func() { p.run(torCtx) })
		default:
			services.Go(func() { p.run(ctx) })
		}
	}
	services.Wait()
	stopBroker()
	broker.Wait()
	stopTor()
	last.Wait()
	close(stopWriting)
	<-written
	return n.sweep()
}

// sweep removes what killed processes leave, and what is no longer true.
func (n *Node) sweep() error {
	sockets := n.processes()
	if n.tor != nil {
		sockets = append(sockets, "tor-control", "tor-socks")
	}
	for _, name := range sockets {
		if path := n.home.Socket(name); !answers(path) {
			_ = os.Remove(path)
		}
	}
	_ = os.Remove(filepath.Join(runDir(n.home), "gateway.json"))
	n.mu.Lock()
	defer n.mu.Unlock()
	n.state.SupervisorPID = 0
	if err := writeRunJSON(n.statePath(), n.state); err != nil {
		return err
	}
	removeShort(n.home)
	return nil
}

// removeShort removes the short directory of a home whose own is too deep for sockets: it lies among other people's
// files. The link to it stays and finds it again.
func removeShort(h home.Home) {
	short, err := os.Readlink(runDir(h))
	if err != nil {
		return // the common case: it is in the home
	}
	_ = os.Remove(filepath.Join(short, "node.json"))
	_ = os.Remove(short) // only when nothing else is in it
}

func (n *Node) process(name string) *process {
	var mirror func(string)
	if n.cfg.Mirror != nil {
		mirror = func(line string) { n.cfg.Mirror(n.cfg.Name, name, line) }
	}
	if name == Tor {
		return n.torProcess(mirror)
	}
	p := &process{name: name, path: n.cfg.Binaries[name], log: openLog(n.home, name, mirror), grace: serviceGrace, changed: n.changed}
	p.args = func() []string { return n.args(name) }
	switch name {
	case Broker:
		p.grace = brokerGrace
	case Onion:
		p.grace = torGrace
	}
	if n.cfg.Anonymity != nil && enclosed(name) {
		p.way = n.cfg.Anonymity.Way
	}
	if needsBootstrap(n.cfg.Role, name) {
		p.gate = n.cfg.Bootstrap
	}
	return p
}

// torProcess is the node's own tor.
func (n *Node) torProcess(mirror func(string)) *process {
	lines := func(line string) {
		n.tor.line(line)
		if mirror != nil {
			mirror(line)
		}
	}
	args := append(tor.Args(n.cfg.Anonymity.client(n.home).TorrcFile()), "__OwningControllerProcess", strconv.Itoa(os.Getpid()))
	return &process{name: Tor, path: n.cfg.Anonymity.Program.Path, log: openLog(n.home, Tor, lines), gate: n.cfg.TorReady, grace: torGrace, foreign: true,
		args: func() []string { n.tor.restarted(); return args }, changed: n.changed}
}

func (n *Node) changed(name string, pid int, why string) {
	now := time.Now().UTC()
	n.mu.Lock()
	var restarts int
	for i := range n.state.Processes {
		p := &n.state.Processes[i]
		if p.Name != name {
			continue
		}
		if pid > 0 {
			if !p.StartedAt.IsZero() {
				p.Restarts++
			}
			p.StartedAt = now
		}
		p.PID = pid
		if why != "" {
			p.LastError = why
		}
		restarts = p.Restarts
	}
	n.mu.Unlock()
	select {
	case n.dirty <- struct{}{}:
	default:
	}
	switch {
	case why != "":
		n.cfg.Print.Printf("%s: %s ended: %s", n.cfg.Name, name, why)
	case pid > 0 && restarts > 0:
		n.cfg.Print.Printf("%s: %s runs again", n.cfg.Name, name)
	}
}

func (n *Node) statePath() string { return filepath.Join(runDir(n.home), "node.json") }

func (n *Node) write() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := writeRunJSON(n.statePath(), n.state); err != nil {
		return fmt.Errorf("say what runs: %w", err)
	}
	return nil
}

// writeLoop writes the state after changes, many of which come together.
func (n *Node) writeLoop(stop <-chan struct{}) {
	for {
		select {
		case <-n.dirty:
			if err := n.write(); err != nil {
				n.cfg.Print.Printf("%s: %v", n.cfg.Name, err)
			}
		case <-stop:
			return
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-stop:
			return
		}
	}
}

// State is what the supervisor knows of its node now.
func (n *Node) State() State {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := n.state
	s.Processes = append([]ProcessState(nil), s.Processes...)
	return s
}
