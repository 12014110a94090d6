package supervisor

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/home"
	"github.com/shallot-net/shallot/kit/lifecycle"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
)

// remindEvery is how often a start that takes long says what it waits for.
const remindEvery = 5 * time.Second

// maxNodes bounds a dev network; each node is four to six processes.
const maxNodes = 1000

// NetworkConfig says what a dev network is.
type NetworkConfig struct {
	Dir                  string
	Providers, Consumers int
	Finder               Finder
	Print                *Printer
	Mirror               func(node, process, line string)
	// Anonymous is set for anonymous nodes.
	Anonymous *AnonymousNetwork
	// Ready is called once, when every node is ready and knows every provider.
	Ready func([]ReadyNode)

	startTor startTorNetwork // nil: a real one
}

// AnonymousNetwork says how the nodes of a dev network are anonymous.
type AnonymousNetwork struct {
	Public   bool // they use the public Tor network in place of a private one on this machine
	Relays   int  // of the private one, beside its authorities; 0: three
	Unfenced bool
}

func (cfg *NetworkConfig) mode() string {
	if cfg.Anonymous != nil {
		return Anonymous
	}
	return Open
}

// RunNetwork runs a dev network until ctx ends, then stops all of it. It returns an error at once when it cannot
// start: a program is missing, another dev runs on the directory.
func RunNetwork(ctx context.Context, cfg NetworkConfig) error {
	if cfg.Providers < 1 || cfg.Consumers < 0 || cfg.Providers+cfg.Consumers > maxNodes {
		return fault.InvalidArgument("NODES_INVALID", "%d providers and %d consumers: there must be at least 1 provider, and %d nodes at most", cfg.Providers, cfg.Consumers, maxNodes)
	}
	binaries, err := cfg.Finder.FindAll(Processes(Provider, cfg.mode())) // a consumer's are among them
	if err != nil {
		return err
	}
	dir, err := home.Open(cfg.Dir)
	if err != nil {
		return err
	}
	release, err := dir.Lock("dev")
	if err != nil {
		return err
	}
	defer release()
	net := &network{cfg: cfg, dir: dir, started: time.Now(), joined: make(chan struct{}), starting: make(chan struct{}, max(4, 2*runtime.NumCPU()))}
	defer net.close()
	if err := net.checkModes(); err != nil {
		return err
	}
	defer net.closeTor()
	if err := net.openTor(ctx); err != nil {
		return ignoreEnd(ctx, err)
	}
	if err := net.open(binaries); err != nil {
		return err
	}
	return net.run(ctx)
}

type network struct {
	cfg     NetworkConfig
	dir     home.Home
	nodes   []*Node
	started time.Time

	// starting bounds how many nodes start at a time: a hundred at once would only keep each other from becoming ready.
	starting  chan struct{}
	joined    chan struct{} // closed when bootstrap is set
	bootstrap []string

	anonymity *Anonymity // nil in open mode
	tor       torNetwork // nil without a private Tor network
	torLog    *processLog
	torReady  chan struct{} // nil too, or closed when the network can be used
}

// checkModes refuses a directory of the other mode before anything starts.
func (n *network) checkModes() error {
	if err := checkNetworkMode(n.dir, n.cfg.mode()); err != nil {
		return err
	}
	old, err := ReadNetwork(n.dir.Dir)
	if err != nil {
		return nil //nolint:nilerr // there was none, or each node is asked when it is opened
	}
	for _, place := range old.Nodes {
		h, err := home.Find(place.Home)
		if err != nil {
			continue // it has been removed
		}
		if err := CheckMode(h, n.cfg.mode()); err != nil {
			return err
		}
	}
	return nil
}

func (n *network) open(binaries map[string]string) error {
	shared := &ports{}
	add := func(role string, count int) error {
		for i := range count {
			name := fmt.Sprintf("%s-%d", role, i+1)
			if err := n.add(name, role, binaries, shared); err != nil {
				return err
			}
		}
		return nil
	}
	if err := add(Provider, n.cfg.Providers); err != nil {
		return err
	}
	return add(Consumer, n.cfg.Consumers)
}

