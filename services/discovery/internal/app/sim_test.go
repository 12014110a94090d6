package app_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shallot-net/shallot/services/discovery/internal/adapter/memory"
	"github.com/shallot-net/shallot/services/discovery/internal/app"
	"github.com/shallot-net/shallot/services/discovery/internal/domain"
)

// sim is a network in virtual time: what the ports promise, without brokers. A hop takes a millisecond.
type sim struct {
	t     *testing.T
	mu    sync.Mutex
	nodes map[string]*node
	mute  bool // gossip is lost
	// reserved: nodes ask only whom they know, as anonymous ones do.
	reserved bool
	apart    func(a, b string) bool
}

const hop = time.Millisecond

var errUnreachable = errors.New("unreachable")

// node is one provider: its ports, its store, and its service while it runs.
type node struct {
	onion    bool // its address is that of an onion service
	sim      *sim
	id       string
	store    *memory.Store
	svc      *app.Service
	stop     func()
	peers    map[string]bool
	watch    func(string, bool)
	lost     chan struct{} // closed when the broker is
	said     []saying
	asked    int
	askedOf  map[string]int
	deaf     bool // its discovery service does not answer
	counts   map[string]int
	selfless bool
	routing  app.Routing
	taken    map[string]chan app.DiscoverResponse // answers that go to the test
}

type saying struct {
	at time.Time
	a  domain.Announcement
}

func newSim(t *testing.T) *sim { return &sim{t: t, nodes: map[string]*node{}} }

func testSelf() app.Self {
	return app.Self{SealingKey: "age1" + strings.Repeat("q", 58), Capabilities: []domain.Capability{{Type: "sum"}}}
}

// add makes a node that does not run.
func (s *sim) add() *node {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := &node{sim: s, id: fmt.Sprintf("node%03d", len(s.nodes)), store: &memory.Store{}, askedOf: map[string]int{}, peers: map[string]bool{}, lost: make(chan struct{}), counts: map[string]int{}}
	s.nodes[n.id] = n
	return n
}

func (n *node) address() string {
	if n.onion {
		return "/onion3/" + n.id + ":4001"
	}
	return "/sim/" + n.id
}

