package app

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/shallot-net/shallot/kit/fault"
	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
)

var discard = slog.New(slog.DiscardHandler)

// wire is a broker and a task service in memory. Whoever is in down cannot be reached.
type wire struct {
	mu         sync.Mutex
	delay      time.Duration
	down       map[string]error
	sent       []string // event ids, as they were acknowledged
	tries      map[string]int
	remembered []string
	marks      [][]uint64
	failed     []string
	markErr    error
}

func newWire() *wire {
	return &wire{delay: time.Millisecond, down: map[string]error{}, tries: map[string]int{}}
}

func (w *wire) Send(ctx context.Context, _, peer string, ev *eventv1.Event, _ bool, _ time.Duration) error {
	sleep(ctx, w.delay)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tries[ev.GetId()]++
	if err := w.down[peer]; err != nil {
		return err
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	w.sent = append(w.sent, ev.GetId())
	return nil
}

func (w *wire) Remember(_ context.Context, _, peer string, _ []string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.remembered = append(w.remembered, peer)
	return nil
}

func (w *wire) MarkSent(_ context.Context, ids []uint64) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.markErr != nil {
		return w.markErr
	}
	w.marks = append(w.marks, ids)
	return nil
}

func (w *wire) SendFailed(_ context.Context, id uint64, reason, _ string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.failed = append(w.failed, fmt.Sprint(id, " ", reason))
	return nil
}

func (w *wire) set(peer string, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.down[peer] = err
}

func (w *wire) look(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

func out(id uint64, peer, task string, timeout time.Duration) *taskv1.OutboxEvent {
	e := &taskv1.OutboxEvent{OutboxId: id, PeerId: peer, TaskId: task, Addresses: []string{"/memory/" + peer}, Event: &eventv1.Event{Id: fmt.Sprint("e", id)}}
	if timeout > 0 {
		e.Timeout = durationpb.New(timeout)
	}
	return e
}

var (
	errUnreachable = fault.Unavailable("UNREACHABLE", "no")
	errRejected    = fault.New(codes.InvalidArgument, "REJECTED", "no")
	errLost        = fault.Unavailable("STREAM_BROKEN", "no")
)

// inTime runs a carrier in virtual time.
func inTime(t *testing.T, f func(t *testing.T, c *Carrier, w *wire)) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire()
		c := NewCarrier(CarrierConfig{}, w, w, discard)
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- c.Run(ctx) }()
		f(t, c, w)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func after(d time.Duration) {
	time.Sleep(d) //nolint:forbidigo // virtual time
	synctest.Wait()
}

func TestCarrierMarksInBatches(t *testing.T) {
	inTime(t, func(t *testing.T, c *Carrier, w *wire) {
		c.Begin()
		for i := range uint64(100) {
			c.Tell([]*taskv1.OutboxEvent{out(i+1, "p", "", 0)})
		}
		after(50 * time.Millisecond)
		w.look(func() {
			if len(w.sent) != 100 || len(w.marks) == 0 || len(w.marks) > 2 {
				t.Errorf("%d sent, marked in %d calls", len(w.sent), len(w.marks))
			}
			if len(w.remembered) == 0 || len(w.remembered) > 8 {
				t.Errorf("the address was told %d times", len(w.remembered))
			}
		})
	})
}

func TestCarrierMarkIsLostWithTheSession(t *testing.T) {
	inTime(t, func(t *testing.T, c *Carrier, w *wire) {
		w.markErr = errLost
		c.Begin()
		c.Tell([]*taskv1.OutboxEvent{out(1, "p", "a", 0)})
		after(time.Second)
		w.look(func() { w.markErr = nil })
		c.Begin() // the new session tells it again: it is marked, and not sent again
		c.Tell([]*taskv1.OutboxEvent{out(1, "p", "a", 0)})
		c.Synced()
		after(time.Second)
		w.look(func() {
			if len(w.sent) != 1 || len(w.marks) == 0 {
				t.Errorf("sent %v, marked %v", w.sent, w.marks)
			}
		})
		c.mu.Lock()
		defer c.mu.Unlock()
		if len(c.unmarked) != 0 || len(c.marks) != 0 {
			t.Errorf("still unmarked: %v, %v", c.unmarked, c.marks)
		}
	})
}

