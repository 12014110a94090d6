package codec_test

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"reflect"
	"slices"
	"testing"

	"github.com/shallot-net/shallot/broker/internal/adapter/codec"
	"github.com/shallot-net/shallot/broker/internal/app"
	"github.com/shallot-net/shallot/broker/internal/domain/event"
	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	"google.golang.org/protobuf/proto"
)

func newCodec(t testing.TB) *codec.Codec {
	t.Helper()
	c, err := codec.New()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Every type of the contract has its message: New fails otherwise.
func TestEveryTypeIsKnown(t *testing.T) {
	c := newCodec(t)
	for n, name := range eventv1.EventType_name {
		if known := c.Known(event.Type(n)); known != (n != 0) {
			t.Errorf("%s known: %v", name, known)
		}
	}
	if c.CheckPayload(4711, nil) == nil || codec.TypeName(4711) != "unknown" || codec.TypeName(0) != "unknown" {
		t.Error("a type of the future is known")
	}
	if got := codec.TypeName(event.TaskSubmission); got != "task_submission" {
		t.Errorf("got %s", got)
	}
}

func TestPayloads(t *testing.T) {
	c := newCodec(t)
	b, err := proto.Marshal(&eventv1.TaskLog{TaskId: "x"})
	if err != nil {
		t.Fatal(err)
	}
	logs := event.Type(eventv1.EventType_EVENT_TYPE_TASK_LOG)
	for name, x := range map[string]struct {
		payload []byte
		good    bool
	}{"good": {b, true}, "empty": {nil, true}, "torn": {b[:2], false}, "not UTF-8": {[]byte{0x0a, 1, 0xff}, false}} {
		if err := c.CheckPayload(logs, x.payload); (err == nil) != x.good {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What is padded reads as the same message, also where nobody knows of padding, and any size can be had from the least on.
func TestPad(t *testing.T) {
	c := newCodec(t)
	for typ, m := range map[event.Type]proto.Message{
		event.Announcement:    &eventv1.Announcement{PeerId: "me", Version: 7, Leaving: true},
		event.MetricAvailable: &eventv1.MetricAvailable{Metric: &eventv1.Metric{Version: 3}},
	} {
		if !typ.Gossiped() {
			t.Errorf("type %d is not gossiped", typ)
		}
		b, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		for size := len(b) + app.PayloadPadOverhead; size < len(b)+20_000; size += 1 + size/1000 {
			padded := c.Pad(b, size)
			if err := c.CheckPayload(typ, padded); len(padded) != size || err != nil {
				t.Fatalf("%d bytes became %d instead of %d: %v", len(b), len(padded), size, err)
			}
			got := m.ProtoReflect().New().Interface()
			if err := proto.Unmarshal(padded, got); err != nil || len(got.ProtoReflect().GetUnknown()) > 0 {
				t.Fatal("a part is not known, or", err)
			}
			field := got.ProtoReflect().Descriptor().Fields().ByName("padding")
			if zeros := got.ProtoReflect().Get(field).Bytes(); len(bytes.Trim(zeros, "\x00")) > 0 || len(zeros) != size-len(b)-app.PayloadPadOverhead {
				t.Fatalf("padding of %d bytes, or not of zeros", len(zeros))
			}
			if got.ProtoReflect().Clear(field); !proto.Equal(got, m) {
				t.Fatalf("it became %v", got)
			}
		}
		// Of a message without the field, as of an older version, it is a field that is not known.
		var older eventv1.Ping
		if err := proto.Unmarshal(c.Pad(nil, 1<<10), &older); err != nil || len(older.ProtoReflect().GetUnknown()) != 1<<10 {
			t.Error("an older reader:", err)
		}
	}
}

// Of the bytes that decode to one envelope, those that Encode makes are the only ones that gossip takes.
func TestCanonical(t *testing.T) {
	c := newCodec(t)
	e := &event.Event{ID: "0123456789abcdef0123456789abcdef", Type: event.MetricAvailable, Payload: []byte("payload"), Author: "me", Signature: make([]byte, 64)}
	good, err := c.Encode(e)
	if err != nil || !c.Canonical(good) || !c.Canonical(nil) {
		t.Fatalf("what Encode makes is not: %x, %v", good, err)
	}
	id := good[:2+len(e.ID)]
	typ, rest := good[len(id):len(id)+2], good[len(id)+2:]
	for name, b := range map[string][]byte{
		"another order":      slices.Concat(typ, id, rest),
		"a field twice":      slices.Concat(id, id, typ, rest),
		"an unknown field":   slices.Concat(good, []byte{7 << 3, 1}),
		"an empty field":     slices.Concat(id, typ, rest[:2+len(e.Payload)], []byte{4<<3 | 2, 0}, rest[2+len(e.Payload):]),
		"a long tag":         slices.Concat([]byte{0x8a, 0}, id[1:], typ, rest),
		"a long length":      slices.Concat(id[:1], []byte{0x80 | id[1], 0}, id[2:], typ, rest),
		"a long number":      slices.Concat(id, []byte{2 << 3, 0x82, 0}, rest),
		"bits that are lost": slices.Concat(id, []byte{2 << 3, 0x82, 0x80, 0x80, 0x80, 0x10}, rest),
	} {
		if d, err := c.Decode(b); err != nil || !reflect.DeepEqual(d, e) {
			t.Errorf("%s: another event, %+v, %v", name, d, err)
		}
		if c.Canonical(b) {
			t.Errorf("%s is canonical", name)
		}
	}
	for name, b := range map[string][]byte{"half a tag": {0x8a}, "half a field": good[:5], "half a number": {2 << 3, 0x80}} {
		if c.Canonical(b) {
			t.Errorf("%s is canonical", name)
		}
	}
}

// What came from the network is decoded and checked; whatever passes must keep the rules, and encode to the same envelope again.
func FuzzEnvelope(f *testing.F) {
	c := newCodec(f)
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	rules := event.Rules{Codec: c, Keys: keyring{key.Public().(ed25519.PublicKey)}}
	payload, _ := proto.Marshal(&eventv1.TaskSubmission{})
	for _, e := range []*event.Event{
		{ID: "0123456789abcdef0123456789abcdef", Type: event.Ping},
		{ID: "0123456789abcdef0123456789abcdef", Type: event.TaskSubmission, Payload: payload},
		{ID: "0123456789abcdef0123456789abcdef", Type: event.Announcement},
		{ID: "x", Type: 4711},
	} {
		b, _ := c.Encode(e)
		f.Add(b)
		e.Author, e.Signature = "me", ed25519.Sign(key, e.SigningBytes())
		b, _ = c.Encode(e)
		f.Add(b)
		e.ID = event.GossipID(e.Signature)
		b, _ = c.Encode(e)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := c.Decode(b)
		if err != nil {
			return
		}
		gossip := rules.CheckGossip(event.TopicAnnouncements, e, b) == event.OK
		if rules.CheckDirected(e, len(b)) != event.OK {
			if gossip {
				t.Fatal("what may be gossiped may not be sent")
			}
			return
		}
		if _, ok := event.ParseID(e.ID); !ok || !c.Known(e.Type) || len(b) > event.MaxSize {
			t.Fatalf("passed: %+v", e)
		}
		if (gossip || e.Type == event.TaskSubmission) && !ed25519.Verify(key.Public().(ed25519.PublicKey), e.SigningBytes(), e.Signature) {
			t.Fatalf("passed unsigned: %+v", e)
		}
		again, err := c.Encode(e)
		if err != nil {
			t.Fatal(err)
		}
		if gossip && !bytes.Equal(again, b) {
			t.Fatalf("gossip that is not what everybody makes of it: %x, not %x", b, again)
		}
		if e2, err := c.Decode(again); err != nil || e2.ID != e.ID || e2.Type != e.Type || string(e2.Payload) != string(e.Payload) || string(e2.Signature) != string(e.Signature) {
			t.Fatalf("%+v became %+v, %v", e, e2, err)
		}
	})
}

type keyring struct{ own ed25519.PublicKey }

func (k keyring) PublicKey(author string) (ed25519.PublicKey, error) {
	if author != "me" {
		return nil, errors.New("unknown")
	}
	return k.own, nil
}
