package app

import (
	"sync"
	"time"

	"github.com/shallot-net/shallot/broker/internal/domain/delivery"
	"github.com/shallot-net/shallot/broker/internal/domain/event"
)

// arrival is an event on its way to the services.
type arrival struct {
	event *event.Event
	// done is for directed events only. useful: a service has applied it. It must not block.
	done func(o event.Outcome, useful bool)
}

// Delivery is an event for one member of a group.
type Delivery struct {
	ID          uint64
	Persona     string
	From        string
	Topic       string
	Event       *event.Event
	Redelivered bool
}

// dispatcher runs a delivery.Hub: it guards it and tells it the time.
type dispatcher struct {
	obs Observer

	mu     sync.Mutex
	hub    *delivery.Hub
	timer  *time.Timer
	at     time.Time // when the timer goes off; zero: it does not
	subs   map[*Subscription]struct{}
	closed bool
}

func newDispatcher(cfg delivery.Config, obs Observer) *dispatcher {
	d := &dispatcher{obs: obs, subs: make(map[*Subscription]struct{})}
	d.hub = delivery.NewHub(cfg, d)
	return d
}

func (d *dispatcher) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	if d.timer != nil {
		d.timer.Stop()
	}
	for s := range d.subs {
		s.end()
	}
}

// do runs f on the hub and sets the timer for what is due next.
func (d *dispatcher) do(f func(now time.Time)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f(time.Now())
	d.arm()
}

func (d *dispatcher) arm() {
	at, ok := d.hub.Next()
	if !ok || d.closed || !d.at.IsZero() && !at.Before(d.at) {
		return // a timer that goes off too early is cheaper than one that is set anew for every event
	}
	d.at = at
	wait := max(0, time.Until(at))
	if d.timer == nil {
		d.timer = time.AfterFunc(wait, d.tick)
		return
	}
	d.timer.Reset(wait)
}

func (d *dispatcher) tick() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return
	}
	d.at = time.Time{}
	d.hub.Tick(time.Now())
	d.arm()
}

func (d *dispatcher) offer(i *delivery.Item) {
	d.do(func(now time.Time) { d.hub.Offer(i, now) })
}

// Deliver, Done and Dropped are what the hub calls.
func (d *dispatcher) Deliver(m *delivery.Member, id uint64, i *delivery.Item, redelivered bool) {
	if redelivered {
		d.obs.Redelivered()
	}
	m.Value.(*Subscription).push(Delivery{ID: id, Persona: i.Persona, From: i.Sender, Topic: i.Topic, Event: i.Value.(*arrival).event, Redelivered: redelivered})
}

// Done passes the outcome of a directed event on.
func (d *dispatcher) Done(i *delivery.Item, o event.Outcome) { i.Value.(*arrival).done(o, i.Useful()) }

// Dropped counts.
func (d *dispatcher) Dropped(i *delivery.Item, why delivery.Drop) {
	d.obs.Dropped(i.Topic, string(why))
}

// Subscription is one member of a group. Its methods are safe for concurrent use.
type Subscription struct {
	broker *Broker
	member *delivery.Member
	topics []string

	mu    sync.Mutex
	queue []Delivery // no more than the member may have in flight, and those that were taken back since
	ready chan struct{}
	done  chan struct{}
	once  sync.Once
}

func (s *Subscription) push(d Delivery) {
	s.mu.Lock()
	s.queue = append(s.queue, d)
	s.mu.Unlock()
	select {
	case s.ready <- struct{}{}:
	default:
	}
}

// Ready has a value when Take may have something.
func (s *Subscription) Ready() <-chan struct{} { return s.ready }

// Done is closed when the broker ends the subscription.
func (s *Subscription) Done() <-chan struct{} { return s.done }

// Take returns what is to be delivered now, in order; reuse is a slice that it may use.
func (s *Subscription) Take(reuse []Delivery) []Delivery {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.queue
	clear(reuse)
	s.queue = reuse[:0]
	return out
}

func (s *Subscription) end() { s.once.Do(func() { close(s.done) }) }

// Ack takes the verdict on a delivery. One that is not this member's any more is counted and ignored.
func (s *Subscription) Ack(id uint64, v delivery.Verdict, detail string) {
	d := s.broker.inbox
	d.do(func(now time.Time) {
		if !d.hub.Ack(s.member, id, v, detail, now) {
			d.obs.LateAck()
			return
		}
		d.obs.Verdict(v.String())
	})
}

// Close takes the member out of its group; what it has not acknowledged goes to others.
func (s *Subscription) Close() {
	d := s.broker.inbox
	d.do(func(now time.Time) {
		if _, ok := d.subs[s]; !ok {
			return
		}
		delete(d.subs, s)
		d.hub.Leave(s.member, now)
		d.obs.Adjust("members", -1)
	})
	s.end()
	s.broker.releaseTopics(s.topics)
	s.topics = nil
}
