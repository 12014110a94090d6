package app_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shallot-net/shallot/broker/internal/app"
	"github.com/shallot-net/shallot/broker/internal/app/apptest"
	"github.com/shallot-net/shallot/broker/internal/domain/delivery"
	"github.com/shallot-net/shallot/broker/internal/domain/event"
	"github.com/shallot-net/shallot/kit/fault"
)

const logs = event.Type(54)

// node is a broker on a network in memory.
func node(t *testing.T, n *apptest.Network, number byte, change func(*app.Config)) *app.Broker {
	t.Helper()
	cfg := app.Config{Mode: app.ModeOpen, Network: n, Keys: apptest.NewKeys(number), Codec: apptest.Codec{}}
	if change != nil {
		change(&cfg)
	}
	b := app.New(cfg)
	if err := b.Start(); err != nil {
		t.Fatal(err)
	}
	return b
}

func idOf(t *testing.T, b *app.Broker) string {
	t.Helper()
	s, err := b.Self("")
	if err != nil {
		t.Fatal(err)
	}
	return s.PeerID
}

func newEvent(n int) *event.Event {
	return &event.Event{ID: fmt.Sprintf("%032x", n+1), Type: logs, Payload: []byte(fmt.Sprint(n))}
}

// pass lets virtual time go by.
func pass(d time.Duration) { <-time.After(d) }

// soak is a run in virtual time: services that are slow, die, come back, refuse nothing but ask for patience, over connections that break, and a
// caller that sends again whatever has no known outcome.
type soak struct {
	t      *testing.T
	mu     sync.Mutex // of all that follows
	r      *rand.Rand
	net    *apptest.Network
	from   *app.Broker
	to     *app.Broker
	peer   string
	acked  map[string]int // acknowledged by a service
	resent map[string]bool
	seen   map[string]bool
}

// n is a random number below n.
func (s *soak) n(n int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.r.IntN(n)
}

func (s *soak) service(life time.Duration) {
	sub, err := s.to.Subscribe(app.Interest{Group: "node", Types: []event.Type{logs}, MaxInFlight: 1 + s.n(8), AckTimeout: 2 * time.Second})
	if err != nil {
		s.t.Error(err)
		return
	}
	defer sub.Close()
	dies := time.After(life)
	newest := -1
	var buf []app.Delivery
	for {
		select {
		case <-dies:
			return
		case <-sub.Ready():
		}
		buf = sub.Take(buf)
		for _, d := range buf {
			newest = s.order(d, newest)
			switch k := s.n(100); {
			case k < 3: // never answered
			case k < 8:
				sub.Ack(d.ID, delivery.Retry, "")
			default:
				if k > 80 {
					pass(time.Duration(s.n(300)) * time.Millisecond)
				}
				s.mu.Lock()
				s.acked[d.Event.ID]++ // committed, and only then
				s.mu.Unlock()
				sub.Ack(d.ID, delivery.Applied, "")
			}
		}
	}
}

// order checks that what neither the caller nor the broker sent again comes in order.
func (s *soak) order(d app.Delivery, newest int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	again := d.Redelivered || s.resent[d.Event.ID] || s.seen[d.Event.ID] // seen: it ran out of time, and the answer to that was lost
	s.seen[d.Event.ID] = true
	if again {
		return newest
	}
	var n int
	_, _ = fmt.Sscan(string(d.Event.Payload), &n)
	if n < newest {
		s.t.Errorf("event %d came after %d", n, newest)
	}
	return max(newest, n)
}

func (s *soak) send(e *event.Event, done chan<- error) {
	s.from.Send(app.Outgoing{Peer: s.peer, Event: e, Timeout: time.Duration(1+s.n(10)) * time.Second}, func(err error) { done <- err })
}

func TestSoak(t *testing.T) {
	seeds := 100
	if testing.Short() {
		seeds = 5
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { runSoak(t, uint64(seed)) })
		})
	}
}

func runSoak(t *testing.T, seed uint64) {
	n := apptest.NewNetwork()
	s := &soak{t: t, r: rand.New(rand.NewPCG(seed, 1)), net: n, acked: map[string]int{}, resent: map[string]bool{}, seen: map[string]bool{}}
	s.from = node(t, n, 1, nil)
	// What ends because no service is there may be sent again out of order: here there always is one soon.
	s.to = node(t, n, 2, func(c *app.Config) { c.Delivery.Linger = time.Hour })
	s.peer = idOf(t, s.to)
	stop := make(chan struct{})
	finished := make(chan struct{})
	go s.trouble(stop, finished)
	const events = 200
	outcomes := map[string]chan error{}
	var order []*event.Event
	for i := range events {
		e := newEvent(i)
		outcomes[e.ID] = make(chan error, 1)
		order = append(order, e)
		s.send(e, outcomes[e.ID])
		if s.n(4) == 0 {
			pass(time.Duration(s.n(100)) * time.Millisecond)
		}
	}
	for _, e := range order {
		for tries := 0; ; tries++ {
			err := <-outcomes[e.ID]
			if err == nil {
				break
			}
			if r := fault.From(err).Reason; r == app.ReasonRejected || tries > 50 {
				t.Fatalf("event %s ended with %v after %d tries", e.ID, err, tries)
			}
			s.mu.Lock()
			s.resent[e.ID] = true
			s.mu.Unlock()
			s.send(e, outcomes[e.ID])
		}
		s.mu.Lock()
		if s.acked[e.ID] == 0 {
			t.Errorf("event %s is acknowledged, and no service did", e.ID)
		}
		s.mu.Unlock()
	}
	close(stop)
	<-finished
	if err := s.from.Close(); err != nil {
		t.Error(err)
	}
	if err := s.to.Close(); err != nil {
		t.Error(err)
	}
}

// trouble keeps one to three services alive and breaks things, until it is told to stop.
func (s *soak) trouble(stop, finished chan struct{}) {
	defer close(finished)
	done := make(chan struct{}, 64)
	running := 0
	start := func() {
		running++
		go func() {
			s.service(time.Duration(1+s.n(8)) * time.Second)
			done <- struct{}{}
		}()
	}
	start()
	for {
		wait := time.After(time.Duration(50+s.n(500)) * time.Millisecond)
		select {
		case <-stop:
			for ; running > 0; running-- {
				<-done
			}
			return
		case <-done:
			running--
			if running == 0 {
				pass(time.Duration(s.n(3)) * time.Second) // a restart
				start()
			}
		case <-wait:
			switch k := s.n(10); {
			case k < 4:
				s.net.Cut()
			case k < 5:
				s.net.SetDown(s.peer, true)
				s.net.Cut()
				pass(time.Duration(s.n(4000)) * time.Millisecond)
				s.net.SetDown(s.peer, false)
			case k < 7 && running < 3:
				start()
			}
		}
	}
}
