package brokerclient_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/shallot-net/shallot/kit/brokerclient"
	"github.com/shallot-net/shallot/kit/brokertest"
	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/grpctest"
	"github.com/shallot-net/shallot/kit/logging"
	"github.com/shallot-net/shallot/kit/rpc"
	brokerv1 "github.com/shallot-net/shallot/proto/shallot/broker/v1"
	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
)

const patience = time.Minute

func client(t *testing.T, b *brokertest.Broker) *brokerclient.Client {
	t.Helper()
	conn := grpctest.Start(t, func(s *rpc.Server) { b.Register(s) })
	c := brokerclient.New(conn, logging.New(t.Output(), "debug", "text", "test"))
	t.Cleanup(c.Close)
	return c
}

// pair is two connected brokers and their services' clients.
func pair(t *testing.T) (a, b *brokertest.Broker, ca, cb *brokerclient.Client) {
	t.Helper()
	n := brokertest.NewNetwork()
	a, b = n.Add(), n.Add()
	n.Connect(a, b)
	return a, b, client(t, a), client(t, b)
}

// subscribe returns when the subscription stands, and a function that ends it.
func subscribe(t *testing.T, c *brokerclient.Client, open *brokerv1.Open, h brokerclient.Handler, opts brokerclient.SubscribeOptions) func() {
	t.Helper()
	up := make(chan struct{}, 16)
	inner := opts.OnState
	opts.OnState = func(is bool, err error) {
		if inner != nil {
			inner(is, err)
		}
		if is {
			up <- struct{}{}
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.Subscribe(ctx, open, h, opts) }()
	wait(t, up, "the subscription")
	stop := func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Subscribe: %v", err)
		}
		ended <- nil
	}
	t.Cleanup(stop)
	return stop
}

func wait[T any](t *testing.T, c <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("%s did not come", what)
		panic("unreachable")
	}
}

func pings() *brokerv1.Open {
	return &brokerv1.Open{Group: "test", Types: []eventv1.EventType{eventv1.EventType_EVENT_TYPE_PING}}
}

func ping(t testing.TB) *eventv1.Event {
	t.Helper()
	ev, err := brokerclient.NewEvent(eventv1.EventType_EVENT_TYPE_PING, &eventv1.Ping{})
	if err != nil {
		t.Fatal(err)
	}
	return ev
}

func TestSendReturnsAfterTheServiceHasAnswered(t *testing.T) {
	_, b, ca, cb := pair(t)
	answers := map[string]brokerclient.Answer{}
	var mu sync.Mutex
	var handled []string
	subscribe(t, cb, pings(), func(_ context.Context, d *brokerv1.Delivery) brokerclient.Answer {
		mu.Lock()
		defer mu.Unlock()
		handled = append(handled, d.GetEvent().GetId())
		a := answers[d.GetEvent().GetId()]
		answers[d.GetEvent().GetId()] = brokerclient.Applied() // what is asked for again is taken
		return a
	}, brokerclient.SubscribeOptions{})
	for _, c := range []struct {
		name   string
		answer brokerclient.Answer
		reason string
		times  int
	}{
		{"applied", brokerclient.Applied(), "", 1},
		{"ignored", brokerclient.Ignored("OLD"), "", 1},
		{"rejected", brokerclient.Rejected("FORGED"), brokerclient.ReasonRejected, 1},
		{"retried", brokerclient.Retry("BUSY"), "", 2},
	} {
		ev := ping(t)
		mu.Lock()
		answers[ev.GetId()], handled = c.answer, nil
		mu.Unlock()
		err := ca.Send(t.Context(), "", b.PeerID(), ev, brokerclient.SendOptions{Sign: true})
		if c.reason == "" && err != nil || c.reason != "" && fault.From(err).Reason != c.reason {
			t.Errorf("%s: Send = %v, want reason %q", c.name, err, c.reason)
		}
		if brokerclient.OutcomeUnknown(err) {
			t.Errorf("%s: the outcome of %v counts as unknown", c.name, err)
		}
		mu.Lock()
		if len(handled) != c.times {
			t.Errorf("%s: handled %d times, want %d", c.name, len(handled), c.times)
		}
		mu.Unlock()
	}
}

func TestSendToNobodyIsUnreachable(t *testing.T) {
	_, _, ca, _ := pair(t)
	err := ca.Send(t.Context(), "", "12D3KooWNobody", ping(t), brokerclient.SendOptions{Timeout: time.Second})
	if f := fault.From(err); f.Reason != brokerclient.ReasonUnreachable || brokerclient.OutcomeUnknown(err) {
		t.Errorf("Send = %v, want UNREACHABLE, whose outcome is known", err)
	}
}

