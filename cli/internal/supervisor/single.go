package supervisor

import (
	"context"
	"time"

	"github.com/shallot-net/shallot/kit/home"
	"github.com/shallot-net/shallot/kit/lifecycle"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
)

// SingleConfig says what this machine's own node is.
type SingleConfig struct {
	Home      string
	Role      string
	Listen    []string
	Bootstrap []string
	Executors []string // a provider's own, TYPE=ADDRESS
	Anonymous *AnonymousSingle
	Finder    Finder
	Print     *Printer
	Mirror    func(node, process, line string)
	// Ready is called once, when every service is healthy.
	Ready func(ReadyNode)
}

// AnonymousSingle says how this machine's node is anonymous.
type AnonymousSingle struct {
	Tor      TorSettings // what is empty is as before
	Unfenced bool
}

// anonymity finds what an anonymous node needs: nil in open mode.
func (cfg SingleConfig) anonymity(ctx context.Context) (*Anonymity, error) {
	if cfg.Anonymous == nil {
		return nil, nil
	}
	var old settings
	if h, err := home.Find(cfg.Home); err == nil {
		old, _ = readSettings(h) // there are none, or CheckMode has complained
	}
	a := &Anonymity{Tor: cfg.Anonymous.Tor.given(old.Tor)}
	if err := a.Tor.Check(); err != nil {
		return nil, err
	}
	var err error
	if a.Way, err = findFence(ctx, cfg.Anonymous.Unfenced, cfg.Print); err != nil {
		return nil, err
	}
	if !a.Tor.own() {
		cfg.Print.Printf("tor: the one that runs at %s", a.Tor.Control)
		return a, nil
	}
	if a.Program, err = cfg.Finder.FindTor(); err != nil {
		return nil, err
	}
	cfg.Print.warnOffline()
	through := ""
	if len(a.Tor.Bridges) > 0 {
		through = ", through " + plural(len(a.Tor.Bridges), "bridge")
	}
	cfg.Print.Printf("tor: %s, version %s%s", a.Program.Path, a.Program.Version, through)
	return a, nil
}

// RunSingle runs one node until ctx ends.
func RunSingle(ctx context.Context, cfg SingleConfig) error {
	mode := Open
	if cfg.Anonymous != nil {
		mode = Anonymous
	}
	if h, err := home.Find(cfg.Home); err == nil {
		if err := CheckMode(h, mode); err != nil {
			return err
		}
	}
	binaries, err := cfg.Finder.FindAll(Processes(cfg.Role, mode))
	if err != nil {
		return err
	}
	anonymity, err := cfg.anonymity(ctx)
	if err != nil {
		return ignoreEnd(ctx, err)
	}
	node, err := OpenNode(NodeConfig{Name: cfg.Role, Role: cfg.Role, Home: cfg.Home, Listen: cfg.Listen, Executors: cfg.Executors, Binaries: binaries, Print: cfg.Print,
		Anonymity: anonymity, Progress: true, Mirror: cfg.Mirror, BootstrapAddrs: func() []string { return cfg.Bootstrap }})
	if err != nil {
		return err
	}
	defer node.Close()
	cfg.Print.Printf("starting a %s in %s (logs: %s/logs)", cfg.Role, node.Home().Dir, node.Home().Dir)
	err = lifecycle.Run(ctx, node.Run, func(ctx context.Context) error { return waitSingle(ctx, cfg, node) })
	cfg.Print.Printf("stopped")
	return err
}

func waitSingle(ctx context.Context, cfg SingleConfig, node *Node) error {
	started := time.Now()
	w := newWaiting([]*Node{node})
	remind, stop := context.WithCancel(ctx)
	defer stop()
	go w.remind(remind, remindEvery, cfg.Print)
	p, err := newProbe(node.Home())
	if err != nil {
		return err
	}
	defer p.close()
	var found *nodev1.Node
	err = poll(ctx, probeInterval, w.note(node.Name()), func(ctx context.Context) string {
		got, err := p.node(ctx)
		if err != nil {
			return node.waits(nil, err.Error())
		}
		found = got
		return node.waits(got, missing(got))
	})
	if err != nil {
		return ignoreEnd(ctx, err)
	}
	stop()
	cfg.Print.Printf("all services are healthy (%s)", time.Since(started).Round(10*time.Millisecond))
	cfg.Ready(readyNode(NodePlace{Name: node.Name(), Role: node.Role(), Home: node.Home().Dir}, found, node.Home()))
	return nil
}
