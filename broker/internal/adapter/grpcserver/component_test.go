package grpcserver_test

import (
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/shallot-net/shallot/broker/internal/adapter/metrics"
	"github.com/shallot-net/shallot/broker/internal/app"
	"github.com/shallot-net/shallot/broker/internal/domain/delivery"
	"github.com/shallot-net/shallot/broker/internal/testbroker"
	brokerv1 "github.com/shallot-net/shallot/proto/shallot/broker/v1"
	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
)

const (
	log      = eventv1.EventType_EVENT_TYPE_TASK_LOG
	ok       = brokerv1.Verdict_VERDICT_UNSPECIFIED
	rejected = brokerv1.Verdict_VERDICT_REJECTED
	retry    = brokerv1.Verdict_VERDICT_RETRY
)

// pair starts two connected brokers.
func pair(t testing.TB, o testbroker.Options) (from, to *testbroker.Broker) {
	t.Helper()
	from, to = testbroker.Start(t, o), testbroker.Start(t, o)
	from.Connect(to)
	return from, to
}

func wantReason(t testing.TB, f *eventv1.Fault, want string) {
	t.Helper()
	if f.GetReason() != want {
		t.Errorf("the answer is %q (%s), want %q", f.GetReason(), f.GetMessage(), want)
	}
}

func TestAcknowledgementIsNeverEarly(t *testing.T) {
	t.Parallel()
	from, to := pair(t, testbroker.Options{})
	m := to.Subscribe(testbroker.Open("node", log))
	s := from.Sender()
	const n = 300
	var acked sync.Map
	go func() {
		for d := range m.C {
			acked.Store(d.GetEvent().GetId(), true)
			m.Ack(d, ok, "")
		}
	}()
	var wg sync.WaitGroup
	for range n {
		e := testbroker.Event(t, log)
		answer := s.Go(to.ID, e, false, 0)
		wg.Go(func() {
			wantReason(t, testbroker.Answer(t, answer), "")
			if _, ok := acked.Load(e.GetId()); !ok {
				t.Error("an event was answered before the service acknowledged it")
			}
		})
	}
	wg.Wait()
}

func TestDeliverySaysWhoSentWhat(t *testing.T) {
	t.Parallel()
	from, to := pair(t, testbroker.Options{})
	m := to.Subscribe(testbroker.Open("node", log))
	e := testbroker.Event(t, log)
	e.Attachment = []byte("attached")
	answer := from.Sender().Go(to.ID, e, true, 0)
	d := m.Next()
	got := d.GetEvent()
	if d.GetFromPeer() != from.ID || d.GetTopic() != "" || d.GetPersona() != "" || d.GetRedelivered() || got.GetId() != e.GetId() || got.GetAuthor() != from.ID ||
		len(got.GetSignature()) != 64 || string(got.GetPayload()) != string(e.GetPayload()) || string(got.GetAttachment()) != "attached" {
		t.Errorf("got %v", d)
	}
	select {
	case f := <-answer:
		t.Errorf("answered before it was acknowledged: %v", f)
	default:
	}
	m.Ack(d, ok, "")
	wantReason(t, testbroker.Answer(t, answer), "")
	if got := to.Metric(metrics.Events, "task_log", "in", "acknowledged"); got != 1 {
		t.Errorf("%v events are counted", got)
	}
	testbroker.Eventually(t, "it is counted at the sender", func() bool { return from.Metric(metrics.Events, "task_log", "out", "acknowledged") == 1 })
}

func TestVerdicts(t *testing.T) {
	t.Parallel()
	from, to := pair(t, testbroker.Options{})
	m := to.Subscribe(testbroker.Open("node", log))
	s := from.Sender()
	answer := s.Go(to.ID, testbroker.Event(t, log), false, 0)
	m.Ack(m.Next(), rejected, "BAD_LIMITS")
	f := testbroker.Answer(t, answer)
	wantReason(t, f, "REJECTED")
	if f.GetMeta()["reason"] != "BAD_LIMITS" || codes.Code(f.GetCode()) != codes.FailedPrecondition {
		t.Errorf("got %v", f)
	}
	answer = s.Go(to.ID, testbroker.Event(t, log), false, 0)
	m.Ack(m.Next(), rejected, "cannot open /home/somebody/db")
	if f := testbroker.Answer(t, answer); f.GetMeta()["reason"] != "UNSPECIFIED" {
		t.Errorf("what a service lets slip is told to others: %v", f)
	}
	answer = s.Go(to.ID, testbroker.Event(t, log), false, 0)
	m.Ack(m.Next(), retry, "")
	d := m.Next()
	if !d.GetRedelivered() {
		t.Error("the second delivery does not say so")
	}
	m.Ack(d, brokerv1.Verdict_VERDICT_IGNORED, "")
	wantReason(t, testbroker.Answer(t, answer), "")
	testbroker.Eventually(t, "refusals are held against the sender", func() bool { return to.Metric(metrics.Offences, "rejected") == 2 })
}

