package supervisor

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/home"
)

// NodeConfig says what a node is.
type NodeConfig struct {
	Name     string // what messages call it
	Role     string
	Home     string   // its directory; made where missing
	Listen   []string // swarm addresses of the broker; empty: those of before, else the role's default
	Network  string   // the folder whose private network the node is of, where it has one; empty: its home's
	Loopback bool     // listen on loopback where Listen does not say otherwise
	// Executors are a provider's own, TYPE=ADDRESS; empty: those of its configuration.
	Executors []string
	Ports     *ports // shared by the nodes of a network
	Binaries  map[string]string
	Print     *Printer
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

	healthy chan struct{} // closed by a network once its services are
	dirty   chan struct{}

	mu    sync.Mutex
	state State
}

// defaultListen: a provider is dialled by others and should stay where it is; a consumer only dials.
var defaultListen = map[string][]string{Provider: {"/ip4/0.0.0.0/tcp/4001"}, Consumer: {"/ip4/0.0.0.0/tcp/0"}}

// OpenNode locks the home and checks that it is one of this role. Close it.
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
	old, err := readSettings(h)
	if err == nil && old.Role != "" && old.Role != cfg.Role {
		release()
		return nil, fault.FailedPrecondition("ROLE_FIXED", "%s is the home of a %s and a node has one role: leave --role %s out, or give another --home", h.Dir, old.Role, cfg.Role)
	}
	keep, err := cfg.places(old)
	if err == nil {
		err = writeSettings(h, keep)
	}
	if err != nil {
		release()
		return nil, err
	}
	n := &Node{cfg: cfg, keep: keep, home: h, release: release, healthy: make(chan struct{}), dirty: make(chan struct{}, 1)}
	n.state = State{Name: cfg.Name, Role: cfg.Role, SupervisorPID: os.Getpid(), StartedAt: time.Now().UTC()}
	for _, p := range Processes(cfg.Role) {
		n.state.Processes = append(n.state.Processes, ProcessState{Name: p})
	}
	return n, nil
}

// places decides where the node listens.
func (cfg *NodeConfig) places(old settings) (settings, error) {
	if cfg.Ports == nil {
		cfg.Ports = &ports{}
	}
	keep := settings{Role: cfg.Role, Listen: cfg.Listen}
	var err error
	switch {
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

// Run keeps the node's processes running until ctx ends, then stops them: the broker last, because the others say
// good-bye through it. It returns when all are gone, at most five seconds later.
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
	var services, broker sync.WaitGroup
	for _, name := range Processes(n.cfg.Role) {
		p := n.process(name)
		if name == Broker {
			broker.Go(func() { p.run(brokerCtx) })
			continue
		}
		services.Go(func() { p.run(ctx) })
	}
	services.Wait()
	stopBroker()
	broker.Wait()
	close(stopWriting)
	<-written
	return n.sweep()
}

// sweep removes what killed processes leave, and what is no longer true.
func (n *Node) sweep() error {
	for _, name := range Processes(n.cfg.Role) {
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
	p := &process{name: name, path: n.cfg.Binaries[name], log: openLog(n.home, name, mirror), grace: serviceGrace, changed: n.changed}
	p.args = func() []string { return n.args(name) }
	if name == Broker {
		p.grace = brokerGrace
	}
	if needsBootstrap(n.cfg.Role, name) {
		p.gate = n.cfg.Bootstrap
	}
	return p
}

// needsBootstrap: a provider joins through discovery, a consumer, which has none, through node.
func needsBootstrap(role, process string) bool {
	return role == Provider && process == "discovery" || role == Consumer && process == "node"
}

// args is the command line of a process; the home comes first, so that whoever looks at a process table sees it.
func (n *Node) args(name string) []string {
	args := []string{"--home", n.home.Dir}
	switch name {
	case "task", "node", "discovery", "metric":
		args = append(args, "--role", n.cfg.Role)
	case Broker:
		if len(n.cfg.Listen) > 0 || !configured(n.home, Broker, "listen_addrs") {
			args = append(args, "--listen-addrs", strings.Join(n.keep.Listen, ","))
		}
		if n.cfg.Role == Provider && !configured(n.home, Broker, "routing") { // others find it, and it keeps their records; a consumer only asks
			args = append(args, "--routing", "server")
		}
		// The home's own the broker finds itself.
		if key := filepath.Join(n.cfg.Network, networkKeyFile); n.cfg.Network != "" && exists(key) && !configured(n.home, Broker, "network_key_file") {
			args = append(args, "--network-key-file", key)
		}
	case "gateway":
		if !configured(n.home, "gateway", "http") {
			args = append(args, "--http", fmt.Sprintf("127.0.0.1:%d", n.keep.GatewayPort))
		}
	}
	if name == "task" && len(n.cfg.Executors) > 0 {
		args = append(args, "--provider.executors", strings.Join(n.cfg.Executors, ","))
	}
	if needsBootstrap(n.cfg.Role, name) {
		if addrs := n.bootstrap(); len(addrs) > 0 {
			args = append(args, "--bootstrap", strings.Join(addrs, ","))
		}
	}
	return args
}

// bootstrap is what the user gave, and what the invite to the home's network held.
func (n *Node) bootstrap() (out []string) {
	if n.cfg.BootstrapAddrs != nil {
		out = append(out, n.cfg.BootstrapAddrs()...)
	}
	dir := n.cfg.Network
	if dir == "" {
		dir = n.home.Dir
	}
	return append(out, NetworkBootstrap(dir)...)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
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
