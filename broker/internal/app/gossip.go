package app

import (
	"context"

	"github.com/shallot-net/shallot/broker/internal/domain/conduct"
	"github.com/shallot-net/shallot/broker/internal/domain/delivery"
	"github.com/shallot-net/shallot/broker/internal/domain/event"
	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/padding"
)

// Publish gossips an event and returns it as it went out, with the id that gossip gives it. Nobody may be there to hear it: that is no error.
func (b *Broker) Publish(ctx context.Context, name, topic string, e *event.Event, sign bool) (*event.Event, error) {
	p, err := b.persona(name)
	if err != nil {
		return nil, err
	}
	if !event.KnownTopic(topic) {
		return nil, unknownTopic(topic)
	}
	if e, err = b.outgoing(p, e, sign); err != nil {
		return nil, err
	}
	named := *e
	named.ID = event.GossipID(e.Signature)
	e = &named
	data, err := b.cfg.Codec.Encode(e)
	if err != nil {
		return nil, err
	}
	check := b.rules.CheckGossip
	if sign {
		check = b.rules.CheckOwnGossip
	}
	if problem := check(topic, e, data); problem != event.OK {
		return nil, invalidEvent(e, problem, len(data), event.MaxGossipSize)
	}
	if err := p.host.Publish(ctx, topic, data); err != nil {
		return nil, err
	}
	b.obs.Event(e.Type, "out", "published")
	return e, nil
}

// Sign returns the event with the persona's name and signature.
func (b *Broker) Sign(name string, e *event.Event) (*event.Event, error) {
	p, err := b.persona(name)
	if err != nil {
		return nil, err
	}
	return b.outgoing(p, e, true)
}

func (b *Broker) outgoing(p *persona, e *event.Event, sign bool) (*event.Event, error) {
	if err := b.signable(e, sign); err != nil || !sign {
		return e, err
	}
	return p.sign(b.filled(e))
}

// leastGossip is the smallest payload that is gossiped, in bytes: more than any metric has, so that all are of one size.
const leastGossip = 1 << 10

// filled is an event of a type that is gossiped, with a payload of few sizes: all else in such an envelope has a fixed one. It has to be before the event is signed: a relay that could
// add or take padding could make many messages of one. What is so large that padding might put it beyond what may be gossiped stays as it is.
func (b *Broker) filled(e *event.Event) *event.Event {
	size := max(leastGossip, int(padding.Size(int64(len(e.Payload)+PayloadPadOverhead))))
	if !b.padded() || !e.Type.Gossiped() || size > event.MaxGossipSize-padding.Floor {
		return e
	}
	filled := *e
	filled.Payload = b.cfg.Codec.Pad(e.Payload, size)
	return &filled
}

// signable fails where there is no event, or one that is to be signed and must not be.
func (b *Broker) signable(e *event.Event, sign bool) error {
	if e == nil {
		return fault.InvalidArgument("EVENT_MISSING", "the request has no event")
	}
	if !sign {
		return nil
	}
	if problem := b.rules.CheckOutgoing(e); problem != event.OK {
		return invalidEvent(e, problem, len(e.Payload)+len(e.Attachment), event.MaxSize)
	}
	return nil
}

func invalidEvent(e *event.Event, problem event.Problem, size, limit int) error {
	f := fault.InvalidArgument("INVALID_EVENT", "event %.40q of type %d: %s", e.ID, e.Type, problemText(problem, size, limit))
	return f.With("problem", string(problem))
}

func problemText(p event.Problem, size, limit int) string {
	switch p {
	case event.Oversized:
		return fault.InvalidArgument("", "it has %d bytes and may have %d: send large bodies as content", size, limit).Message
	case event.BadID:
		return "its id is not 32 lowercase hex digits"
	case event.UnknownType:
		return "its type is not in this broker's contract"
	case event.BadPayload:
		return "its payload does not decode as the message that its type names"
	case event.Unsigned:
		return "events of its type, and all gossip, must be signed: set sign"
	case event.BadAuthor, event.BadSignature:
		return "its author and signature do not verify"
	case event.WrongTopic:
		return "events of its type are not gossiped on this topic"
	case event.NotCanonical:
		return "it has an attachment, which nothing signs: gossip has none"
	}
	return string(p)
}

// validateGossip judges before anything is relayed. What does not hold is held against the peer that relayed it: an honest one
// checks by the same rules.
func (p *persona) validateGossip(topic, from string, data []byte) (Verdict, *event.Event) {
	b := p.broker
	e, err := b.cfg.Codec.Decode(data)
	if err != nil {
		b.obs.Event(0, "in", string(event.Undecodable))
		b.charge(p, from, conduct.Malformed)
		return VerdictReject, nil
	}
	switch problem := b.rules.CheckGossip(topic, e, data); problem {
	case event.OK:
		return VerdictAccept, e
	case event.UnknownType:
		b.obs.Event(0, "in", string(problem))
		b.charge(p, from, conduct.Unknown)
		return VerdictIgnore, nil
	case event.BadAuthor, event.BadSignature, event.Unsigned:
		b.obs.Event(e.Type, "in", string(problem))
		b.charge(p, from, conduct.Forged)
	default:
		b.obs.Event(e.Type, "in", string(problem))
		b.charge(p, from, conduct.Malformed)
	}
	return VerdictReject, nil
}

func (p *persona) gossip(topic, from string, e *event.Event) {
	p.broker.obs.Event(e.Type, "in", "gossip")
	p.broker.inbox.offer(&delivery.Item{Persona: p.name, Sender: from, Topic: topic, Type: e.Type, Size: len(e.Payload) + len(e.Attachment), Value: &arrival{event: e}})
}