func (n *network) add(name, role string, binaries map[string]string, shared *ports) error {
	cfg := NodeConfig{Name: name, Role: role, Home: filepath.Join(n.dir.Dir, name), Network: n.dir.Dir, Siblings: n.file(), Loopback: true, Ports: shared, Binaries: binaries, Print: n.cfg.Print, Mirror: n.cfg.Mirror,
		Anonymity: n.anonymity, TorReady: n.torReady}
	if len(n.nodes) > 0 {
		cfg.Bootstrap = n.joined
		cfg.BootstrapAddrs = func() []string { return n.bootstrap }
	}
	node, err := OpenNode(cfg)
	if err != nil {
		return err
	}
	n.nodes = append(n.nodes, node)
	return nil
}

func (n *network) close() {
	for _, node := range n.nodes {
		node.Close()
	}
	removeShort(n.dir)
}

func (n *network) run(ctx context.Context) error {
	if err := n.write(os.Getpid()); err != nil {
		return err
	}
	n.cfg.Print.Printf("starting %s and %s in %s (logs: NODE/logs)", plural(n.cfg.Providers, Provider), plural(n.cfg.Consumers, Consumer), n.dir.Dir)
	fns := []func(context.Context) error{n.waitReady}
	for _, node := range n.nodes {
		fns = append(fns, func(ctx context.Context) error { return n.runNode(ctx, node) })
	}
	err := lifecycle.Run(ctx, fns...)
	n.cfg.Print.Printf("stopped")
	if werr := n.write(0); err == nil {
		err = werr
	}
	return err
}

// startTime is how long a node may take of the others' time to start; it may go on after that. A busy machine takes long for each, and
// more of them at once would only make it take longer for all.
const startTime = time.Minute