func TestASubscriptionOutlivesItsBroker(t *testing.T) {
	_, b, ca, cb := pair(t)
	states := make(chan bool, 16)
	got := make(chan string, 16)
	subscribe(t, cb, pings(), func(_ context.Context, d *brokerv1.Delivery) brokerclient.Answer {
		got <- d.GetEvent().GetId()
		return brokerclient.Applied()
	}, brokerclient.SubscribeOptions{OnState: func(up bool, _ error) { states <- up }})
	if !wait(t, states, "the first state") {
		t.Fatal("the first state is down")
	}
	b.Stop()
	for wait(t, states, "the loss") {
	}
	if err := ca.Send(t.Context(), "", b.PeerID(), ping(t), brokerclient.SendOptions{}); err == nil {
		t.Error("Send to a stopped broker succeeded")
	}
	b.Start()
	for !wait(t, states, "the return") {
	}
	ev := ping(t)
	// The sender's broker has forgotten the connection with the crash: it dials when told where.
	deadline := time.Now().Add(patience)
	for {
		b.Reconnect()
		if err := ca.Send(t.Context(), "", b.PeerID(), ev, brokerclient.SendOptions{}); err == nil {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("Send after the restart: %v", err)
		}
	}
	if id := wait(t, got, "the event"); id != ev.GetId() {
		t.Errorf("got event %s, want %s", id, ev.GetId())
	}
}

func TestOrderedDeliveriesDoNotOvertake(t *testing.T) {
	_, b, ca, cb := pair(t)
	const n = 200
	var mu sync.Mutex
	var order []string
	running := map[string]int{}
	var most atomic.Int32
	subscribe(t, cb, pings(), func(_ context.Context, d *brokerv1.Delivery) brokerclient.Answer {
		mu.Lock()
		running[d.GetFromPeer()]++
		most.Store(max(most.Load(), int32(running[d.GetFromPeer()])))
		mu.Unlock()
		mu.Lock()
		defer mu.Unlock()
		running[d.GetFromPeer()]--
		order = append(order, d.GetEvent().GetId())
		return brokerclient.Applied()
	}, brokerclient.SubscribeOptions{Order: brokerclient.BySender})
	var want []string
	var wg sync.WaitGroup
	for range n {
		ev := ping(t)
		want = append(want, ev.GetId())
		if err := ca.Send(t.Context(), "", b.PeerID(), ev, brokerclient.SendOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	wg.Wait()
	for range n { // side by side: in no order, but one at a time
		wg.Go(func() { _ = ca.Send(t.Context(), "", b.PeerID(), ping(t), brokerclient.SendOptions{}) })
	}
	wg.Wait()
	mu.Lock()
	defer mu.Unlock()
	if !slices.Equal(order[:n], want) || len(order) != 2*n {
		t.Errorf("%d events were handled, the first %d in the order of sending: %v", len(order), n, slices.Equal(order[:n], want))
	}
	if most.Load() != 1 {
		t.Errorf("%d events of one sender were handled at once", most.Load())
	}
}

func TestHandlersAreBoundedAndOthersGoOn(t *testing.T) {
	_, b, ca, cb := pair(t)
	release, started := make(chan struct{}), make(chan struct{}, 64)
	var running, most atomic.Int32
	subscribe(t, cb, pings(), func(context.Context, *brokerv1.Delivery) brokerclient.Answer {
		most.Store(max(most.Load(), running.Add(1)))
		started <- struct{}{}
		<-release
		running.Add(-1)
		return brokerclient.Applied()
	}, brokerclient.SubscribeOptions{Workers: 4})
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			if err := ca.Send(t.Context(), "", b.PeerID(), ping(t), brokerclient.SendOptions{}); err != nil {
				t.Error(err)
			}
		})
	}
	for range 4 {
		wait(t, started, "a handler")
	}
	close(release)
	wg.Wait()
	if most.Load() > 4 {
		t.Errorf("%d handlers ran at once, want at most 4", most.Load())
	}
}

