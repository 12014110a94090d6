package broker

import (
	"context"
	"crypto/rand"
	"strings"

	"github.com/shallot-net/shallot/kit/brokerclient"
	"github.com/shallot-net/shallot/kit/lifecycle"
	brokerv1 "github.com/shallot-net/shallot/proto/shallot/broker/v1"
	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	"github.com/shallot-net/shallot/services/metric/internal/app"
	"github.com/shallot-net/shallot/services/metric/internal/domain"
)

const (
	persona = ""       // the node's own
	group   = "metric" // this service's consumer group
)

// Broker is an app.Events over a client, as the node's own persona.
type Broker struct {
	client *brokerclient.Client
}

var _ app.Events = (*Broker)(nil)

// New speaks through client.
func New(client *brokerclient.Client) *Broker { return &Broker{client} }

// Whoami has the broker sign a ping, which says nothing, for the author that it then names: metric has no other business
// with the broker's network service.
func (b *Broker) Whoami(ctx context.Context) (string, error) {
	ev, err := brokerclient.NewEvent(eventv1.EventType_EVENT_TYPE_PING, &eventv1.Ping{})
	if err != nil {
		return "", err
	}
	if ev, err = b.client.Sign(ctx, persona, ev); err != nil {
		return "", err
	}
	return ev.GetAuthor(), nil
}

// Publish gossips a metric.
func (b *Broker) Publish(ctx context.Context, m domain.Metric) error {
	ev, err := event(m, "")
	if err != nil {
		return err
	}
	_, err = b.client.Publish(ctx, persona, brokerclient.TopicMetrics, ev, true)
	return err
}

// SendQuery asks a peer.
func (b *Broker) SendQuery(ctx context.Context, peerID, id string) error {
	ev, err := brokerclient.NewEvent(eventv1.EventType_EVENT_TYPE_METRIC_QUERY, &eventv1.MetricQuery{})
	if err != nil {
		return err
	}
	ev.Id = id
	return b.client.Send(ctx, persona, peerID, ev, brokerclient.SendOptions{})
}

// SendMetric answers a peer.
func (b *Broker) SendMetric(ctx context.Context, peerID, inReplyTo string, m domain.Metric) error {
	ev, err := event(m, inReplyTo)
	if err != nil {
		return err
	}
	return b.client.Send(ctx, persona, peerID, ev, brokerclient.SendOptions{Sign: true})
}

func event(m domain.Metric, inReplyTo string) (*eventv1.Event, error) {
	return brokerclient.NewEvent(eventv1.EventType_EVENT_TYPE_METRIC_AVAILABLE, &eventv1.MetricAvailable{Metric: Encode(m), InReplyTo: inReplyTo})
}

// Listen hands what the broker delivers to the service until ctx ends. state is told when the broker is there and when
// it is lost.
func (b *Broker) Listen(ctx context.Context, s *app.Service, state func(up bool)) error {
	return b.subscribe(ctx, s, group, heard, append([]eventv1.EventType{asked}, answers...), state)
}

// ListenBeside is Listen for one of several replicas: each hears what others tell and answer, since any of them may have asked, and the one that leads is asked.
func (b *Broker) ListenBeside(ctx context.Context, s *app.Service, state func(up bool)) error {
	return lifecycle.Run(ctx, func(ctx context.Context) error {
		return b.subscribe(ctx, s, group+"-"+strings.ToLower(rand.Text()), heard, answers, state)
	}, func(ctx context.Context) error {
		return s.While(ctx, func(ctx context.Context) error {
			return b.subscribe(ctx, s, group, nil, []eventv1.EventType{asked}, func(bool) {})
		})
	})
}

const asked = eventv1.EventType_EVENT_TYPE_METRIC_QUERY

var (
	heard   = []string{brokerclient.TopicMetrics}
	answers = []eventv1.EventType{eventv1.EventType_EVENT_TYPE_METRIC_AVAILABLE}
)

func (b *Broker) subscribe(ctx context.Context, s *app.Service, group string, topics []string, types []eventv1.EventType, state func(up bool)) error {
	handle := func(_ context.Context, d *brokerv1.Delivery) brokerclient.Answer { return Handle(s, d) }
	return b.client.Subscribe(ctx, &brokerv1.Open{Group: group, Topics: topics, Types: types}, handle, brokerclient.SubscribeOptions{Workers: 16, OnState: func(up bool, _ error) {
		if up {
			s.Connected()
		}
		state(up)
	}})
}

// Handle judges one delivery.
func Handle(s *app.Service, d *brokerv1.Delivery) brokerclient.Answer {
	switch d.GetEvent().GetType() {
	case eventv1.EventType_EVENT_TYPE_METRIC_QUERY:
		return answer(s.HandleQuery(d.GetFromPeer(), d.GetEvent().GetId()))
	case eventv1.EventType_EVENT_TYPE_METRIC_AVAILABLE:
		m, inReplyTo, err := Hear(d.GetEvent())
		if err != nil {
			return brokerclient.Rejected(reason(err))
		}
		return answer(s.HandleMetric(d.GetFromPeer(), inReplyTo, m))
	}
	return brokerclient.Ignored("TYPE_UNKNOWN")
}

func answer(v app.Verdict) brokerclient.Answer {
	switch v {
	case app.Ignored:
		return brokerclient.Ignored("")
	case app.Retry:
		return brokerclient.Retry("BUSY")
	}
	return brokerclient.Applied()
}
