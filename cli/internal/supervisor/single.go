package supervisor

import (
	"context"
	"time"

	"github.com/shallot-net/shallot/kit/lifecycle"
)

// SingleConfig says what this machine's own node is.
type SingleConfig struct {
	Home      string
	Role      string
	Listen    []string
	Bootstrap []string
	Executors []string // a provider's own, TYPE=ADDRESS
	Finder    Finder
	Print     *Printer
	Mirror    func(node, process, line string)
	// Ready is called once, when every service is healthy.
	Ready func(ReadyNode)
}

// RunSingle runs one node until ctx ends.
func RunSingle(ctx context.Context, cfg SingleConfig) error {
	binaries, err := cfg.Finder.FindAll(Processes(cfg.Role))
	if err != nil {
		return err
	}
	node, err := OpenNode(NodeConfig{Name: cfg.Role, Role: cfg.Role, Home: cfg.Home, Listen: cfg.Listen, Executors: cfg.Executors, Binaries: binaries, Print: cfg.Print,
		Mirror: cfg.Mirror, BootstrapAddrs: func() []string { return cfg.Bootstrap }})
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
	var id string
	err = poll(ctx, probeInterval, w.note(node.Name()), func(ctx context.Context) string {
		got, err := p.node(ctx)
		if err != nil {
			return err.Error()
		}
		id = got.GetPeerId()
		return missing(got)
	})
	if err != nil {
		return ignoreEnd(ctx, err)
	}
	stop()
	cfg.Print.Printf("all services are healthy (%s)", time.Since(started).Round(10*time.Millisecond))
	g, _ := ReadGateway(node.Home())
	cfg.Ready(ReadyNode{NodePlace: NodePlace{Name: node.Name(), Role: node.Role(), Home: node.Home().Dir}, PeerID: id, GatewayURL: g.URL})
	return nil
}
