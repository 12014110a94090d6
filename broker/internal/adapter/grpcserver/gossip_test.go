package grpcserver_test

import (
	"crypto/rand"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/shallot-net/shallot/broker/internal/adapter/metrics"
	"github.com/shallot-net/shallot/broker/internal/app"
	"github.com/shallot-net/shallot/broker/internal/testbroker"
	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/padding"
	brokerv1 "github.com/shallot-net/shallot/proto/shallot/broker/v1"
	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
)

const metricType = eventv1.EventType_EVENT_TYPE_METRIC_AVAILABLE

func hear(group string, topics ...string) *brokerv1.Open {
	return &brokerv1.Open{Group: group, Topics: topics}
}

// publish gossips until somebody hears it, each time something new: nobody hears the same twice.
func publish(t *testing.T, from *testbroker.Broker, heard func() bool) {
	t.Helper()
	testbroker.Eventually(t, "gossip is heard", func() bool {
		if _, err := from.Events.Publish(t.Context(), &brokerv1.PublishRequest{Topic: "metrics", Event: news(t), Sign: true}); err != nil {
			t.Fatal(err)
		}
		return heard()
	})
}

func news(t *testing.T) *eventv1.Event {
	return testbroker.EventOf(t, metricType, &eventv1.MetricAvailable{InReplyTo: rand.Text()})
}

// a and c know only b.
func TestGossipIsRelayed(t *testing.T) {
	t.Parallel()
	a, b, c := testbroker.Start(t, testbroker.Options{}), testbroker.Start(t, testbroker.Options{}), testbroker.Start(t, testbroker.Options{})
	a.Connect(b)
	c.Connect(b)
	ma, mb, mc := a.Subscribe(hear("metric", "metrics")), b.Subscribe(hear("metric", "metrics")), c.Subscribe(hear("metric", "metrics"))
	publish(t, a, func() bool { return len(mb.C) > 0 && len(mc.C) > 0 })
	d := mc.Next()
	if d.GetFromPeer() != b.ID || d.GetTopic() != "metrics" || d.GetEvent().GetAuthor() != a.ID {
		t.Errorf("got %v from %s, the relaying peer is %s and the author %s", d, d.GetFromPeer(), b.ID, a.ID)
	}
	if len(ma.C) > 0 {
		t.Error("a node hears its own gossip")
	}
	for _, n := range []*testbroker.Broker{a, b, c} {
		if got := n.Metric(metrics.Offences); got != 0 {
			t.Errorf("%v offences among honest nodes", got)
		}
	}
}

// What an anonymous broker gossips is padded to one size, and a message as ever to those that relay and hear it.
func TestGossipIsPadded(t *testing.T) {
	t.Parallel()
	a, b := testbroker.Start(t, testbroker.Options{Mode: app.ModeAnonymous}), testbroker.Start(t, testbroker.Options{})
	a.Connect(b)
	_, mb := a.Subscribe(hear("metric", "metrics")), b.Subscribe(hear("metric", "metrics"))
	publish(t, a, func() bool { return len(mb.C) > 0 })
	ev := mb.Next().GetEvent()
	var m eventv1.MetricAvailable
	if err := proto.Unmarshal(ev.GetPayload(), &m); err != nil || m.GetInReplyTo() == "" || len(ev.GetPayload()) != 1<<10 || !padding.Zero(m.GetPadding()) {
		t.Errorf("a payload of %d bytes came: %v", len(ev.GetPayload()), err)
	}
	if got := b.Metric(metrics.Offences); got != 0 {
		t.Errorf("%v offences", got)
	}
}

// Whoever connects hears within a few hundred milliseconds.
func TestGossipFlowsSoon(t *testing.T) {
	t.Parallel()
	a, b := testbroker.Start(t, testbroker.Options{}), testbroker.Start(t, testbroker.Options{})
	_, mb := a.Subscribe(hear("metric", "metrics")), b.Subscribe(hear("metric", "metrics"))
	a.Connect(b)
	begun := time.Now()
	publish(t, a, func() bool { return len(mb.C) > 0 })
	if took := time.Since(begun); took > 3*time.Second { // 0.4 s on a machine that does nothing else
		t.Errorf("it took %v", took)
	}
}

func TestGossipOneMemberOfAGroup(t *testing.T) {
	t.Parallel()
	a, b := pair(t, testbroker.Options{})
	m1, m2, other := b.Subscribe(hear("metric", "metrics")), b.Subscribe(hear("metric", "metrics")), b.Subscribe(hear("discovery", "metrics"))
	publish(t, a, func() bool { return len(m1.C) > 0 && len(m2.C) > 0 })
	testbroker.Eventually(t, "every group hears all", func() bool { return len(m1.C)+len(m2.C) == len(other.C) })
}

func TestPublishChecks(t *testing.T) {
	t.Parallel()
	a := testbroker.Start(t, testbroker.Options{})
	for reason, r := range map[string]*brokerv1.PublishRequest{
		"TOPIC_UNKNOWN": {Topic: "metric", Event: testbroker.EventOf(t, metricType, &eventv1.MetricAvailable{}), Sign: true},
		"EVENT_MISSING": {Topic: "metrics", Sign: true},
		"INVALID_EVENT": {Topic: "metrics", Event: testbroker.EventOf(t, metricType, &eventv1.MetricAvailable{})},
		"OPEN_MODE":     {Persona: "p", Topic: "metrics", Event: testbroker.EventOf(t, metricType, &eventv1.MetricAvailable{}), Sign: true},
	} {
		_, err := a.Events.Publish(t.Context(), r)
		if f := fault.From(err); f == nil || f.Reason != reason {
			t.Errorf("got %v, want %s", err, reason)
		}
	}
	r, err := a.Events.Publish(t.Context(), &brokerv1.PublishRequest{Topic: "metrics", Event: testbroker.EventOf(t, metricType, &eventv1.MetricAvailable{}), Sign: true})
	if err != nil || r.GetEvent().GetAuthor() != a.ID || len(r.GetEvent().GetSignature()) != 64 {
		t.Errorf("alone: %v %v", r, err)
	}
	again, err := a.Events.Publish(t.Context(), &brokerv1.PublishRequest{Topic: "metrics", Event: testbroker.EventOf(t, metricType, &eventv1.MetricAvailable{}), Sign: true})
	if err != nil || !proto.Equal(again.GetEvent(), r.GetEvent()) {
		t.Errorf("one payload went out as %v and as %v, %v", r, again, err)
	}
	attached := testbroker.EventOf(t, metricType, &eventv1.MetricAvailable{})
	attached.Attachment = []byte("anything")
	if _, err := a.Events.Publish(t.Context(), &brokerv1.PublishRequest{Topic: "metrics", Event: attached, Sign: true}); fault.From(err).Meta["problem"] != "NOT_CANONICAL" {
		t.Errorf("with an attachment: %v", err)
	}
	signed, err := a.Events.Sign(t.Context(), &brokerv1.SignRequest{Event: r.GetEvent()})
	if err != nil || string(signed.GetEvent().GetSignature()) != string(r.GetEvent().GetSignature()) {
		t.Errorf("the same event is signed differently: %v %v", signed, err)
	}
	_, err = a.Events.Sign(t.Context(), &brokerv1.SignRequest{Event: &eventv1.Event{Id: "x"}})
	if f := fault.From(err); f == nil || f.Code != codes.InvalidArgument {
		t.Errorf("got %v", err)
	}
}
