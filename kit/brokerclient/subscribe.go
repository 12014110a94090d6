package brokerclient

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/logging"
	"github.com/shallot-net/shallot/kit/workers"
	brokerv1 "github.com/shallot-net/shallot/proto/shallot/broker/v1"
)

// Answer is what a handler makes of a delivery. The zero value says that it was applied and committed.
type Answer struct {
	Verdict brokerv1.Verdict
	Reason  string // of a refusal: UPPER_SNAKE, told to the sender
}

// Applied says that the event was applied, and committed where it changes state.
func Applied() Answer { return Answer{} }

// Ignored says that the event was late, repeated or of no interest.
func Ignored(reason string) Answer {
	return Answer{brokerv1.Verdict_VERDICT_IGNORED, reason}
}

// Rejected says that the event was malformed or forged, which is held against its sender.
func Rejected(reason string) Answer {
	return Answer{brokerv1.Verdict_VERDICT_REJECTED, reason}
}

// Retry asks for the event again later, here or at another member of the group.
func Retry(reason string) Answer {
	return Answer{brokerv1.Verdict_VERDICT_RETRY, reason}
}

// Handler deals with one delivery and returns after what it changed is committed. Its context ends with the
// subscription's stream, for then the broker hands the event to somebody else; it must return soon after.
type Handler func(ctx context.Context, d *brokerv1.Delivery) Answer

// SubscribeOptions change how deliveries are handled; the zero value handles up to 64 side by side, in no order.
type SubscribeOptions struct {
	// Workers bounds the handlers that run at once. Default 64.
	Workers int
	// Order names what a delivery must not overtake: those of one name are handled one after another, as they came.
	// "" is for no order. Nil orders nothing; see BySender.
	Order func(d *brokerv1.Delivery) string
	// OnState is told when the subscription stands, and when it was lost, with the error. It must not block.
	OnState func(up bool, err error)
}

// BySender orders the directed events of each sender at each persona, and no gossip.
func BySender(d *brokerv1.Delivery) string {
	if d.GetTopic() != "" {
		return ""
	}
	return d.GetPersona() + "\x00" + d.GetFromPeer()
}

const (
	defaultWorkers = 64
	firstWait      = 10 * time.Millisecond
	longestWait    = 2 * time.Second
)

// Subscribe hands every delivery to handler and acknowledges it with the answer, until ctx ends; then it waits for
// the handlers that run and returns nil. A stream that breaks is opened again, for as long as it takes.
func (c *Client) Subscribe(ctx context.Context, open *brokerv1.Open, handler Handler, opts SubscribeOptions) error {
	if opts.Workers <= 0 {
		opts.Workers = defaultWorkers
	}
	if opts.OnState == nil {
		opts.OnState = func(bool, error) {}
	}
	wait := backoff.NewExponentialBackOff()
	wait.InitialInterval, wait.MaxInterval, wait.RandomizationFactor = firstWait, longestWait, 0.3
	for {
		stood, err := c.session(ctx, open, handler, opts)
		if ctx.Err() != nil {
			return nil
		}
		opts.OnState(false, err)
		if stood > 2*longestWait { // one that is lost at once must not be reopened in a loop
			wait.Reset()
		}
		c.log.Debug("subscription lost", slog.String("group", open.GetGroup()), logging.Err(err))
		t := time.NewTimer(wait.NextBackOff())
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return nil
		}
	}
}

// session is one stream's life: how long it stood, and why it ended. No handler is left when it returns.
func (c *Client) session(ctx context.Context, open *brokerv1.Open, handler Handler, opts SubscribeOptions) (time.Duration, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.events.Subscribe(ctx)
	if err != nil {
		return 0, err
	}
	if err := stream.Send(&brokerv1.SubscribeRequest{Request: &brokerv1.SubscribeRequest_Open{Open: open}}); err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	s := &subscription{client: c, stream: stream, handler: handler, order: opts.Order,
		slots: make(chan struct{}, opts.Workers), queues: map[string][]*brokerv1.Delivery{}}
	defer s.running.Wait()
	defer cancel() // before the wait: handlers end with the stream
	var opened time.Time
	for {
		resp, err := stream.Recv()
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = fault.Unavailable("STREAM_ENDED", "the broker ended the subscription")
			}
			if opened.IsZero() {
				return 0, err
			}
			return time.Since(opened), err
		}
		switch r := resp.GetResponse().(type) {
		case *brokerv1.SubscribeResponse_Opened:
			opened = time.Now()
			opts.OnState(true, nil)
		case *brokerv1.SubscribeResponse_Delivery:
			s.dispatch(ctx, r.Delivery)
		}
	}
}

type subscription struct {
	client *Client
	stream interface {
		Send(*brokerv1.SubscribeRequest) error
	}
	handler Handler
	order   func(*brokerv1.Delivery) string
	slots   chan struct{}
	running workers.Group

	sending sync.Mutex
	mu      sync.Mutex
	queues  map[string][]*brokerv1.Delivery // what waits behind a running handler, by order name
}

// dispatch starts a handler, or queues behind one. What waits is bounded by the broker: it delivers no more than
// max_in_flight without an acknowledgement.
func (s *subscription) dispatch(ctx context.Context, d *brokerv1.Delivery) {
	name := ""
	if s.order != nil {
		name = s.order(d)
	}
	if name != "" {
		s.mu.Lock()
		waiting, busy := s.queues[name]
		if busy {
			s.queues[name] = append(waiting, d)
			s.mu.Unlock()
			return
		}
		s.queues[name] = nil
		s.mu.Unlock()
	}
	select {
	case s.slots <- struct{}{}:
	case <-ctx.Done():
		return
	}
	s.running.Go(func() {
		defer func() { <-s.slots }()
		for d != nil && ctx.Err() == nil {
			s.handle(ctx, d)
			d = s.next(name)
		}
	})
}

// next takes what waits under a name; nil when nothing does, and the name is free again.
func (s *subscription) next(name string) *brokerv1.Delivery {
	if name == "" {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	waiting := s.queues[name]
	if len(waiting) == 0 {
		delete(s.queues, name)
		return nil
	}
	s.queues[name] = waiting[1:]
	return waiting[0]
}

func (s *subscription) handle(ctx context.Context, d *brokerv1.Delivery) {
	a := s.call(ctx, d)
	if ctx.Err() != nil {
		return // the broker gives it to another
	}
	req := &brokerv1.SubscribeRequest{Request: &brokerv1.SubscribeRequest_Ack{Ack: &brokerv1.Ack{
		DeliveryId: d.GetDeliveryId(), Verdict: a.Verdict, Reason: a.Reason}}}
	s.sending.Lock()
	defer s.sending.Unlock()
	_ = s.stream.Send(req) // Recv says what is wrong with the stream
}

// call runs the handler. What makes it panic is tried once more where somebody waits for the answer, and then let
// go: a poisoned event must not come back for ever.
func (s *subscription) call(ctx context.Context, d *brokerv1.Delivery) (a Answer) {
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		s.client.log.Error("event handler panicked", slog.String("type", d.GetEvent().GetType().String()),
			slog.String(logging.KeyError, fmt.Sprint(p)), slog.String(logging.KeyStack, string(debug.Stack())))
		a = Ignored("INTERNAL")
		if d.GetTopic() == "" && !d.GetRedelivered() {
			a = Retry("INTERNAL")
		}
	}()
	return s.handler(ctx, d)
}