// runNode starts a node when it is its turn.
func (n *network) runNode(ctx context.Context, node *Node) error {
	if node == n.nodes[0] { // the others join through it
		return node.Run(ctx)
	}
	select {
	case n.starting <- struct{}{}:
	case <-ctx.Done():
		return nil
	}
	turn := sync.OnceFunc(func() { <-n.starting })
	timer := time.AfterFunc(startTime, turn)
	defer timer.Stop()
	defer turn()
	go func() {
		select {
		case <-node.healthy:
			turn()
		case <-ctx.Done():
		}
	}()
	return node.Run(ctx)
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func (n *network) write(pid int) error {
	file := Network{PID: pid, Mode: n.cfg.mode(), StartedAt: n.started.UTC(), Nodes: []NodePlace{}}
	for _, node := range n.nodes {
		file.Nodes = append(file.Nodes, n.place(node))
	}
	return writeRunJSON(n.file(), file)
}

// file is where ReadNetwork reads.
func (n *network) file() string { return networkFile(n.dir.Dir) }

func (n *network) place(node *Node) NodePlace {
	return NodePlace{Name: node.Name(), Role: node.Role(), Home: node.Home().Dir}
}

// waitReady ends when every node is ready and knows every provider. The first provider comes first: its address is
// what the others join through.
func (n *network) waitReady(ctx context.Context) error {
	w := newWaiting(n.nodes)
	remind, stop := context.WithCancel(ctx)
	defer stop()
	go w.remind(remind, remindEvery, n.cfg.Print)

	probes := make([]*probe, len(n.nodes))
	for i, node := range n.nodes {
		p, err := newProbe(node.Home())
		if err != nil {
			return err
		}
		defer p.close()
		probes[i] = p
	}
	if err := n.waitTor(ctx, w); err != nil {
		return ignoreEnd(ctx, err)
	}
	if err := n.findBootstrap(ctx, probes[0], w); err != nil {
		return ignoreEnd(ctx, err)
	}
	found := make([]*nodev1.Node, len(n.nodes))
	if err := n.each(ctx, func(ctx context.Context, i int) error {
		var err error
		found[i], err = n.waitHealthy(ctx, n.nodes[i], probes[i], w)
		return err
	}); err != nil {
		return ignoreEnd(ctx, err)
	}
	n.cfg.Print.Printf("all services are healthy (%s); waiting until every node knows every provider", n.since())
	for _, node := range n.nodes {
		w.note(node.Name())("not asked yet")
	}
	if err := n.each(ctx, func(ctx context.Context, i int) error {
		return n.waitKnows(ctx, i, found, probes[i], w)
	}); err != nil {
		return ignoreEnd(ctx, err)
	}
	stop()
	n.announce(found)
	return nil
}

// ignoreEnd: being stopped before being ready is no failure.
func ignoreEnd(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func (n *network) since() string { return time.Since(n.started).Round(10 * time.Millisecond).String() }

// each calls fn for every node side by side; the first error ends the others.
func (n *network) each(ctx context.Context, fn func(ctx context.Context, i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for i := range n.nodes {
		wg.Go(func() {
			if err := fn(ctx, i); err != nil {
				cancel(err)
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// interval is how often each node is asked: a large network must not spend its start on answering.
func (n *network) interval() time.Duration {
	return probeInterval * time.Duration(1+len(n.nodes)/8)
}

func (n *network) findBootstrap(ctx context.Context, p *probe, w *waiting) error {
	first := n.nodes[0]
	return poll(ctx, probeInterval, w.note(first.Name()), func(ctx context.Context) string {
		node, err := p.node(ctx)
		if err != nil {
			return first.waits(nil, err.Error())
		}
		if n.bootstrap = joinable(node.GetAddresses()); len(n.bootstrap) == 0 {
			return first.waits(node, "it has no address yet")
		}
		close(n.joined)
		return ""
	})
}

// joinable picks what others of this machine can dial: loopback addresses, or all where there is none, as with onion addresses.
func joinable(addresses []string) []string {
	var full, loopback []string
	for _, a := range addresses {
		if !strings.Contains(a, "/p2p/") {
			continue
		}
		full = append(full, a)
		if strings.HasPrefix(a, "/ip4/127.") || strings.HasPrefix(a, "/ip6/::1/") {
			loopback = append(loopback, a)
		}
	}
	if len(loopback) > 0 {
		return loopback
	}
	return full
}

func (n *network) waitHealthy(ctx context.Context, node *Node, p *probe, w *waiting) (found *nodev1.Node, err error) {
	err = poll(ctx, n.interval(), w.note(node.Name()), func(ctx context.Context) string {
		got, err := p.node(ctx)
		if err != nil {
			return node.waits(nil, err.Error())
		}
		found = got
		return node.waits(got, missing(got))
	})
	if err == nil {
		close(node.healthy)
		n.cfg.Print.Printf("%s is up (%s)", node.Name(), n.since())
	}
	return found, err
}

// waitKnows waits until a node lists every other provider as available.
func (n *network) waitKnows(ctx context.Context, i int, nodes []*nodev1.Node, p *probe, w *waiting) error {
	var want []string
	for j, other := range nodes {
		if j != i && n.nodes[j].Role() == Provider {
			want = append(want, other.GetPeerId())
		}
	}
	return poll(ctx, n.interval(), w.note(n.nodes[i].Name()), func(ctx context.Context) string {
		known, err := p.available(ctx)
		if err != nil {
			return err.Error()
		}
		left := len(slices.DeleteFunc(slices.Clone(want), func(id string) bool { return known[id] }))
		if left == 0 {
			return ""
		}
		return fmt.Sprintf("knows %d of %s", len(want)-left, plural(len(want), "other provider"))
	})
}

func (n *network) announce(found []*nodev1.Node) {
	ready := make([]ReadyNode, len(n.nodes))
	for i, node := range n.nodes {
		ready[i] = readyNode(n.place(node), found[i], node.Home())
	}
	n.cfg.Ready(ready)
}