// start runs the node's service with bootstrap addresses of others.
func (n *node) start(bootstrap ...*node) *node {
	t := n.sim.t
	t.Helper()
	cfg := app.Config{Network: n, Events: n, Store: n.store, Counter: n, Routing: n.routing, AskKnown: n.sim.reserved}
	for _, b := range bootstrap {
		cfg.Bootstrap = append(cfg.Bootstrap, b.address()+"/p2p/"+b.id)
	}
	svc, err := app.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	n.sim.mu.Lock()
	n.svc, n.deaf = svc, false
	n.sim.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := svc.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	}()
	n.stop = sync.OnceFunc(func() {
		cancel()
		<-ended
	})
	t.Cleanup(n.stop)
	if !n.selfless {
		if err := svc.UpdateSelf(ctx, testSelf()); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

// kill is kill -9 of the whole node.
func (n *node) kill() {
	n.sim.mu.Lock()
	n.deaf = true
	for id := range maps.Clone(n.peers) {
		n.sim.cutLocked(n, n.sim.nodes[id])
	}
	n.sim.mu.Unlock()
	n.sim.part(func(a, b string) bool { return a == n.id || b == n.id })
	n.stop()
	n.sim.mu.Lock()
	n.svc = nil
	n.sim.mu.Unlock()
}

func (n *node) Count(event string) {
	n.sim.mu.Lock()
	defer n.sim.mu.Unlock()
	n.counts[event]++
}

func (n *node) count(event string) int {
	n.sim.mu.Lock()
	defer n.sim.mu.Unlock()
	return n.counts[event]
}

// silence loses all gossip, or none.
func (s *sim) silence(mute bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mute = mute
}

// part keeps apart whom the function says.
func (s *sim) part(apart func(a, b string) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.apart = apart
	for _, a := range s.nodes {
		for id := range maps.Clone(a.peers) {
			if apart != nil && (apart(a.id, id) || apart(id, a.id)) {
				s.cutLocked(a, s.nodes[id])
			}
		}
	}
}

func (s *sim) cutLocked(a, b *node) {
	for _, x := range [][2]*node{{a, b}, {b, a}} {
		if x[0].peers[x[1].id] {
			delete(x[0].peers, x[1].id)
			if x[0].watch != nil {
				go x[0].watch(x[1].id, false)
			}
		}
	}
}

func (s *sim) canReachLocked(a, b *node) bool {
	return b != nil && a != b && (s.apart == nil || !s.apart(a.id, b.id) && !s.apart(b.id, a.id))
}

// travel waits one hop.
func travel(ctx context.Context) error {
	select {
	case <-time.After(hop):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// ---- app.Network

func (n *node) Self(context.Context) (app.Identity, error) {
	return app.Identity{PeerID: n.id, Addresses: []string{n.address()}}, nil
}

func (n *node) Connect(ctx context.Context, id string, addresses []string) (string, error) {
	if err := travel(ctx); err != nil {
		return "", err
	}
	if id == "" {
		_, id, _ = strings.Cut(addresses[0], "/p2p/")
	}
	s := n.sim
	s.mu.Lock()
	defer s.mu.Unlock()
	if id == n.id {
		return id, nil
	}
	to := s.nodes[id]
	if !s.canReachLocked(n, to) {
		return "", errUnreachable
	}
	for _, x := range [][2]*node{{n, to}, {to, n}} {
		if !x[0].peers[x[1].id] {
			x[0].peers[x[1].id] = true
			if x[0].watch != nil {
				go x[0].watch(x[1].id, true)
			}
		}
	}
	return id, nil
}

func (n *node) Neighbours(context.Context) ([]app.Neighbour, error) {
	n.sim.mu.Lock()
	defer n.sim.mu.Unlock()
	var out []app.Neighbour
	for id := range n.peers {
		out = append(out, app.Neighbour{PeerID: id})
	}
	return out, nil
}

func (n *node) Watch(ctx context.Context, changed func(string, bool)) error {
	n.sim.mu.Lock()
	n.watch = changed
	now, lost := slices.Collect(maps.Keys(n.peers)), n.lost
	n.sim.mu.Unlock()
	for _, id := range now {
		changed(id, true)
	}
	defer func() {
		n.sim.mu.Lock()
		n.watch = nil
		n.sim.mu.Unlock()
	}()
	select {
	case <-ctx.Done():
	case <-lost:
	}
	return errors.New("the broker is lost")
}

// ---- app.Events

func (n *node) Sign(_ context.Context, a domain.Announcement) ([]byte, error) {
	if err := a.Check(); err != nil {
		n.sim.t.Errorf("%s announces what is not valid: %v", n.id, err)
	}
	return json.Marshal(a)
}

// decoded keeps what was decoded once: one announcement is heard by many.
var decoded sync.Map

func heard(signed []byte) app.Heard {
	if h, ok := decoded.Load(string(signed)); ok {
		return h.(app.Heard)
	}
	h := app.Heard{Signed: signed}
	if err := json.Unmarshal(signed, &h.Announcement); err != nil {
		panic(err)
	}
	decoded.Store(string(signed), h)
	return h
}

func (n *node) Publish(ctx context.Context, signed []byte) error {
	s := n.sim
	s.mu.Lock()
	n.said = append(n.said, saying{time.Now(), heard(signed).Announcement})
	from := map[string]string{n.id: n.id}
	var to []*app.Service
	var via []string
	for queue := []*node{n}; len(queue) > 0 && !s.mute; queue = queue[1:] {
		for id := range queue[0].peers {
			if _, seen := from[id]; !seen {
				from[id] = queue[0].id
				queue = append(queue, s.nodes[id])
				if o := s.nodes[id]; o.svc != nil && !o.deaf {
					to, via = append(to, o.svc), append(via, queue[0].id)
				}
			}
		}
	}
	s.mu.Unlock()
	if err := travel(ctx); err != nil {
		return err
	}
	for i, svc := range to {
		svc.HandleAnnouncement(via[i], true, heard(signed))
	}
	return nil
}

// hand gives something to a connected node's service and waits a round trip.
func (n *node) hand(ctx context.Context, id string, f func(*app.Service) app.Verdict) error {
	if err := travel(ctx); err != nil {
		return err
	}
	s := n.sim
	s.mu.Lock()
	to := s.nodes[id]
	if !n.peers[id] || to.svc == nil || to.deaf {
		s.mu.Unlock()
		return errUnreachable
	}
	svc := to.svc
	s.mu.Unlock()
	if v := f(svc); v == app.Retry {
		return errors.New("busy")
	}
	return travel(ctx)
}

func (n *node) SendAnnouncement(ctx context.Context, id string, signed []byte) error {
	return n.hand(ctx, id, func(s *app.Service) app.Verdict { return s.HandleAnnouncement(n.id, false, heard(signed)) })
}

func (n *node) SendDiscover(ctx context.Context, id string, q app.Question) error {
	n.sim.mu.Lock()
	n.asked++
	n.askedOf[id]++
	n.sim.mu.Unlock()
	return n.hand(ctx, id, func(s *app.Service) app.Verdict { return s.HandleDiscover(n.id, q) })
}

// intercept hands answers for a peer to the test.
func (n *node) intercept(id string, to chan app.DiscoverResponse) {
	n.sim.mu.Lock()
	defer n.sim.mu.Unlock()
	n.taken = map[string]chan app.DiscoverResponse{id: to}
}

func (n *node) SendDiscoverResponse(ctx context.Context, id string, r app.DiscoverResponse) error {
	n.sim.mu.Lock()
	to := n.taken[id]
	n.sim.mu.Unlock()
	if to != nil {
		to <- r
		return nil
	}
	return n.hand(ctx, id, func(s *app.Service) app.Verdict {
		var all []app.Heard
		for _, signed := range r.Signed {
			all = append(all, heard(signed))
		}
		return s.HandleDiscoverResponse(n.id, r.InReplyTo, all, r.Known)
	})
}

func (n *node) Ping(ctx context.Context, id string) error {
	return n.hand(ctx, id, func(*app.Service) app.Verdict { return app.Applied })
}

// ---- what tests look at

// pass lets virtual time pass, and everything that it sets off happen.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// state is what the node thinks of another.
func (n *node) state(of *node) domain.State {
	p, err := n.svc.Peer(of.id)
	if err != nil {
		return "unknown"
	}
	return p.State
}

func (n *node) knows(others ...*node) bool {
	for _, o := range others {
		if o != n && n.state(o) != domain.Available {
			return false
		}
	}
	return true
}

// sayings are what the node announced from a time on.
func (n *node) sayings(from time.Time) []saying {
	n.sim.mu.Lock()
	defer n.sim.mu.Unlock()
	var out []saying
	for _, s := range n.said {
		if !s.at.Before(from) {
			out = append(out, s)
		}
	}
	return out
}

// network starts n nodes, of which the first is everybody's bootstrap node.
func network(t *testing.T, n int) (*sim, []*node) {
	s := newSim(t)
	return s, s.network(n)
}

func (s *sim) network(n int) []*node {
	nodes := []*node{s.add().start()}
	for range n - 1 {
		nodes = append(nodes, s.add().start(nodes[0]))
	}
	return nodes
}