func TestAPanickingHandlerIsNoEnd(t *testing.T) {
	_, b, ca, cb := pair(t)
	var calls atomic.Int32
	subscribe(t, cb, pings(), func(_ context.Context, d *brokerv1.Delivery) brokerclient.Answer {
		if calls.Add(1) <= 2 {
			panic(fmt.Sprintf("call %d", calls.Load()))
		}
		return brokerclient.Applied()
	}, brokerclient.SubscribeOptions{})
	for i := range 2 {
		if err := ca.Send(t.Context(), "", b.PeerID(), ping(t), brokerclient.SendOptions{}); err != nil {
			t.Errorf("send %d: %v", i+1, err)
		}
	}
	if calls.Load() != 3 {
		t.Errorf("%d calls, want the first event twice and the second once", calls.Load())
	}
}

func TestPublishReachesSubscribersOfTheTopic(t *testing.T) {
	a, _, ca, cb := pair(t)
	got := make(chan *brokerv1.Delivery, 4)
	subscribe(t, cb, &brokerv1.Open{Group: "test", Topics: []string{brokerclient.TopicMetrics}}, func(_ context.Context, d *brokerv1.Delivery) brokerclient.Answer {
		got <- d
		return brokerclient.Applied()
	}, brokerclient.SubscribeOptions{})
	ev, err := brokerclient.NewEvent(eventv1.EventType_EVENT_TYPE_METRIC_AVAILABLE, &eventv1.MetricAvailable{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ca.Publish(t.Context(), "", brokerclient.TopicAnnouncements, ping(t), true); err != nil {
		t.Fatal(err)
	}
	out, err := ca.Publish(t.Context(), "", brokerclient.TopicMetrics, ev, true)
	if err != nil || out.GetAuthor() != a.PeerID() {
		t.Fatalf("Publish = %v, %v", out, err)
	}
	d := wait(t, got, "the event")
	if d.GetEvent().GetId() != ev.GetId() || brokerclient.Verify(d.GetEvent()) != nil || d.GetTopic() != brokerclient.TopicMetrics {
		t.Errorf("got %v", d)
	}
}

func TestVerify(t *testing.T) {
	n := brokertest.NewNetwork()
	a, b := n.Add(), n.Add()
	good := a.SignEvent(ping(t))
	for _, c := range []struct {
		name   string
		change func(*eventv1.Event)
		want   error
	}{
		{"untouched", func(*eventv1.Event) {}, nil},
		{"another id", func(e *eventv1.Event) { e.Id = brokerclient.NewID() }, nil}, // not covered
		{"no signature", func(e *eventv1.Event) { e.Signature = nil }, brokerclient.ErrUnsigned},
		{"no author", func(e *eventv1.Event) { e.Author = "" }, brokerclient.ErrUnsigned},
		{"another author", func(e *eventv1.Event) { e.Author = b.PeerID() }, brokerclient.ErrSignature},
		{"another payload", func(e *eventv1.Event) { e.Payload = []byte{1} }, brokerclient.ErrSignature},
		{"another type", func(e *eventv1.Event) { e.Type = eventv1.EventType_EVENT_TYPE_DISCOVER }, brokerclient.ErrSignature},
		{"a cut signature", func(e *eventv1.Event) { e.Signature = e.GetSignature()[:63] }, brokerclient.ErrSignature},
		{"an author that is no key", func(e *eventv1.Event) { e.Author = "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG" }, brokerclient.ErrAuthorUnusable},
		{"an author that is no base58", func(e *eventv1.Event) { e.Author = "0OIl" }, brokerclient.ErrAuthorUnusable},
		{"an endless author", func(e *eventv1.Event) { e.Author = string(make([]byte, 1<<16)) }, brokerclient.ErrAuthorUnusable},
	} {
		ev := a.SignEvent(good)
		c.change(ev)
		if err := brokerclient.Verify(ev); !errors.Is(err, c.want) {
			t.Errorf("%s: Verify = %v, want %v", c.name, err, c.want)
		}
	}
}

func TestOutcomeUnknown(t *testing.T) {
	for _, c := range []struct {
		err  error
		want bool
	}{
		{nil, false},
		{fault.New(codes.InvalidArgument, brokerclient.ReasonRejected, "refused"), false},
		{fault.Unavailable(brokerclient.ReasonUnreachable, "nobody there"), false},
		{fault.Unavailable("STREAM_BROKEN", "broken"), true},
		{context.DeadlineExceeded, true},
		{errors.New("anything"), true},
	} {
		if got := brokerclient.OutcomeUnknown(c.err); got != c.want {
			t.Errorf("OutcomeUnknown(%v) = %v", c.err, got)
		}
	}
}
