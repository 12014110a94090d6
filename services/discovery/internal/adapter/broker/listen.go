package broker

import (
	"context"
	"errors"

	"google.golang.org/protobuf/proto"

	"github.com/shallot-net/shallot/kit/brokerclient"
	brokerv1 "github.com/shallot-net/shallot/proto/shallot/broker/v1"
	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	"github.com/shallot-net/shallot/services/discovery/internal/app"
	"github.com/shallot-net/shallot/services/discovery/internal/domain"
)

// group is discovery's consumer group at the broker.
const group = "discovery"

const (
	maxTypes   = 64 // types that a Discover may ask for
	maxAnswers = 64 // announcements that an answer may hold
)

// Listen hands what the broker delivers to the service until ctx ends. state is told when the broker is there and when
// it is lost.
func (b *Broker) Listen(ctx context.Context, s *app.Service, state func(up bool)) error {
	open := &brokerv1.Open{Group: group, Topics: []string{brokerclient.TopicAnnouncements}, Types: []eventv1.EventType{
		eventv1.EventType_EVENT_TYPE_ANNOUNCEMENT, eventv1.EventType_EVENT_TYPE_DISCOVER,
		eventv1.EventType_EVENT_TYPE_DISCOVER_RESPONSE, eventv1.EventType_EVENT_TYPE_PING,
	}}
	handle := func(_ context.Context, d *brokerv1.Delivery) brokerclient.Answer { return Handle(s, d) }
	return b.client.Subscribe(ctx, open, handle, brokerclient.SubscribeOptions{Workers: 16, Order: brokerclient.BySender,
		OnState: func(up bool, _ error) { state(up) }})
}

// Handle judges one delivery.
func Handle(s *app.Service, d *brokerv1.Delivery) brokerclient.Answer {
	ev := d.GetEvent()
	switch ev.GetType() {
	case eventv1.EventType_EVENT_TYPE_PING:
		return brokerclient.Applied()
	case eventv1.EventType_EVENT_TYPE_ANNOUNCEMENT:
		h, err := Hear(ev)
		if err != nil {
			return refuse(err)
		}
		return answer(s.HandleAnnouncement(d.GetFromPeer(), d.GetTopic() != "", h))
	case eventv1.EventType_EVENT_TYPE_DISCOVER:
		return handleDiscover(s, d)
	case eventv1.EventType_EVENT_TYPE_DISCOVER_RESPONSE:
		return handleDiscoverResponse(s, d)
	}
	return brokerclient.Ignored("TYPE_UNKNOWN")
}

func handleDiscover(s *app.Service, d *brokerv1.Delivery) brokerclient.Answer {
	var m eventv1.Discover
	if err := proto.Unmarshal(d.GetEvent().GetPayload(), &m); err != nil {
		return brokerclient.Rejected("DISCOVER_INVALID")
	}
	if len(m.GetTypes()) > maxTypes {
		return brokerclient.Rejected("TYPES_TOO_MANY")
	}
	return answer(s.HandleDiscover(d.GetFromPeer(), app.Question{ID: d.GetEvent().GetId(), Types: m.GetTypes(), Limit: int(min(m.GetLimit(), 1<<16)), Has: m.GetHas(), Own: m.GetOwn()}))
}

// handleDiscoverResponse refuses an answer as a whole when one announcement in it is forged or malformed: whoever hands
// it on has checked it, or should have.
func handleDiscoverResponse(s *app.Service, d *brokerv1.Delivery) brokerclient.Answer {
	var m eventv1.DiscoverResponse
	if err := proto.Unmarshal(d.GetEvent().GetPayload(), &m); err != nil {
		return brokerclient.Rejected("DISCOVER_RESPONSE_INVALID")
	}
	if len(m.GetAnnouncements()) > maxAnswers {
		return brokerclient.Rejected("ANNOUNCEMENTS_TOO_MANY")
	}
	if !s.Expects(d.GetFromPeer(), m.GetInReplyTo()) {
		return brokerclient.Ignored("NOT_ASKED") // before its signatures cost anything
	}
	heard := make([]app.Heard, 0, len(m.GetAnnouncements()))
	for _, ev := range m.GetAnnouncements() {
		h, err := HearNested(ev, s.Has)
		if err != nil {
			return refuse(err)
		}
		heard = append(heard, h)
	}
	return answer(s.HandleDiscoverResponse(d.GetFromPeer(), m.GetInReplyTo(), heard, int(min(m.GetKnown(), 1<<24))))
}

func refuse(err error) brokerclient.Answer {
	var why *domain.Invalid
	if errors.As(err, &why) {
		return brokerclient.Rejected(why.Reason)
	}
	return brokerclient.Rejected("INVALID")
}

func answer(v app.Verdict) brokerclient.Answer {
	switch v {
	case app.Ignored:
		return brokerclient.Ignored("")
	case app.Rejected:
		return brokerclient.Rejected("INVALID")
	case app.Retry:
		return brokerclient.Retry("BUSY")
	}
	return brokerclient.Applied()
}