// TestMisconduct: what a service says is no mistake costs its sender the connection, and who sent it is not told more than that it was rejected.
func TestMisconduct(t *testing.T) {
	t.Parallel()
	from, to := pair(t, testbroker.Options{})
	m := to.Subscribe(testbroker.Open("node", log))
	from.Sender().Go(to.ID, testbroker.Event(t, log), false, 0)
	m.Ack(m.Next(), brokerv1.Verdict_VERDICT_MISCONDUCT, "PUZZLE_INVALID")
	testbroker.Eventually(t, "the sender is cut off", func() bool {
		return to.Metric(metrics.Offences, "cheated") == 1 && to.Metric(metrics.Offences, "cut_off") == 1 && to.Metric(metrics.Offences, "rejected") == 0
	})
}

func TestRedelivery(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]func(m *testbroker.Member){
		"death":   func(m *testbroker.Member) { m.Leave() },
		"timeout": func(*testbroker.Member) {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			from, to := pair(t, testbroker.Options{})
			open := testbroker.Open("node", log)
			open.AckTimeout = durationpb.New(200 * time.Millisecond)
			first, second := to.Subscribe(open), to.Subscribe(open)
			answer := from.Sender().Go(to.ID, testbroker.Event(t, log), false, 0)
			select { // either may have it
			case <-first.C:
			case <-second.C:
				first, second = second, first
			}
			lose(first)
			d := second.Next()
			if !d.GetRedelivered() {
				t.Error("the second delivery does not say so")
			}
			second.Ack(d, ok, "")
			wantReason(t, testbroker.Answer(t, answer), "")
		})
	}
}

func TestNoAcknowledgement(t *testing.T) {
	t.Parallel()
	from, to := pair(t, testbroker.Options{})
	open := testbroker.Open("node", log)
	open.AckTimeout = durationpb.New(50 * time.Millisecond)
	m := to.Subscribe(open)
	s := from.Sender()
	e := testbroker.Event(t, log)
	wantReason(t, testbroker.Answer(t, s.Go(to.ID, e, false, 0)), "ACK_TIMEOUT")
	m.Next()
	m.Leave()
	m = to.Subscribe(testbroker.Open("node", log))
	// Sent again it is delivered again: whether the service has it is not known.
	answer := s.Go(to.ID, e, false, 0)
	m.Ack(m.Next(), ok, "")
	wantReason(t, testbroker.Answer(t, answer), "")
	// Once more it is recognised.
	wantReason(t, testbroker.Answer(t, s.Go(to.ID, e, false, 0)), "")
	if len(m.C) > 0 {
		t.Error("an event that was acknowledged is delivered again")
	}
}

func TestNobodySubscribes(t *testing.T) {
	t.Parallel()
	linger := func(d time.Duration) testbroker.Options {
		return testbroker.Options{Config: func(c *app.Config) { c.Delivery = delivery.Config{Linger: d} }}
	}
	from, to := pair(t, linger(50*time.Millisecond))
	wantReason(t, testbroker.Answer(t, from.Sender().Go(to.ID, testbroker.Event(t, log), false, 0)), "NO_SUBSCRIBER")

	// A service that is back in time gets it.
	from, to = pair(t, linger(testbroker.Patience))
	answer := from.Sender().Go(to.ID, testbroker.Event(t, log), false, testbroker.Patience)
	testbroker.Eventually(t, "the event waits", func() bool { return to.Metric(metrics.Pending, "in") == 1 })
	m := to.Subscribe(testbroker.Open("node", log))
	m.Ack(m.Next(), ok, "")
	wantReason(t, testbroker.Answer(t, answer), "")
}

func TestOrder(t *testing.T) {
	t.Parallel()
	from, to := pair(t, testbroker.Options{})
	m := to.Subscribe(testbroker.Open("node", log))
	s := from.Sender()
	const n = 2000
	go func() {
		for i := range n {
			s.Go(to.ID, testbroker.EventOf(t, log, testbroker.Name(i)), false, 0)
		}
	}()
	for i := range n {
		d := m.Next()
		if got := testbroker.Named(t, d.GetEvent()); got != i {
			t.Fatalf("event %d came when %d was due", got, i)
		}
		m.Ack(d, ok, "")
	}
}

// The connection breaks again and again while events are under way: every one of them is delivered once, in order, and acknowledged.
func TestBrokenConnections(t *testing.T) {
	t.Parallel()
	from, to := pair(t, testbroker.Options{})
	m := to.Subscribe(testbroker.Open("node", log))
	s := from.Sender()
	const n = 1500
	answers := make(chan (<-chan *eventv1.Fault), n)
	go func() {
		defer close(answers)
		for i := range n {
			answers <- s.Go(to.ID, testbroker.EventOf(t, log, testbroker.Name(i)), false, testbroker.Patience)
		}
	}()
	breaks := 0
	for i := range n {
		d := m.Next()
		if got := testbroker.Named(t, d.GetEvent()); got != i {
			t.Fatalf("event %d came when %d was due, after %d breaks", got, i, breaks)
		}
		m.Ack(d, ok, "")
		if i%60 == 59 {
			breaks++
			if _, err := from.Network.Disconnect(t.Context(), &brokerv1.DisconnectRequest{PeerId: to.ID}); err != nil {
				t.Fatal(err)
			}
		}
	}
	for c := range answers {
		wantReason(t, testbroker.Answer(t, c), "")
	}
	if len(m.C) > 0 {
		t.Errorf("%d events came twice", len(m.C))
	}
	t.Logf("%d breaks, %v events sent again", breaks, to.Metric(metrics.Events, "repeated"))
}

