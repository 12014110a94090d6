package netsim

import (
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/shallot-net/shallot/kit/brokerclient"
	"github.com/shallot-net/shallot/services/discovery/discoverytest"
	"github.com/shallot-net/shallot/services/metric/metrictest"
	"github.com/shallot-net/shallot/services/node/nodetest"
)

const (
	hop       = 40 * time.Millisecond // one way, between any two
	connLow   = 160                   // as the broker's connection manager has them
	connHigh  = 256
	trimEvery = 10 * time.Second
)

var errUnreachable = errors.New("unreachable")

// World is the network. Its methods, and all that it starts, belong into one bubble of testing/synctest.
type World struct {
	ctx  context.Context
	stop context.CancelFunc
	runs sync.WaitGroup

	mu        sync.Mutex
	nodes     map[string]*node
	providers []*node // those that are there, in no order
	bootstrap []*node
	numbers   int
	sample    time.Duration  // between two measurements of a host
	dirty     map[*node]bool // whose mesh the next heartbeat has to look at
	heard     parsed
	failed    []error
}

// node is one participant.
type node struct {
	world              *World
	id                 string
	key                ed25519.PrivateKey
	number             int
	place              int // in World.providers
	since              time.Time
	muted, metricMuted time.Duration // for how long after since nobody hears it
	gone               bool
	leaving            bool
	conns              map[*node]bool
	mesh               []*node
	changed            func(peer string, connected bool)
	lost               chan struct{} // closed when it is gone
	ctx                context.Context
	stop               context.CancelFunc
	bytes              traffic
	reach              *reach // of a newcomer that is followed
	queue              queue

	discovery *discoverytest.Service // of a provider
	metric    *metrictest.Service
	consumer  *nodetest.Consumer
}

// New makes an empty world that lasts until Close.
func New() *World {
	ctx, cancel := context.WithCancel(context.Background())
	w := &World{ctx: ctx, stop: cancel, nodes: map[string]*node{}, dirty: map[*node]bool{}, sample: sampled}
	w.runs.Go(w.heartbeats)
	w.runs.Go(w.trimming)
	return w
}

// Close ends everybody and waits for them. It returns what should not have happened.
func (w *World) Close() error {
	w.mu.Lock()
	for _, n := range w.nodes {
		n.gone = true // nobody says goodbye to ten thousand others
	}
	w.mu.Unlock()
	w.stop()
	w.runs.Wait()
	return errors.Join(w.failed...)
}

func (w *World) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.failed) < 8 {
		w.failed = append(w.failed, err)
	}
}

// newNode makes a participant whose identity follows from its number.
func (w *World) newNode() *node {
	w.mu.Lock()
	defer w.mu.Unlock()
	seed := make([]byte, ed25519.SeedSize)
	binary.BigEndian.PutUint64(seed, uint64(w.numbers))
	key := ed25519.NewKeyFromSeed(seed)
	n := &node{world: w, id: brokerclient.PeerID(key.Public().(ed25519.PublicKey)), key: key, number: w.numbers, since: time.Now(),
		conns: map[*node]bool{}, lost: make(chan struct{})}
	w.numbers++
	w.nodes[n.id] = n
	return n
}

func (n *node) addresses() []string { return []string{"/ip4/127.0.0.1/tcp/4001", n.address()} }

func (n *node) address() string {
	return fmt.Sprintf("/ip4/10.%d.%d.%d/tcp/4001", n.number>>16, n.number>>8&255, n.number&255)
}

// entrances are k addresses through which somebody can join.
func (w *World) entrances(k int) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []string
	for _, i := range rand.Perm(len(w.bootstrap))[:min(k, len(w.bootstrap))] {
		b := w.bootstrap[i]
		out = append(out, b.address()+"/p2p/"+b.id)
	}
	return out
}

// pause waits in virtual time; it is false when ctx ends first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func travel(ctx context.Context) error {
	if !pause(ctx, hop) {
		return ctx.Err()
	}
	return nil
}

