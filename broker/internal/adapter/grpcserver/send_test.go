package grpcserver_test

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/shallot-net/shallot/broker/internal/adapter/metrics"
	"github.com/shallot-net/shallot/broker/internal/app"
	"github.com/shallot-net/shallot/broker/internal/testbroker"
	brokerv1 "github.com/shallot-net/shallot/proto/shallot/broker/v1"
	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
)

func TestUnreachable(t *testing.T) {
	t.Parallel()
	from, to := testbroker.Start(t, testbroker.Options{Config: func(c *app.Config) { c.Limits.Grace = 50 * time.Millisecond }}), testbroker.Start(t, testbroker.Options{})
	s := from.Sender()
	wantReason(t, testbroker.Answer(t, s.Go(to.ID, testbroker.Event(t, log), false, 0)), "UNREACHABLE")
	// With an address it is tried until the time is up.
	to.Stop()
	if _, err := from.Network.Connect(t.Context(), &brokerv1.ConnectRequest{Addresses: to.Addrs, RememberOnly: true}); err != nil {
		t.Fatal(err)
	}
	wantReason(t, testbroker.Answer(t, s.Go(to.ID, testbroker.Event(t, log), false, 100*time.Millisecond)), "UNREACHABLE")
	wantReason(t, testbroker.Answer(t, s.Go("12D3KooWnonsense", testbroker.Event(t, log), false, 0)), "PEER_ID_INVALID")
	wantReason(t, testbroker.Answer(t, s.Go(from.ID, testbroker.Event(t, log), false, 0)), "PEER_IS_SELF")
	wantReason(t, testbroker.Answer(t, s.Go(to.ID, testbroker.Event(t, log), false, time.Hour)), "TIMEOUT_INVALID")
}

func TestRememberedPeerIsDialled(t *testing.T) {
	t.Parallel()
	from, to := testbroker.Start(t, testbroker.Options{}), testbroker.Start(t, testbroker.Options{})
	m := to.Subscribe(testbroker.Open("node", log))
	answer := from.Sender().Go(to.ID, testbroker.Event(t, log), false, 0) // the address comes a moment later
	if _, err := from.Network.Connect(t.Context(), &brokerv1.ConnectRequest{Addresses: to.Addrs, RememberOnly: true}); err != nil {
		t.Fatal(err)
	}
	m.Ack(m.Next(), ok, "")
	wantReason(t, testbroker.Answer(t, answer), "")
}

// A peer that can only be answered on the connection that it made itself.
func TestAnswerOnTheSendersConnection(t *testing.T) {
	t.Parallel()
	consumer, provider := testbroker.Start(t, testbroker.Options{Listen: []string{}}), testbroker.Start(t, testbroker.Options{})
	if len(consumer.Addrs) > 0 {
		t.Fatalf("it listens on %v", consumer.Addrs)
	}
	consumer.Connect(provider)
	m := consumer.Subscribe(testbroker.Open("node", log))
	answer := provider.Sender().Go(consumer.ID, testbroker.Event(t, log), false, 0)
	m.Ack(m.Next(), ok, "")
	wantReason(t, testbroker.Answer(t, answer), "")
}

func TestSendChecksEnvelopes(t *testing.T) {
	t.Parallel()
	from, to := pair(t, testbroker.Options{})
	s := from.Sender()
	submission := eventv1.EventType_EVENT_TYPE_TASK_SUBMISSION
	for problem, change := range map[string]func(*eventv1.Event){
		"BAD_ID":        func(e *eventv1.Event) { e.Id = "x" },
		"UNKNOWN_TYPE":  func(e *eventv1.Event) { e.Type = 4711 },
		"BAD_PAYLOAD":   func(e *eventv1.Event) { e.Payload = []byte{0xff} },
		"OVERSIZED":     func(e *eventv1.Event) { e.Attachment = make([]byte, 256<<10) },
		"UNSIGNED":      func(e *eventv1.Event) { e.Type = submission },
		"BAD_SIGNATURE": func(e *eventv1.Event) { e.Author, e.Signature = from.ID, make([]byte, 64) },
		"BAD_AUTHOR":    func(e *eventv1.Event) { e.Author, e.Signature = "nobody", make([]byte, 64) },
	} {
		e := testbroker.Event(t, log)
		change(e)
		f := testbroker.Answer(t, s.Go(to.ID, e, false, 0))
		wantReason(t, f, "INVALID_EVENT")
		if f.GetMeta()["problem"] != problem || codes.Code(f.GetCode()) != codes.InvalidArgument {
			t.Errorf("%s: got %v", problem, f)
		}
	}
	wantReason(t, testbroker.Answer(t, s.Go(to.ID, nil, false, 0)), "EVENT_MISSING")
	if got := to.Metric(metrics.Offences); got != 0 {
		t.Errorf("%v offences are held against a node whose service was wrong", got)
	}
}

func TestSameEventTwice(t *testing.T) {
	t.Parallel()
	from, to := pair(t, testbroker.Options{})
	m := to.Subscribe(testbroker.Open("node", log))
	e := testbroker.Event(t, log)
	s1, s2 := from.Sender(), from.Sender()
	a1, a2 := s1.Go(to.ID, e, false, 0), s2.Go(to.ID, e, false, 0)
	d := m.Next()
	testbroker.Eventually(t, "one event waits", func() bool { return from.Metric(metrics.Pending, "out") == 1 })
	m.Ack(d, ok, "")
	wantReason(t, testbroker.Answer(t, a1), "")
	wantReason(t, testbroker.Answer(t, a2), "")
	if len(m.C) > 0 {
		t.Error("it was delivered twice")
	}
}

func TestBacklogIsBounded(t *testing.T) {
	t.Parallel()
	from, to := pair(t, testbroker.Options{Config: func(c *app.Config) { c.Limits.OutWaiting = 10 }})
	m := to.Subscribe(testbroker.Open("node", log))
	s := from.Sender()
	var answers []<-chan *eventv1.Fault
	for range 10 {
		answers = append(answers, s.Go(to.ID, testbroker.Event(t, log), false, 0))
	}
	wantReason(t, testbroker.Answer(t, s.Go(to.ID, testbroker.Event(t, log), false, 0)), "BACKLOG_FULL")
	for _, c := range answers {
		m.Ack(m.Next(), ok, "")
		wantReason(t, testbroker.Answer(t, c), "")
	}
	wantReason(t, func() *eventv1.Fault {
		c := s.Go(to.ID, testbroker.Event(t, log), false, 0)
		m.Ack(m.Next(), ok, "")
		return testbroker.Answer(t, c)
	}(), "")
}

// Streams end when they have nothing to carry, and begin again.
func TestIdleStreamsEnd(t *testing.T) {
	t.Parallel()
	from, to := pair(t, testbroker.Options{Config: func(c *app.Config) { c.Limits.IdleAfter = 30 * time.Millisecond }})
	m := to.Subscribe(testbroker.Open("node", log))
	s := from.Sender()
	for i := range 3 {
		answer := s.Go(to.ID, testbroker.Event(t, log), false, 0)
		m.Ack(m.Next(), ok, "")
		wantReason(t, testbroker.Answer(t, answer), "")
		testbroker.Eventually(t, fmt.Sprintf("stream %d ends", i), func() bool {
			return from.Metric(metrics.Streams, "out") == 0 && to.Metric(metrics.Streams, "in") == 0
		})
	}
	if got := from.Metric(metrics.StreamResets) + to.Metric(metrics.StreamResets); got != 0 {
		t.Errorf("%v streams are counted as broken", got)
	}
}