func TestCarrierUnreachable(t *testing.T) {
	inTime(t, func(t *testing.T, c *Carrier, w *wire) {
		var told []string
		c.Unreachable = func(p string) { told = append(told, p) }
		w.set("p", errUnreachable)
		c.Begin()
		c.Tell([]*taskv1.OutboxEvent{out(1, "p", "a", 30*time.Second), out(2, "p", "b", 0), out(3, "q", "c", 0)})
		after(10 * time.Second)
		w.look(func() {
			if len(w.sent) != 1 || w.sent[0] != "e3" {
				t.Errorf("sent %v", w.sent)
			}
			if n := w.tries["e1"] + w.tries["e2"]; n > 12 || n < 4 {
				t.Errorf("%d tries in 10 s", n)
			}
		})
		after(25 * time.Second)
		w.look(func() {
			if len(w.failed) != 1 || w.failed[0] != "1 UNREACHABLE" {
				t.Errorf("given up are %v", w.failed)
			}
		})
		w.set("p", nil)
		c.Reachable("p") // it connected: the other one goes at once
		after(5 * time.Millisecond)
		w.look(func() {
			if len(w.sent) != 2 || w.sent[1] != "e2" {
				t.Errorf("sent %v", w.sent)
			}
		})
		if len(told) == 0 {
			t.Error("nobody was told that p cannot be reached")
		}
	})
}

func TestCarrierGoesOnWhenTheBrokerIsBack(t *testing.T) {
	inTime(t, func(t *testing.T, c *Carrier, w *wire) {
		w.set("p", errLost)
		c.Begin()
		c.Tell([]*taskv1.OutboxEvent{out(1, "p", "a", 0)})
		after(time.Minute)
		w.set("p", nil)
		c.BrokerLost()
		c.BrokerUp()
		after(5 * time.Millisecond)
		w.look(func() {
			if len(w.sent) != 1 || len(w.remembered) != 2 {
				t.Errorf("sent %v, the address was told %d times", w.sent, len(w.remembered))
			}
		})
	})
}

func TestCarrierFinalAndUncertainFailures(t *testing.T) {
	inTime(t, func(t *testing.T, c *Carrier, w *wire) {
		w.set("no", errRejected)
		w.set("maybe", errLost)
		c.Begin()
		c.Tell([]*taskv1.OutboxEvent{out(1, "no", "a", 0), out(2, "maybe", "b", time.Second)})
		after(5 * time.Second)
		w.look(func() {
			if len(w.failed) != 2 || w.failed[0] != "1 REJECTED" || w.failed[1] != "2 NOT_ACKNOWLEDGED" {
				t.Errorf("given up are %v", w.failed)
			}
			if w.tries["e1"] != 1 {
				t.Errorf("a refused event was tried %d times", w.tries["e1"])
			}
		})
	})
}

func TestCarrierWithdrawn(t *testing.T) {
	inTime(t, func(t *testing.T, c *Carrier, w *wire) {
		w.set("p", errUnreachable)
		c.Begin()
		c.Tell([]*taskv1.OutboxEvent{out(1, "p", "a", 10*time.Second), out(2, "p", "b", 0)})
		after(100 * time.Millisecond)
		c.Tell([]*taskv1.OutboxEvent{{OutboxId: 1, Withdrawn: true}})
		c.Begin() // the next session does not tell 2 any more
		c.Synced()
		after(10 * time.Millisecond) // what is under way by chance fails still
		w.set("p", nil)
		after(time.Minute)
		w.look(func() {
			if len(w.sent) != 0 || len(w.failed) != 0 {
				t.Errorf("sent %v, given up %v", w.sent, w.failed)
			}
		})
		if n, _, _, _, _ := c.Held(); n != 0 {
			t.Errorf("%d are held", n)
		}
	})
}

func TestCarrierAsksToBeToldAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire()
		cfg := CarrierConfig{}
		cfg.Outbox.Bytes, cfg.Outbox.LaneBytes = 64<<10, 32<<10
		c := NewCarrier(cfg, w, w, discard)
		var all []*taskv1.OutboxEvent
		for i := range uint64(200) {
			all = append(all, out(i+1, "p", fmt.Sprint(i), 0))
		}
		sessions := 0
		session := func() {
			sessions++
			c.Begin()
			for _, e := range all { // a task service that has marked nothing yet
				c.Tell([]*taskv1.OutboxEvent{e})
			}
			c.Synced()
		}
		c.Resync = func() { go session() }
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- c.Run(ctx) }()
		w.markErr = errLost // so that what was sent is told again, and must not be sent again
		session()
		after(time.Minute)
		w.look(func() {
			if len(w.sent) != 200 || sessions < 2 || sessions > 20 {
				t.Errorf("%d sent in %d sessions", len(w.sent), sessions)
			}
		})
		cancel()
		<-done
	})
}
