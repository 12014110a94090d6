package app

import (
	"cmp"
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
	"github.com/shallot-net/shallot/services/node/internal/domain"
	"github.com/shallot-net/shallot/services/node/internal/fake"
)

// ether is a network of providers that answer questions.
type ether struct {
	mu        sync.Mutex
	consumer  *Consumer
	providers map[string]*station // by peer id
	dials     map[string]int      // by address
	vouched   map[string]int      // of these, by peer, those that more than one peer stands for
	questions map[eventv1.EventType]int
	connected map[string]bool
	known     []KnownPeer    // what the broker remembers
	looked    map[string]int // in the routing table, by name
}

type station struct {
	key     fake.Key
	up      bool
	named   string // its name in the routing table
	takes   string // the type of task that it takes; "": sum
	deaf    bool   // connected, but nobody takes questions
	mum     bool   // does not say how busy it is
	running uint32
	version uint64
	knows   []*station
}

func newEther() *ether {
	return &ether{providers: map[string]*station{}, dials: map[string]int{}, questions: map[eventv1.EventType]int{}, connected: map[string]bool{}, looked: map[string]int{}}
}

func (e *ether) add() *station {
	s := &station{key: fake.NewKey(), up: true, version: 1}
	e.providers[s.key.ID] = s
	return s
}

func (s *station) address() string { return "/memory/1/p2p/" + s.key.ID }

func (s *station) announcement() *eventv1.Event {
	return fake.Announce(s.key.ID, s.version, []string{"/memory/1"}, 30*time.Second, s.key.Sign, cmp.Or(s.takes, "sum"))
}

func (e *ether) ConnectVouched(ctx context.Context, peer string, addresses []string) (string, error) {
	e.mu.Lock()
	if e.vouched == nil {
		e.vouched = map[string]int{}
	}
	e.vouched[peer]++
	e.mu.Unlock()
	return e.Connect(ctx, peer, addresses)
}

func (e *ether) Connect(ctx context.Context, peer string, addresses []string) (string, error) {
	sleep(ctx, time.Millisecond)
	e.mu.Lock()
	defer e.mu.Unlock()
	if peer == "" {
		peer = domain.AddressPeer(addresses[0])
	}
	e.dials[peer]++
	s := e.providers[peer]
	if s == nil || !s.up {
		return "", errUnreachable
	}
	if !e.connected[peer] {
		e.connected[peer] = true
		go e.consumer.Connected(peer, true)
	}
	return peer, nil
}

func (e *ether) Known(context.Context) ([]KnownPeer, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.known, nil
}

func (e *ether) Find(ctx context.Context, name string, _ int, found func(KnownPeer)) error {
	sleep(ctx, time.Millisecond)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.looked[name]++
	for id, s := range e.providers {
		if s.named == name {
			found(KnownPeer{PeerID: id, Addresses: []string{"/memory/1"}})
		}
	}
	return nil
}

func (e *ether) cut(s *station) {
	e.mu.Lock()
	s.up = false
	delete(e.connected, s.key.ID)
	e.mu.Unlock()
	e.consumer.Connected(s.key.ID, false)
}

func (e *ether) SendEvent(ctx context.Context, peer string, typ eventv1.EventType, id string, _ proto.Message, _ time.Duration) error {
	sleep(ctx, time.Millisecond)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.questions[typ]++
	s := e.providers[peer]
	if s == nil || !s.up || s.deaf {
		return errUnreachable
	}
	s.version++
	if typ == eventv1.EventType_EVENT_TYPE_METRIC_QUERY {
		if s.mum {
			return nil
		}
		b, _ := proto.Marshal(&eventv1.MetricAvailable{InReplyTo: id, Metric: &eventv1.Metric{PeerId: peer, Version: s.version, Interval: durationpb.New(10 * time.Second), Queue: &eventv1.Queue{Slots: 2, Running: s.running}}})
		go e.consumer.MetricAvailable(peer, s.key.Sign(&eventv1.Event{Type: eventv1.EventType_EVENT_TYPE_METRIC_AVAILABLE, Payload: b}))
		return nil
	}
	r := &eventv1.DiscoverResponse{InReplyTo: id, Announcements: []*eventv1.Event{s.announcement()}, Known: uint32(len(s.knows) + 1)}
	for _, o := range s.knows {
		r.Announcements = append(r.Announcements, o.announcement())
	}
	b, _ := proto.Marshal(r)
	go e.consumer.DiscoverResponse(peer, &eventv1.Event{Type: eventv1.EventType_EVENT_TYPE_DISCOVER_RESPONSE, Payload: b})
	return nil
}

