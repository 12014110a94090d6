package app_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/shallot-net/shallot/broker/internal/app"
	"github.com/shallot-net/shallot/broker/internal/app/apptest"
	"github.com/shallot-net/shallot/broker/internal/domain/delivery"
	"github.com/shallot-net/shallot/broker/internal/domain/event"
	"github.com/shallot-net/shallot/kit/fault"
)

// world is two brokers on a network in memory, in virtual time.
type world struct {
	t        *testing.T
	net      *apptest.Network
	from, to *app.Broker
	peer     string
}

func inWorld(t *testing.T, f func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := apptest.NewNetwork()
		w := &world{t: t, net: n, from: node(t, n, 1, nil), to: node(t, n, 2, nil)}
		w.peer = idOf(t, w.to)
		f(w)
		for _, b := range []*app.Broker{w.from, w.to} {
			if err := b.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}

func (w *world) send(n int, timeout time.Duration) <-chan error {
	c := make(chan error, 1)
	w.from.Send(app.Outgoing{Peer: w.peer, Event: newEvent(n), Timeout: timeout}, func(err error) { c <- err })
	return c
}

// want checks when and how a Send ends.
func (w *world) want(c <-chan error, reason string, atLeast, atMost time.Duration) {
	w.t.Helper()
	begun := time.Now()
	err := <-c
	got := ""
	if err != nil {
		got = fault.From(err).Reason
	}
	if took := time.Since(begun); got != reason || took < atLeast || took > atMost {
		w.t.Errorf("it ended after %v with %q, want %q after %v to %v", took, got, reason, atLeast, atMost)
	}
}

func (w *world) subscribe() *app.Subscription {
	w.t.Helper()
	sub, err := w.to.Subscribe(app.Interest{Group: "node", Types: []event.Type{logs}})
	if err != nil {
		w.t.Fatal(err)
	}
	return sub
}

func (w *world) next(sub *app.Subscription) app.Delivery {
	w.t.Helper()
	<-sub.Ready()
	d := sub.Take(nil)
	if len(d) != 1 {
		w.t.Fatalf("%d deliveries", len(d))
	}
	return d[0]
}

func TestSendGivesUp(t *testing.T) {
	t.Run("nobody answers", func(t *testing.T) {
		inWorld(t, func(w *world) {
			w.net.SetDown(w.peer, true)
			w.want(w.send(1, 3*time.Second), app.ReasonUnreachable, 3*time.Second, 3*time.Second)
			if n := w.net.Dials(); n < 5 || n > 20 {
				t.Errorf("%d dials in 3 s", n)
			}
		})
	})
	t.Run("no address", func(t *testing.T) {
		inWorld(t, func(w *world) {
			w.net.SetUnknown(w.peer, true)
			w.want(w.send(1, time.Minute), app.ReasonUnreachable, time.Second, 3*time.Second)
		})
	})
	t.Run("handed over", func(t *testing.T) {
		inWorld(t, func(w *world) {
			sub := w.subscribe()
			c := w.send(1, 2*time.Second)
			d := w.next(sub)
			w.want(c, app.ReasonSendTimeout, 2*time.Second, 2*time.Second)
			sub.Ack(d.ID, delivery.Applied, "") // too late for this one, and remembered for the next
			w.want(w.send(1, time.Second), "", 0, 0)
			sub.Close()
		})
	})
	t.Run("no subscriber", func(t *testing.T) {
		inWorld(t, func(w *world) {
			w.want(w.send(1, 0), app.ReasonNoSubscriber, 5*time.Second, 5*time.Second)
		})
	})
	t.Run("the default", func(t *testing.T) {
		inWorld(t, func(w *world) {
			w.net.SetDown(w.peer, true)
			w.want(w.send(1, 0), app.ReasonUnreachable, 10*time.Second, 10*time.Second)
		})
	})
}

// A peer that cannot be reached must not hold up a service's events to all others: no more than so many wait for it.
func TestUnreachablePeerTakesFewEvents(t *testing.T) {
	inWorld(t, func(w *world) {
		w.net.SetDown(w.peer, true)
		var waiting []<-chan error
		for i := range 256 {
			waiting = append(waiting, w.send(i, 3*time.Second))
		}
		pass(time.Second + time.Millisecond)
		w.want(w.send(256, time.Minute), app.ReasonUnreachable, 0, 0)
		for _, c := range waiting {
			w.want(c, app.ReasonUnreachable, 0, 2*time.Second)
		}
		// Once it answers there is room again, for a burst too.
		sub := w.subscribe()
		w.net.SetDown(w.peer, false)
		waiting = waiting[:0]
		for i := range 300 {
			waiting = append(waiting, w.send(300+i, time.Minute))
		}
		go func() {
			for {
				select {
				case <-sub.Done():
					return
				case <-sub.Ready():
				}
				for _, d := range sub.Take(nil) {
					sub.Ack(d.ID, delivery.Applied, "")
				}
			}
		}()
		for _, c := range waiting {
			w.want(c, "", 0, 1300*time.Millisecond) // the longest pause between two attempts
		}
		sub.Close()
	})
}

func TestSendWaitsForThePeer(t *testing.T) {
	inWorld(t, func(w *world) {
		sub := w.subscribe()
		w.net.SetDown(w.peer, true)
		c := w.send(1, 30*time.Second)
		pass(10 * time.Second) // attempts are a second apart by now
		w.net.SetDown(w.peer, false)
		w.net.Announce(idOf(t, w.from), w.peer)
		begun := time.Now()
		d := w.next(sub)
		if took := time.Since(begun); took > 10*time.Millisecond {
			t.Errorf("a peer that has connected waits %v for its events", took)
		}
		sub.Ack(d.ID, delivery.Applied, "")
		w.want(c, "", 0, time.Second)
		sub.Close()
	})
}

func TestCloseEndsWhatWaits(t *testing.T) {
	inWorld(t, func(w *world) {
		sub := w.subscribe()
		written := w.send(1, time.Minute)
		w.next(sub)
		w.net.SetDown(w.peer, true)
		w.net.Cut()
		synctest.Wait()
		unwritten := w.send(2, time.Minute)
		synctest.Wait()
		if err := w.from.Close(); err != nil {
			t.Error(err)
		}
		w.want(written, fault.ReasonShuttingDown, 0, 0)
		w.want(unwritten, app.ReasonUnreachable, 0, 0)
		c := make(chan error, 1)
		w.from.Send(app.Outgoing{Peer: w.peer, Event: newEvent(3)}, func(err error) { c <- err })
		w.want(c, fault.ReasonShuttingDown, 0, 0)
		sub.Close()
	})
}

// Nothing runs on for a peer to which nothing is sent.
func TestIdleSendersRetire(t *testing.T) {
	inWorld(t, func(w *world) {
		sub := w.subscribe()
		for i := range 3 {
			c := w.send(i, 0)
			sub.Ack(w.next(sub).ID, delivery.Applied, "")
			w.want(c, "", 0, 0)
			pass(10 * time.Minute)
		}
		if n := w.net.Dials(); n != 3 {
			t.Errorf("%d streams were opened for three events far apart", n)
		}
		sub.Close()
	})
}

func TestSubscriptionChecks(t *testing.T) {
	n := apptest.NewNetwork()
	b := node(t, n, 1, nil)
	defer b.Close()
	types := []event.Type{logs}
	for name, i := range map[string]app.Interest{
		"no group":       {Types: types},
		"nothing":        {Group: "g"},
		"unknown topic":  {Group: "g", Topics: []string{"metric"}},
		"unknown type":   {Group: "g", Types: []event.Type{4711}},
		"too much":       {Group: "g", Types: types, MaxInFlight: 1 << 20},
		"no time at all": {Group: "g", Types: types, AckTimeout: -1},
		"for ever":       {Group: "g", Types: types, AckTimeout: time.Hour},
	} {
		if sub, err := b.Subscribe(i); err == nil {
			t.Errorf("%s: it is accepted", name)
			sub.Close()
		}
	}
	var subs []*app.Subscription
	for len(subs) < 300 {
		sub, err := b.Subscribe(app.Interest{Group: "g", Types: types})
		if err != nil {
			break
		}
		subs = append(subs, sub)
	}
	if len(subs) != 256 {
		t.Errorf("%d subscriptions at most", len(subs))
	}
	for _, s := range subs {
		s.Close()
		s.Close()
	}
}