// connect dials; with id empty the first address ends in it.
func (n *node) connect(ctx context.Context, id string, addresses []string) (string, error) {
	if err := travel(ctx); err != nil {
		return "", err
	}
	if id == "" {
		_, id, _ = strings.Cut(addresses[0], "/p2p/")
	}
	w := n.world
	w.mu.Lock()
	to := w.nodes[id]
	if to == nil || to.gone || n.gone {
		w.mu.Unlock()
		return "", errUnreachable
	}
	if to == n || n.conns[to] {
		w.mu.Unlock()
		return id, nil
	}
	n.conns[to], to.conns[n] = true, true
	n.bytes.pings += dialSize
	to.bytes.pings += dialSize
	w.dirty[n], w.dirty[to] = true, true
	w.mu.Unlock()
	n.tell(to, true)
	to.tell(n, true)
	return id, travel(ctx)
}

// tell says to a node's services that a connection came or went.
func (n *node) tell(peer *node, connected bool) {
	n.world.mu.Lock()
	changed := n.changed
	n.world.mu.Unlock()
	if changed != nil {
		changed(peer.id, connected)
	}
}

// cut takes connections apart and tells both sides.
func (w *World) cut(pairs [][2]*node) {
	w.mu.Lock()
	for _, p := range pairs {
		a, b := p[0], p[1]
		delete(a.conns, b)
		delete(b.conns, a)
		a.prune(b)
	}
	w.mu.Unlock()
	for _, p := range pairs {
		p[0].tell(p[1], false)
		p[1].tell(p[0], false)
	}
}

// trimming is the connection manager.
func (w *World) trimming() {
	for pause(w.ctx, trimEvery) {
		var cut [][2]*node
		w.mu.Lock()
		for _, n := range w.nodes {
			spare := len(n.conns) - connLow
			if len(n.conns) <= connHigh {
				continue
			}
			for other := range n.conns {
				if spare--; spare < 0 {
					break
				}
				cut = append(cut, [2]*node{n, other})
			}
		}
		w.mu.Unlock()
		w.cut(cut)
	}
}

// hand gives something to a connected node's service and waits until it has acknowledged it.
func (n *node) hand(ctx context.Context, id string, size int, take func(to *node) error) error {
	if err := travel(ctx); err != nil {
		return err
	}
	w := n.world
	w.mu.Lock()
	to := w.nodes[id]
	if to == nil || to.gone || n.gone || !n.conns[to] {
		w.mu.Unlock()
		return errUnreachable
	}
	n.bytes.direct(size+eventFrame, ackFrame)
	to.bytes.direct(ackFrame, size+eventFrame)
	w.mu.Unlock()
	if err := take(to); err != nil {
		return err
	}
	return travel(ctx)
}

// leave ends a provider: politely, or as kill -9 does.
func (w *World) leave(n *node, politely bool) {
	if politely {
		n.stop()
		<-n.lost
	}
	w.mu.Lock()
	n.gone = true
	last := w.providers[len(w.providers)-1]
	w.providers[n.place], last.place = last, n.place
	w.providers = w.providers[:len(w.providers)-1]
	var cut [][2]*node
	for other := range n.conns {
		cut = append(cut, [2]*node{n, other})
	}
	w.mu.Unlock()
	w.cut(cut)
	n.stop()
	w.mu.Lock()
	delete(w.nodes, n.id)
	delete(w.dirty, n)
	w.mu.Unlock()
}

// Churn has providers leave and others join, evenly over d, so that all would be others after lifetime. Half of those that leave
// say so. It returns how many did.
func (w *World) Churn(lifetime, d time.Duration) (int, error) {
	w.mu.Lock()
	every := lifetime / time.Duration(len(w.providers))
	w.mu.Unlock()
	n := 0
	for end := time.Now().Add(d); time.Now().Before(end); n++ {
		if !pause(w.ctx, time.Duration(rand.ExpFloat64()*float64(every))) {
			return n, w.ctx.Err()
		}
		if _, err := w.join(nil); err != nil {
			return n, err
		}
		if x := w.any(); x != nil {
			w.runs.Go(func() { w.leave(x, n%2 == 0) })
		}
	}
	return n, nil
}

// any draws a provider that is no bootstrap node, nil when none was found.
func (w *World) any() *node {
	w.mu.Lock()
	defer w.mu.Unlock()
	for range 100 {
		n := w.providers[rand.IntN(len(w.providers))]
		if !slices.Contains(w.bootstrap, n) && !n.leaving {
			n.leaving = true
			return n
		}
	}
	return nil
}