// joined runs a consumer in virtual time that joins through the given stations.
func joined(t *testing.T, e *ether, through []*station, prepare func(c *Consumer), f func(t *testing.T, c *Consumer)) {
	c := NewConsumer(ConsumerConfig{Bootstrap: func() []string {
		var out []string
		for _, s := range through {
			out = append(out, s.address())
		}
		return out
	}}, e, discard)
	e.consumer = c
	if prepare != nil {
		prepare(c)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	f(t, c)
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	synctest.Wait()
}

func (c *Consumer) availableNow() int { n, _, _ := c.Figures(); return n }

// After a restart, with every bootstrap node gone, those that the broker remembers are the way in; once there are connections
// enough, the rest of them is left alone.
func TestConsumerRejoinsThroughWhomItReachedBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEther()
		gone, old := e.add(), e.add()
		gone.up = false
		for range 4 {
			old.knows = append(old.knows, e.add())
		}
		stale := e.add()
		stale.up = false
		e.known = []KnownPeer{{stale.key.ID, []string{"/memory/1"}}, {old.key.ID, []string{"/memory/1"}}}
		joined(t, e, []*station{gone}, nil, func(t *testing.T, c *Consumer) {
			after(2 * time.Second)
			if got := c.availableNow(); got != 5 {
				t.Errorf("it found %d of 5 providers", got)
			}
			e.mu.Lock()
			before := e.dials[stale.key.ID]
			e.mu.Unlock()
			after(10 * time.Minute)
			e.mu.Lock()
			defer e.mu.Unlock()
			if again := e.dials[stale.key.ID] - before; again > 1 {
				t.Errorf("with connections enough, one that is gone was dialled %d times", again)
			}
		})
	})
}

func TestConsumerJoinsWhenTheBootstrapNodeComesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEther()
		a, dead := e.add(), e.add()
		a.up, dead.up = false, false
		joined(t, e, []*station{dead, a}, nil, func(t *testing.T, c *Consumer) {
			after(2 * time.Second)
			if n := e.dials[a.key.ID]; n < 5 || n > 20 {
				t.Errorf("%d dials in two seconds", n)
			}
			e.mu.Lock()
			a.up = true
			e.mu.Unlock()
			after(700 * time.Millisecond)
			if c.availableNow() != 1 {
				t.Error("the provider is not known")
			}
			after(10 * time.Minute)
			if n := e.dials[dead.key.ID]; n > 80 {
				t.Errorf("a dead address was dialled %d times in ten minutes", n)
			}
			if c.availableNow() != 1 {
				t.Error("a provider that answers is not available any more")
			}
		})
	})
}

func TestConsumerAsksLessAndLess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEther()
		a, b, c3 := e.add(), e.add(), e.add()
		joined(t, e, []*station{a}, nil, func(t *testing.T, c *Consumer) {
			after(300 * time.Millisecond)
			e.mu.Lock()
			a.knows = []*station{b, c3}
			e.mu.Unlock()
			after(700 * time.Millisecond)
			if c.availableNow() != 3 {
				t.Fatalf("%d are known a second after the start", c.availableNow())
			}
			after(time.Minute)
			e.mu.Lock()
			if len(e.connected) != 3 {
				t.Errorf("%d connections", len(e.connected))
			}
			clear(e.questions)
			e.mu.Unlock()
			after(10 * time.Minute)
			e.mu.Lock()
			defer e.mu.Unlock()
			if n := e.questions[eventv1.EventType_EVENT_TYPE_DISCOVER]; n < 60 || n > 260 {
				t.Errorf("%d questions about peers in ten quiet minutes", n)
			}
			if n := e.questions[eventv1.EventType_EVENT_TYPE_METRIC_QUERY]; n < 30 || n > 120 {
				t.Errorf("%d questions about metrics in ten quiet minutes", n)
			}
			for _, p := range c.dir.View() {
				if p.Load == nil || p.State != domain.StateAvailable {
					t.Errorf("a provider is %s, with load %v", p.State, p.Load)
				}
			}
		})
	})
}

func TestConsumerNoticesWhoIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEther()
		a, b := e.add(), e.add()
		a.knows, b.knows = []*station{b}, []*station{a}
		var changes atomic.Int64
		joined(t, e, []*station{a}, func(c *Consumer) { c.Changed = func() { changes.Add(1) } }, func(t *testing.T, c *Consumer) {
			after(5 * time.Second)
			if c.availableNow() != 2 {
				t.Fatal("not both are known")
			}
			e.mu.Lock()
			a.knows = nil
			e.mu.Unlock()
			e.cut(b)
			after(20 * time.Second)
			if c.availableNow() != 1 { // it could not be dialled again
				t.Errorf("%d are available although one cannot be reached", c.availableNow())
			}
			before := changes.Load()
			e.mu.Lock()
			b.up = true
			e.mu.Unlock()
			after(2 * time.Minute)
			if c.availableNow() != 2 || changes.Load() == before {
				t.Errorf("%d are available after it is back, %d changes", c.availableNow(), changes.Load()-before)
			}
			e.cut(a)
			e.cut(b)
			after(time.Hour)
			if n, known, _ := c.Figures(); n != 0 || known != 0 {
				t.Errorf("an hour after all are gone %d are available and %d known", n, known)
			}
			e.mu.Lock()
			a.up = true // the bootstrap address is still tried
			e.mu.Unlock()
			after(time.Minute)
			if c.availableNow() != 1 {
				t.Error("it does not find back")
			}
			e.mu.Lock()
			defer e.mu.Unlock()
			if e.vouched[a.key.ID] == 0 || e.vouched[b.key.ID] > 0 { // the user has named one, and one peer has told of the other
				t.Errorf("dialled as vouched for are %v", e.vouched)
			}
		})
	})
}

