package app_test

import (
	"bytes"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/shallot-net/shallot/broker/internal/app"
	"github.com/shallot-net/shallot/broker/internal/app/apptest"
	"github.com/shallot-net/shallot/broker/internal/domain/delivery"
	"github.com/shallot-net/shallot/broker/internal/domain/event"
	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/signature"
)

// held is a network whose first signature is not made before it is let go.
func held(t *testing.T) (n *apptest.Network, begun <-chan struct{}, letGo func(), made *atomic.Int32) {
	t.Helper()
	began, let := make(chan struct{}), make(chan struct{})
	made = new(atomic.Int32)
	n = apptest.NewNetwork()
	n.Signing = func() {
		if made.Add(1) == 1 {
			close(began)
			<-let
		}
	}
	return n, began, sync.OnceFunc(func() { close(let) }), made
}

func TestEventsThatWaitAreSignedTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, begun, letGo, made := held(t)
		keys := func(c *app.Config) { c.Signers = n }
		from, to := node(t, n, 1, keys), node(t, n, 2, keys)
		peer, author := idOf(t, to), idOf(t, from)
		sub, err := to.Subscribe(app.Interest{Group: "node", Types: []event.Type{event.TaskSubmission, logs}})
		if err != nil {
			t.Fatal(err)
		}
		const events = 200
		errs := make(chan error, events)
		var posted atomic.Int32
		go func() {
			for i := range events {
				e := newEvent(i)
				signed := i%10 != 3 // one that is not signed overtakes none that is
				if signed {
					e.Type = event.TaskSubmission
				}
				from.Send(app.Outgoing{Peer: peer, Event: e, Sign: signed}, func(err error) { errs <- err })
				posted.Add(1)
			}
		}()
		<-begun
		synctest.Wait()
		if got := posted.Load(); got <= signature.MaxEvents || got > 2*signature.MaxEvents {
			t.Errorf("%d events are taken while some are signed, want a tree full more than those", got)
		}
		letGo()
		key, err := n.PublicKey(author)
		if err != nil {
			t.Fatal(err)
		}
		var got []*event.Event
		for len(got) < events {
			<-sub.Ready()
			for _, d := range sub.Take(nil) {
				got = append(got, d.Event)
				sub.Ack(d.ID, delivery.Applied, "")
			}
		}
		for range events {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
		for i, e := range got {
			if want := newEvent(i); e.ID != want.ID || !bytes.Equal(e.Payload, want.Payload) {
				t.Fatalf("event %d is %s", i, e.ID)
			}
			if e.Type != logs && (e.Author != author || !signature.Verify(key, e.SigningBytes(), e.Signature)) {
				t.Errorf("event %d: the signature of %q does not fit", i, e.Author)
			}
		}
		if n := made.Load(); n < 3 || n > 8 {
			t.Errorf("%d signatures were made of 180 events", n)
		}
		sub.Close()
		closeAll(t, from, to)
	})
}

func TestAClosedPersonaAnswersWhatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, begun, letGo, _ := held(t)
		from := node(t, n, 1, nil)
		const events = 2 * signature.MaxEvents
		errs := make(chan error, events)
		var posting sync.WaitGroup
		for i := range events {
			posting.Go(func() {
				from.Send(app.Outgoing{Peer: "nobody", Event: newEvent(i), Sign: true}, func(err error) { errs <- err })
			})
		}
		<-begun
		synctest.Wait()
		closed := make(chan error, 1)
		go func() { closed <- from.Close() }()
		synctest.Wait()
		letGo()
		if err := <-closed; err != nil {
			t.Error(err)
		}
		posting.Wait()
		for range events {
			if err := <-errs; err == nil {
				t.Error("an event to nobody is acknowledged")
			} else if r := fault.From(err).Reason; r != "PERSONA_CLOSED" && r != app.ReasonUnreachable && r != fault.ReasonShuttingDown {
				t.Errorf("it ended with %s: %v", r, err)
			}
		}
	})
}

// What cannot be signed is answered, and holds up nothing.
func TestAnEventThatIsTooLargeOnceSigned(t *testing.T) {
	inWorld(t, func(w *world) {
		e := newEvent(1)
		e.Payload = bytes.Repeat([]byte("x"), event.MaxSize)
		for _, sign := range []bool{true, false} {
			c := make(chan error, 1)
			w.from.Send(app.Outgoing{Peer: w.peer, Event: e, Sign: sign}, func(err error) { c <- err })
			if err := <-c; err == nil || fault.From(err).Reason != "INVALID_EVENT" {
				t.Errorf("signed %v: %v", sign, err)
			}
		}
	})
}

func closeAll(t *testing.T, all ...*app.Broker) {
	t.Helper()
	for i, b := range all {
		if err := b.Close(); err != nil {
			t.Error(fmt.Errorf("broker %d: %w", i, err))
		}
	}
}
