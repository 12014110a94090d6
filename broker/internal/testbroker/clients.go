package testbroker

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/shallot-net/shallot/kit/brokerclient"
	brokerv1 "github.com/shallot-net/shallot/proto/shallot/broker/v1"
	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
)

// Patience is how long a test waits for what must happen.
const Patience = 20 * time.Second

// Event makes an event of a type with some payload that decodes.
func Event(t testing.TB, typ eventv1.EventType) *eventv1.Event {
	t.Helper()
	return EventOf(t, typ, &eventv1.TaskLog{TaskId: "t"})
}

// EventOf makes an event with a payload; protobuf decodes nearly anything as anything.
func EventOf(t testing.TB, typ eventv1.EventType, m proto.Message) *eventv1.Event {
	t.Helper()
	e, err := brokerclient.NewEvent(typ, m)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// Member is a member of a group that acknowledges when it is told to.
type Member struct {
	C      chan *brokerv1.Delivery
	t      testing.TB
	stream brokerv1.EventService_SubscribeClient
	cancel context.CancelFunc
	ended  chan struct{}
	mu     sync.Mutex
}

// Subscribe adds a member, over a connection of its own.
func (b *Broker) Subscribe(open *brokerv1.Open) *Member {
	b.t.Helper()
	ctx, cancel := context.WithCancel(b.t.Context())
	stream, err := brokerv1.NewEventServiceClient(b.Dial()).Subscribe(ctx) //nolint:forbidigo // a service's place is taken by the test
	if err != nil {
		b.t.Fatal(err)
	}
	m := &Member{C: make(chan *brokerv1.Delivery, 16384), t: b.t, stream: stream, cancel: cancel, ended: make(chan struct{})}
	if err := stream.Send(&brokerv1.SubscribeRequest{Request: &brokerv1.SubscribeRequest_Open{Open: open}}); err != nil {
		b.t.Fatal(err)
	}
	if r, err := stream.Recv(); err != nil || r.GetOpened() == nil {
		b.t.Fatalf("subscribe: %v %v", r, err)
	}
	go func() {
		defer close(m.ended)
		for {
			r, err := stream.Recv()
			if err != nil {
				return
			}
			m.C <- r.GetDelivery()
		}
	}()
	b.t.Cleanup(m.Leave)
	return m
}

// Next waits for the next delivery.
func (m *Member) Next() *brokerv1.Delivery {
	m.t.Helper()
	select {
	case d := <-m.C:
		return d
	case <-time.After(Patience):
		m.t.Fatalf("no delivery came")
		return nil
	}
}

// Ack acknowledges.
func (m *Member) Ack(d *brokerv1.Delivery, v brokerv1.Verdict, reason string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	_ = m.stream.Send(&brokerv1.SubscribeRequest{Request: &brokerv1.SubscribeRequest_Ack{Ack: &brokerv1.Ack{DeliveryId: d.GetDeliveryId(), Verdict: v, Reason: reason}}})
}

// Leave ends the member as a crash would.
func (m *Member) Leave() {
	m.cancel()
	<-m.ended
}

// Sender is one Send stream.
type Sender struct {
	t      testing.TB
	stream brokerv1.EventService_SendClient
	mu     sync.Mutex
	seq    uint64
	wait   map[uint64]chan *eventv1.Fault
}

// Sender opens a Send stream, over a connection of its own.
func (b *Broker) Sender() *Sender {
	b.t.Helper()
	ctx, cancel := context.WithCancel(b.t.Context())
	stream, err := brokerv1.NewEventServiceClient(b.Dial()).Send(ctx) //nolint:forbidigo // a service's place is taken by the test
	if err != nil {
		b.t.Fatal(err)
	}
	s := &Sender{t: b.t, stream: stream, wait: make(map[uint64]chan *eventv1.Fault)}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			r, err := stream.Recv()
			if err != nil {
				return
			}
			s.mu.Lock()
			c := s.wait[r.GetSeq()]
			delete(s.wait, r.GetSeq())
			s.mu.Unlock()
			if c == nil {
				s.t.Errorf("an answer to the request %d, which is not open", r.GetSeq())
				continue
			}
			c <- r.GetFault()
		}
	}()
	b.t.Cleanup(func() { cancel(); <-ended })
	return s
}

// Go sends; the answer comes on the channel.
func (s *Sender) Go(peer string, e *eventv1.Event, sign bool, timeout time.Duration) <-chan *eventv1.Fault {
	s.t.Helper()
	c := make(chan *eventv1.Fault, 1)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seq++
	s.wait[s.seq] = c
	r := &brokerv1.SendRequest{Seq: s.seq, PeerId: peer, Event: e, Sign: sign}
	if timeout > 0 {
		r.Timeout = durationpb.New(timeout)
	}
	if err := s.stream.Send(r); err != nil {
		s.t.Errorf("send: %v", err)
	}
	return c
}

// Answer waits for one.
func Answer(t testing.TB, c <-chan *eventv1.Fault) *eventv1.Fault {
	t.Helper()
	select {
	case f := <-c:
		return f
	case <-time.After(Patience):
		t.Fatal("no answer came")
		return nil
	}
}

// Reason is "" for none.
func Reason(f *eventv1.Fault) string { return f.GetReason() }

// Eventually waits until a condition holds.
func Eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(Patience); !cond(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("it did not come to this: %s", what)
		}
	}
}

// Metric is the sum of a metric's values whose labels contain all of the given values.
func (b *Broker) Metric(name string, labels ...string) float64 {
	b.t.Helper()
	families, err := b.Registry.Gather()
	if err != nil {
		b.t.Fatal(err)
	}
	sum := 0.0
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
	metrics:
		for _, m := range f.GetMetric() {
			for _, want := range labels {
				found := false
				for _, l := range m.GetLabel() {
					found = found || l.GetValue() == want
				}
				if !found {
					continue metrics
				}
			}
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return sum
}

// Open is the subscription of a group to directed events.
func Open(group string, types ...eventv1.EventType) *brokerv1.Open {
	return &brokerv1.Open{Group: group, Types: types}
}

// Name numbers a task log, to tell events apart.
func Name(n int) *eventv1.TaskLog { return &eventv1.TaskLog{TaskId: fmt.Sprint(n)} }

// Named reads the number.
func Named(t testing.TB, e *eventv1.Event) int {
	t.Helper()
	var m eventv1.TaskLog
	if err := proto.Unmarshal(e.GetPayload(), &m); err != nil {
		t.Fatal(err)
	}
	var n int
	if _, err := fmt.Sscan(m.GetTaskId(), &n); err != nil {
		t.Fatal(err)
	}
	return n
}
