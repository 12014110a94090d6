// Package codec is envelopes and payloads in protobuf.
package codec

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/shallot-net/shallot/broker/internal/app"
	"github.com/shallot-net/shallot/broker/internal/domain/event"
	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
)

// Codec is made by New.
type Codec struct {
	types map[event.Type]*payloadType
}

// payloadType keeps messages to decode into: what was decoded is not wanted, only whether it does.
type payloadType struct{ pool sync.Pool }

// New finds the message of each event type in the contract: the type NAME_OF_IT holds a message NameOfIt.
func New() (*Codec, error) {
	c := &Codec{types: make(map[event.Type]*payloadType)}
	for number, name := range eventv1.EventType_name {
		if number == 0 {
			continue
		}
		full := protoreflect.FullName("shallot.event.v1." + messageName(name))
		mt, err := protoregistry.GlobalTypes.FindMessageByName(full)
		if err != nil {
			return nil, fmt.Errorf("the contract has no message %s for the event type %s: %w", full, name, err)
		}
		t := &payloadType{}
		t.pool.New = func() any { return mt.New().Interface() }
		c.types[event.Type(number)] = t
	}
	return c, nil
}

func messageName(enum string) string {
	var b strings.Builder
	for word := range strings.SplitSeq(strings.TrimPrefix(enum, "EVENT_TYPE_"), "_") {
		b.WriteString(word[:1] + strings.ToLower(word[1:]))
	}
	return b.String()
}

// Known tells whether the contract has the type.
func (c *Codec) Known(t event.Type) bool { return c.types[t] != nil }

// TypeName is for metric labels: one of a fixed set.
func TypeName(t event.Type) string {
	if n, ok := eventv1.EventType_name[int32(t)]; ok && t != 0 {
		return strings.ToLower(strings.TrimPrefix(n, "EVENT_TYPE_"))
	}
	return "unknown"
}

var errUnknown = errors.New("unknown event type")

// CheckPayload decodes the payload and lets it go.
func (c *Codec) CheckPayload(t event.Type, payload []byte) error {
	pt := c.types[t]
	if pt == nil {
		return errUnknown
	}
	m, _ := pt.pool.Get().(proto.Message)
	err := proto.Unmarshal(payload, m) // it resets m first
	pt.pool.Put(m)
	return err
}

// paddingField is that of every message that is gossiped.
const paddingField = 15

// Pad appends the field. Its length takes three bytes whatever it is, which every decoder reads, since else some sizes could not be had.
func (c *Codec) Pad(payload []byte, size int) []byte {
	n := size - len(payload) - app.PayloadPadOverhead
	if n < 0 || n >= 1<<21 {
		panic(fmt.Sprintf("codec: %d bytes cannot be padded to %d", len(payload), size))
	}
	out := make([]byte, 0, size)
	out = append(out, payload...)
	out = append(out, paddingField<<3|byte(protowire.BytesType), byte(n)|0x80, byte(n>>7)|0x80, byte(n>>14))
	return out[:size]
}

// Fields of an envelope.
const (
	typeField = 2
	lastField = 6
)

// Canonical tells whether every field of an envelope is there once, in the order of their numbers, none of them empty or unknown, and every number in its shortest
// form: so Encode makes them, and then no other bytes are the same event.
func (c *Codec) Canonical(b []byte) bool {
	for last := protowire.Number(0); len(b) > 0; {
		num, kind, n := protowire.ConsumeTag(b)
		if n < 0 || n != protowire.SizeTag(num) || num <= last || num > lastField {
			return false
		}
		b, last = b[n:], num
		switch {
		case kind == protowire.VarintType && num == typeField:
			v, n := protowire.ConsumeVarint(b)
			if n < 0 || n != protowire.SizeVarint(v) || v == 0 || v > math.MaxInt32 { // the decoder drops further bits
				return false
			}
			b = b[n:]
		case kind == protowire.BytesType && num != typeField:
			v, n := protowire.ConsumeBytes(b)
			if n < 0 || n != protowire.SizeBytes(len(v)) || len(v) == 0 {
				return false
			}
			b = b[n:]
		default:
			return false
		}
	}
	return true
}

// Encode makes the bytes of an envelope, the same ones each time.
func (c *Codec) Encode(e *event.Event) ([]byte, error) {
	return proto.MarshalOptions{Deterministic: true}.Marshal(ToProto(e))
}

// Decode reads an envelope.
func (c *Codec) Decode(b []byte) (*event.Event, error) {
	var m eventv1.Event
	if err := proto.Unmarshal(b, &m); err != nil {
		return nil, err
	}
	return FromProto(&m), nil
}

// ToProto shares the bytes.
func ToProto(e *event.Event) *eventv1.Event {
	return &eventv1.Event{Id: e.ID, Type: eventv1.EventType(e.Type), Payload: e.Payload, Attachment: e.Attachment, Author: e.Author, Signature: e.Signature}
}

// FromProto shares the bytes; nil for nil.
func FromProto(m *eventv1.Event) *event.Event {
	if m == nil {
		return nil
	}
	return &event.Event{ID: m.GetId(), Type: event.Type(m.GetType()), Payload: m.GetPayload(), Attachment: m.GetAttachment(), Author: m.GetAuthor(), Signature: m.GetSignature()}
}
