package tor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sync"
	"time"

	"github.com/shallot-net/shallot/kit/fault"
)

// Bounds of a private network. An onion service needs relays enough for two paths that differ; below six tor runs out of them.
const (
	minNodes       = 6
	maxNodes       = 32
	maxAuthorities = 9 // as many as the public network has
	authorities    = 3 // where nobody says: one may be down
)

// MaxPrivateRelays is how many relays there can be beside the usual authorities.
const MaxPrivateRelays = maxNodes - authorities

// minVoting is the shortest interval that tor takes.
const minVoting = 10 * time.Second

// stopGrace is how long a tor may take to end by itself; it takes some hundredths of a second.
const stopGrace = 3 * time.Second

// PrivateConfig says what private network is to be made.
type PrivateConfig struct {
	Dir         string  // where its keys and state are, for this network alone; used again where it exists
	Program     Program // from Find
	Authorities int     // 0: three, so that one may be down
	Relays      int     // beside the authorities, which relay too; 0: three
	// VotingInterval is how often the authorities agree anew: whole seconds that divide half an hour evenly, 10 s at least; 0: 10 s. A first vote often
	// misses relays that have just begun, and the network is whole after the next then. On the other side six idle tors take 7 % of a processor at 10 s, 3 % at 30 s and
	// 2 % at 60 s, and an onion service changes its descriptor every 24 votes.
	VotingInterval time.Duration
	Log            io.Writer // gets every line of every tor, with the tor's name before it; nil: nobody. Writes come one at a time
}

// Private is a Tor network on this machine's loopback. It hides nothing. A tor of it that dies is started again.
//
// Measured on two cores that others kept busy (load 5 to 9): ready after 19 to 32 s in a new Dir, of which the keys take 8 to 11, and after 5 to 8 s in one that
// was used before; at a load of 30 it is a minute and 9 to 19 s. A client that starts then has joined in 2 to 4 s (once 13); its onion service is at the directories 1.1 to 2.1 s
// after ADD_ONION and reached 0.3 to 1 s later. A tor takes 42 to 80 MB.
type Private struct {
	cfg   PrivateConfig
	nodes []*node
	stop  context.CancelFunc
	wg    sync.WaitGroup

	logMu sync.Mutex

	mu      sync.Mutex
	changed chan struct{} // closed and made anew at each change of what follows
	percent map[string]Bootstrap
	down    map[string]error
}

// StartPrivate makes the network's keys where they are missing, and starts it. It blocks for the making of keys (some seconds of one processor for an
// authority) and until all of its tors listen; nothing is known of a consensus then: see Ready. When ctx ends before that, nothing is left running;
// afterwards ctx means nothing and Close ends the network. Two networks must not use one Dir at a time.
//
// Faults: TOR_NOT_FOUND (tor-gencert), TOR_UNUSABLE (a tor that cannot be an authority), TOR_CONFIG_INVALID, TOR_START_FAILED.
func StartPrivate(ctx context.Context, cfg PrivateConfig) (*Private, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	gencert, err := findGencert(cfg.Program)
	if err != nil {
		return nil, err
	}
	if err := privateDir(cfg.Dir); err != nil {
		return nil, err
	}
	p := &Private{cfg: cfg, changed: make(chan struct{}), percent: map[string]Bootstrap{}, down: map[string]error{}}
	for i := range cfg.Authorities + cfg.Relays {
		name := fmt.Sprintf("authority%d", i)
		if i >= cfg.Authorities {
			name = fmt.Sprintf("relay%d", i-cfg.Authorities)
		}
		p.nodes = append(p.nodes, &node{name: name, dir: filepath.Join(cfg.Dir, name), authority: i < cfg.Authorities})
	}
	if err := p.makeKeys(ctx, gencert); err != nil {
		return nil, err
	}
	if err := p.start(ctx); err != nil {
		return nil, err
	}
	return p, nil
}

func (c *PrivateConfig) complete() error {
	if c.Authorities == 0 {
		c.Authorities = authorities
	}
	if c.Relays == 0 {
		c.Relays = 3
	}
	if c.Authorities < 1 || c.Authorities > maxAuthorities || c.Relays < 0 || c.Authorities+c.Relays < minNodes || c.Authorities+c.Relays > maxNodes {
		return fault.InvalidArgument(ReasonConfig, "a private network of %d authorities and %d relays: it takes 1 to %d authorities, and %d to %d of both together",
			c.Authorities, c.Relays, maxAuthorities, minNodes, maxNodes)
	}
	if c.VotingInterval == 0 {
		c.VotingInterval = minVoting
	}
	if v := c.VotingInterval; v < minVoting || v%time.Second != 0 || 30*time.Minute%v != 0 {
		return fault.InvalidArgument(ReasonConfig, "authorities that vote every %v: it takes whole seconds, %v at least, that divide half an hour evenly", v, minVoting)
	}
	if !filepath.IsAbs(c.Dir) {
		return fault.InvalidArgument(ReasonConfig, "the directory of the private network is %q: give a path that begins with /", clip(c.Dir, 200))
	}
	if err := checkValue("the directory of the private network", c.Dir); err != nil {
		return err
	}
	for _, m := range []string{"dirauth", "relay"} {
		if !c.Program.has(m) {
			return fault.FailedPrecondition(ReasonUnusable, "%s was built without the module %s, which a private network needs: install Debian's tor", c.Program.Path, m)
		}
	}
	return nil
}

// start runs all tors, on other ports where others took theirs in the meantime.
func (p *Private) start(ctx context.Context) error {
	var last error
	for range 5 {
		if err := p.pickPorts(); err != nil {
			return err
		}
		if err := p.writeTorrcs(); err != nil {
			return err
		}
		run, stop := context.WithCancel(context.Background())
		p.stop = stop
		last = p.launch(ctx, run)
		if last == nil {
			return nil
		}
		p.Close()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if !errors.Is(last, errPortTaken) {
			return last
		}
	}
	return last
}

// launch starts the authorities and, when they listen, the relays: a relay whose first descriptor finds no authority tries again only after a while.
func (p *Private) launch(ctx, run context.Context) error {
	for _, authority := range []bool{true, false} {
		var started []*life
		for _, n := range p.nodes {
			if n.authority != authority {
				continue
			}
			l, err := p.run(n)
			if err != nil {
				return err
			}
			started = append(started, l)
			p.wg.Go(func() { p.keep(run, n, l) })
		}
		for _, l := range started {
			if err := l.listening(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// Client is the configuration of a tor that uses this network, with Dir and RunDir as ClientConfig has them.
func (p *Private) Client(dir, runDir string) ClientConfig {
	return ClientConfig{Dir: dir, RunDir: runDir, Test: &TestNetwork{Authorities: p.authorities()}}
}

// Close ends all tors of the network and returns when nothing of them is left. It may be called more than once.
func (p *Private) Close() {
	p.stop()
	p.wg.Wait()
}