func TestConsumerDoesNotPesterWhoIsNoProvider(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEther()
		a := e.add()
		a.deaf = true
		joined(t, e, []*station{a}, nil, func(t *testing.T, c *Consumer) {
			after(10 * time.Minute)
			e.mu.Lock()
			defer e.mu.Unlock()
			if n := e.questions[eventv1.EventType_EVENT_TYPE_DISCOVER]; n < 6 || n > 20 {
				t.Errorf("%d questions to somebody who takes none", n)
			}
		})
	})
}

func TestConsumerTakesOnlyWhatItAskedFor(t *testing.T) {
	e := newEther()
	a, b := e.add(), e.add()
	c := NewConsumer(ConsumerConfig{}, e, discard)
	e.consumer = c
	answer := func(id string, events ...*eventv1.Event) *eventv1.Event {
		p, _ := proto.Marshal(&eventv1.DiscoverResponse{InReplyTo: id, Announcements: events})
		return &eventv1.Event{Type: eventv1.EventType_EVENT_TYPE_DISCOVER_RESPONSE, Payload: p}
	}
	ask := func(id string) {
		c.questions[id] = question{a.key.ID, eventv1.EventType_EVENT_TYPE_DISCOVER, time.Now().Add(time.Minute)}
	}
	if v := c.DiscoverResponse(a.key.ID, answer("1", a.announcement())); v.Reason != "NOT_ASKED" {
		t.Errorf("an answer to nothing: %v", v)
	}
	ask("1")
	if v := c.DiscoverResponse(b.key.ID, answer("1", b.announcement())); v.Reason != "NOT_ASKED" {
		t.Errorf("an answer of somebody else: %v", v)
	}
	if v := c.DiscoverResponse(a.key.ID, &eventv1.Event{Payload: []byte{0xff}}); v.Reason != "NOT_DECODABLE" {
		t.Errorf("garbage: %v", v)
	}
	forged := fake.Announce(b.key.ID, 1, nil, time.Second, a.key.Sign, "sum")
	if v := c.DiscoverResponse(a.key.ID, answer("1", a.announcement(), forged)); v.Reason != "ANNOUNCEMENT_INVALID" {
		t.Errorf("a forged announcement: %v", v)
	}
	if _, known, counts := c.Figures(); known != 0 || counts.Invalid != 2 || counts.Unasked != 2 {
		t.Errorf("%d known, %+v", known, counts)
	}
	ask("2")
	if v := c.DiscoverResponse(a.key.ID, answer("2", a.announcement(), b.announcement())); v.Verdict != 0 || c.availableNow() != 2 {
		t.Errorf("a good answer: %v", v)
	}
	if v := c.DiscoverResponse(a.key.ID, answer("2", a.announcement())); v.Reason != "NOT_ASKED" {
		t.Errorf("the same answer again: %v", v)
	}
	// A metric must be its sender's own.
	m, _ := proto.Marshal(&eventv1.MetricAvailable{InReplyTo: "3", Metric: &eventv1.Metric{PeerId: b.key.ID, Version: 1}})
	c.questions["3"] = question{a.key.ID, eventv1.EventType_EVENT_TYPE_METRIC_QUERY, time.Now().Add(time.Minute)}
	if v := c.MetricAvailable(a.key.ID, b.key.Sign(&eventv1.Event{Payload: m})); v.Reason != "METRIC_INVALID" {
		t.Errorf("another's metric: %v", v)
	}
}

func TestConsumerBlamesTheRightProvider(t *testing.T) {
	e := newEther()
	a := e.add()
	x, err := announcementOf(a.announcement())
	if err != nil {
		t.Fatal(err)
	}
	var c *Consumer
	for why, blamed := range map[string]float64{"LEASE_LOST": 4, "EXECUTOR_DIED": 4, "RESULT_INVALID": 4, "QUEUE_FULL": 1, "PEER_RATE": 1, "EXCLUDED_BY_USER": 0, "TYPE_UNKNOWN: python": 1,
		"TYPE_UNAVAILABLE": 1, "LIMITS_TOO_LOW": 1, "PAYLOAD_TOO_LARGE": 1} {
		c = NewConsumer(ConsumerConfig{}, e, discard)
		c.hear(a.key.ID, []domain.Announcement{x})
		c.TaskChanged(&taskv1.Task{Id: why, State: "SUBMITTED", Provider: a.key.ID})
		c.TaskLeft(why, map[string]string{a.key.ID: why})
		if got := c.dir.Get(a.key.ID).Penalty; got != blamed {
			t.Errorf("%s: %v is held against it, want %v", why, got, blamed)
		}
		if c.dir.Get(a.key.ID).Placed != 0 {
			t.Errorf("%s: the task is still counted", why)
		}
	}
	c.dir.Get(a.key.ID).Penalty = 0
	c.TaskLeft("never there", map[string]string{a.key.ID: "LEASE_LOST"})
	if c.dir.Get(a.key.ID).Penalty > 0 {
		t.Error("it is blamed for a task that it never had")
	}
}