// The receiving broker restarts in the middle: what it had not acknowledged arrives at its successor.
func TestReceiverRestarts(t *testing.T) {
	t.Parallel()
	from, to := pair(t, testbroker.Options{})
	m := to.Subscribe(testbroker.Open("node", log))
	s := from.Sender()
	answer := s.Go(to.ID, testbroker.Event(t, log), false, testbroker.Patience)
	d := m.Next()
	addr := to.Addrs[0]
	to.Stop()
	late := s.Go(to.ID, testbroker.Event(t, log), false, testbroker.Patience)
	again := testbroker.Start(t, testbroker.Options{Dir: to.Dir, Listen: []string{addr[:len(addr)-len("/p2p/"+to.ID)]}})
	if again.ID != to.ID {
		t.Fatalf("the identity changed from %s to %s", to.ID, again.ID)
	}
	m = again.Subscribe(testbroker.Open("node", log))
	for i := range 2 {
		got := m.Next()
		if i == 0 && got.GetEvent().GetId() != d.GetEvent().GetId() {
			t.Error("the events came in another order")
		}
		m.Ack(got, ok, "")
	}
	wantReason(t, testbroker.Answer(t, answer), "")
	wantReason(t, testbroker.Answer(t, late), "")
}

func TestSlowSubscriberHoldsTheSender(t *testing.T) {
	t.Parallel()
	limits := testbroker.Options{Config: func(c *app.Config) { c.Limits = app.Limits{InEvents: 16, OutEvents: 64} }}
	from, to := pair(t, limits)
	open := testbroker.Open("node", log)
	open.MaxInFlight = 4
	m := to.Subscribe(open)
	s := from.Sender()
	const n = 500
	answers := make([]<-chan *eventv1.Fault, n)
	for i := range n {
		e := testbroker.EventOf(t, log, testbroker.Name(i))
		e.Attachment = make([]byte, 16<<10)
		answers[i] = s.Go(to.ID, e, false, testbroker.Patience)
	}
	testbroker.Eventually(t, "the receiver's window is full", func() bool { return to.Metric(metrics.Pending, "in") == 16 })
	testbroker.Eventually(t, "the rest waits at the sender", func() bool { return from.Metric(metrics.Pending, "out") == n })
	if len(m.C) > 4 {
		t.Errorf("a member that takes 4 has %d", len(m.C))
	}
	// A second sender is not held up by the first.
	other := testbroker.Start(t, limits)
	other.Connect(to)
	answer := other.Sender().Go(to.ID, testbroker.EventOf(t, log, testbroker.Name(-1)), false, testbroker.Patience)
	testbroker.Eventually(t, "the second sender's event is there", func() bool { return to.Metric(metrics.Pending, "in") == 17 })
	seen, next := false, 0
	for range n + 1 {
		d := m.Next()
		if got := testbroker.Named(t, d.GetEvent()); got == -1 {
			seen = true
			if next > 32 {
				t.Errorf("the second sender had to wait for %d events of the first", next)
			}
		} else if got != next {
			t.Fatalf("event %d came when %d was due", got, next)
		} else {
			next++
		}
		if got := to.Metric(metrics.Pending, "in"); got > 32 {
			t.Fatalf("%v events wait at the receiver", got)
		}
		m.Ack(d, ok, "")
	}
	for _, c := range append(answers, answer) {
		wantReason(t, testbroker.Answer(t, c), "")
	}
	if !seen {
		t.Error("the second sender's event never came")
	}
}

// 100 callers with 64 events in flight each, through one broker and then from 16 brokers: nothing is reset.
func TestManyCallers(t *testing.T) {
	to := testbroker.Start(t, testbroker.Options{})
	m := to.Subscribe(testbroker.Open("node", log))
	go func() {
		for d := range m.C {
			m.Ack(d, ok, "")
		}
	}()
	calls := func(from *testbroker.Broker, n int) {
		s := from.Sender()
		answers := make([]<-chan *eventv1.Fault, n)
		for i := range answers {
			answers[i] = s.Go(to.ID, testbroker.Event(t, log), false, testbroker.Patience)
		}
		for _, c := range answers {
			wantReason(t, testbroker.Answer(t, c), "")
		}
	}
	one := testbroker.Start(t, testbroker.Options{})
	one.Connect(to)
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() { calls(one, 64) })
	}
	wg.Wait()
	many := make([]*testbroker.Broker, 16)
	for i := range many {
		many[i] = testbroker.Start(t, testbroker.Options{})
		many[i].Connect(to)
	}
	for _, from := range many {
		wg.Go(func() { calls(from, 64) })
	}
	wg.Wait()
	for _, b := range append(many, one, to) {
		if got := b.Metric(metrics.StreamResets); got != 0 {
			t.Errorf("%v streams were reset", got)
		}
	}
}
