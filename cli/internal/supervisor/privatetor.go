package supervisor

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/tor"
)

// torNetwork is the private Tor network of a dev network.
type torNetwork interface {
	Client(dir, runDir string) tor.ClientConfig
	Ready(ctx context.Context, progress func(percent int, waiting string)) error
	Close()
}

// startTorNetwork makes one; tests have their own.
type startTorNetwork func(context.Context, tor.PrivateConfig) (torNetwork, error)

func startPrivate(ctx context.Context, cfg tor.PrivateConfig) (torNetwork, error) {
	p, err := tor.StartPrivate(ctx, cfg)
	if err != nil {
		return nil, err
	}
	return p, nil
}

// privateTor is its name among the nodes, in messages and in the folder.
const privateTor = "private Tor network"

// openTor finds what an anonymous network needs, and starts its private Tor network unless it is to use the public one.
func (n *network) openTor(ctx context.Context) error {
	a := n.cfg.Anonymous
	if a == nil {
		return nil
	}
	program, err := n.cfg.Finder.FindTor()
	if err != nil {
		return err
	}
	way, err := findFence(ctx, a.Unfenced, n.cfg.Print)
	if err != nil {
		return err
	}
	n.anonymity = &Anonymity{Way: way, Program: program}
	if a.Public {
		n.cfg.Print.warnOffline()
		n.cfg.Print.Printf("the public Tor network is used: these nodes can be reached by whoever knows their addresses")
		return nil
	}
	n.cfg.Print.Printf("making a private Tor network on this machine: nothing of this reaches the internet, and it hides nothing")
	logs := filepath.Join(n.dir.Dir, "logs")
	if err := os.MkdirAll(logs, 0o700); err != nil {
		return fault.FailedPrecondition("HOME_UNUSABLE", "cannot make the directory %s", logs).Because(err)
	}
	var mirror func(string)
	if n.cfg.Mirror != nil {
		mirror = func(line string) { n.cfg.Mirror("private-tor", Tor, line) }
	}
	n.torLog = openLog(n.dir, Tor, mirror)
	start := n.cfg.startTor
	if start == nil {
		start = startPrivate
	}
	if n.tor, err = start(ctx, tor.PrivateConfig{Dir: filepath.Join(n.dir.Dir, Tor), Program: program, Relays: a.Relays, Log: n.torLog}); err != nil {
		return err
	}
	n.torReady = make(chan struct{})
	n.anonymity.Test = n.tor.Client(n.dir.Dir, n.dir.Dir).Test
	return nil
}

func (n *network) closeTor() {
	if n.tor != nil {
		n.tor.Close()
	}
	if n.torLog != nil {
		_ = n.torLog.Close()
	}
}

// waitTor waits until the private Tor network can be used; the nodes' tors start then, because one that finds no network tries again only after a while.
func (n *network) waitTor(ctx context.Context, w *waiting) error {
	if n.tor == nil {
		return nil
	}
	for _, node := range n.nodes { // what they wait for is this
		w.note(node.Name())("")
	}
	note := w.note(privateTor)
	err := n.tor.Ready(ctx, func(percent int, waiting string) {
		if waiting != "" {
			waiting = fmt.Sprintf("%d %%, it waits for %s", percent, waiting)
		}
		note(waiting)
	})
	if err != nil {
		return err
	}
	for _, node := range n.nodes {
		w.note(node.Name())("not asked yet")
	}
	n.cfg.Print.Printf("the private Tor network is up (%s); the nodes' own tors join it", n.since())
	close(n.torReady)
	return nil
}
