package codec_test

import (
	"crypto/ed25519"
	"errors"
	"testing"

	"github.com/shallot-net/shallot/broker/internal/adapter/codec"
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
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := c.Decode(b)
		if err != nil {
			return
		}
		gossip := rules.CheckGossip(event.TopicAnnouncements, e, len(b)) == event.OK
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
