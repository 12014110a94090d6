// Package broker is discovery's view of its node's broker: what it says to other nodes and what it hears of them.
package broker

import (
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/shallot-net/shallot/kit/brokerclient"
	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	"github.com/shallot-net/shallot/services/discovery/internal/app"
	"github.com/shallot-net/shallot/services/discovery/internal/domain"
)

// Encode makes an announcement's message.
func Encode(a domain.Announcement) *eventv1.Announcement {
	return &eventv1.Announcement{PeerId: a.PeerID, Version: a.Version, Role: a.Role, Capabilities: EncodeCapabilities(a.Capabilities),
		SealingKey: a.SealingKey, Addresses: a.Addresses, Interval: durationpb.New(a.Interval), Leaving: a.Leaving, Effort: a.Effort}
}

// EncodeCapabilities makes capabilities' messages.
func EncodeCapabilities(caps []domain.Capability) []*eventv1.Capability {
	out := make([]*eventv1.Capability, len(caps))
	for i, c := range caps {
		out[i] = &eventv1.Capability{Type: c.Type, Version: c.Version, Attributes: c.Attributes,
			MaxLimits: &eventv1.Limits{Memory: c.MaxLimits.Memory, Output: c.MaxLimits.Output}}
		if c.MaxLimits.Time != 0 {
			out[i].MaxLimits.Time = durationpb.New(c.MaxLimits.Time)
		}
	}
	return out
}

// Decode is the reverse of Encode. It checks nothing but that durations are in range.
func Decode(m *eventv1.Announcement) (domain.Announcement, error) {
	a := domain.Announcement{PeerID: m.GetPeerId(), Version: m.GetVersion(), Role: m.GetRole(), SealingKey: m.GetSealingKey(),
		Addresses: m.GetAddresses(), Leaving: m.GetLeaving(), Effort: m.GetEffort()}
	if err := m.GetInterval().CheckValid(); err != nil {
		return a, &domain.Invalid{Reason: "INTERVAL_INVALID", Detail: "the interval is no duration"}
	}
	a.Interval = m.GetInterval().AsDuration()
	if len(m.GetCapabilities()) > domain.MaxCapabilities { // before they cost anything
		return a, &domain.Invalid{Reason: "CAPABILITIES_TOO_MANY", Detail: "too many capabilities"}
	}
	var err error
	a.Capabilities, err = DecodeCapabilities(m.GetCapabilities())
	return a, err
}

// DecodeCapabilities is the reverse of EncodeCapabilities.
func DecodeCapabilities(in []*eventv1.Capability) ([]domain.Capability, error) {
	out := make([]domain.Capability, len(in))
	for i, c := range in {
		l := c.GetMaxLimits()
		out[i] = domain.Capability{Type: c.GetType(), Version: c.GetVersion(), Attributes: c.GetAttributes(),
			MaxLimits: domain.Limits{Memory: l.GetMemory(), Output: l.GetOutput()}}
		if l.GetTime() == nil {
			continue
		}
		if err := l.GetTime().CheckValid(); err != nil {
			return nil, &domain.Invalid{Reason: "CAPABILITY_INVALID", Detail: "a time limit is no duration"}
		}
		out[i].MaxLimits.Time = l.GetTime().AsDuration()
	}
	return out, nil
}

// Hear checks an announcement event's size, author and shape; the errors are *domain.Invalid. It does not verify the signature.
func Hear(ev *eventv1.Event) (app.Heard, error) {
	if len(ev.GetPayload()) > domain.MaxAnnouncement {
		return app.Heard{}, &domain.Invalid{Reason: "ANNOUNCEMENT_TOO_LARGE", Detail: fmt.Sprintf("an announcement has %d bytes; it may have %d", len(ev.GetPayload()), domain.MaxAnnouncement)}
	}
	if ev.GetType() != eventv1.EventType_EVENT_TYPE_ANNOUNCEMENT || len(ev.GetAttachment()) > 0 {
		return app.Heard{}, &domain.Invalid{Reason: "ANNOUNCEMENT_INVALID", Detail: "the event is no announcement, or has an attachment"}
	}
	var m eventv1.Announcement
	if err := proto.Unmarshal(ev.GetPayload(), &m); err != nil {
		return app.Heard{}, &domain.Invalid{Reason: "ANNOUNCEMENT_INVALID", Detail: "the payload does not decode"}
	}
	if ev.GetAuthor() == "" || ev.GetAuthor() != m.GetPeerId() {
		return app.Heard{}, &domain.Invalid{Reason: "AUTHOR_MISMATCH", Detail: "the author is not the peer that is announced"}
	}
	a, err := Decode(&m)
	if err != nil {
		return app.Heard{}, err
	}
	if err := a.Check(); err != nil {
		return app.Heard{}, err
	}
	// Encoded anew without what is not needed to check it again: ids and unknown fields are the relay's to choose.
	signed, err := proto.Marshal(&eventv1.Event{Id: ev.GetId(), Type: ev.GetType(), Payload: ev.GetPayload(), Author: ev.GetAuthor(), Signature: ev.GetSignature()})
	if err != nil {
		return app.Heard{}, &domain.Invalid{Reason: "ANNOUNCEMENT_INVALID", Detail: "the event does not encode"}
	}
	return app.Heard{Announcement: a, Signed: signed}, nil
}

// HearNested is Hear of an event that came inside another's payload, where the broker did not verify its signature. What is had already, bit for bit, need
// not be verified again: neighbours that are asked at the same time tell of the same peers.
func HearNested(ev *eventv1.Event, had func(peer string, signed []byte) bool) (app.Heard, error) {
	h, err := Hear(ev)
	if err != nil || had(h.Announcement.PeerID, h.Signed) {
		return h, err
	}
	if err := brokerclient.Verify(ev); err != nil {
		return app.Heard{}, &domain.Invalid{Reason: "SIGNATURE_INVALID", Detail: err.Error()}
	}
	return h, nil
}
