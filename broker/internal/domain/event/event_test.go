package event_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"github.com/shallot-net/shallot/broker/internal/domain/event"
)

type codec struct{}

func (codec) Known(t event.Type) bool { return t > 0 && t < 100 }
func (codec) CheckPayload(_ event.Type, p []byte) error {
	if bytes.HasPrefix(p, []byte("bad")) {
		return errors.New("bad")
	}
	return nil
}

// Canonical knows one other encoding.
func (codec) Canonical(b []byte) bool { return !bytes.HasPrefix(b, []byte("other")) }

type keys map[string]ed25519.PublicKey

func (k keys) PublicKey(author string) (ed25519.PublicKey, error) {
	if key, ok := k[author]; ok {
		return key, nil
	}
	return nil, errors.New("unknown")
}

// shared stands for signatures of many events: one of a single event, and a byte.
type shared struct{}

func (shared) Verify(key ed25519.PublicKey, message, signature []byte) bool {
	return len(signature) == ed25519.SignatureSize+1 && ed25519.Verify(key, message, signature[:ed25519.SignatureSize])
}

func share(e *event.Event) { e.Signature = append(e.Signature, 0) }

const goodID = "0123456789abcdef0123456789abcdef"

func signer() (event.Rules, func(*event.Event) *event.Event) {
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	rules := event.Rules{Codec: codec{}, Keys: keys{"me": key.Public().(ed25519.PublicKey)}, Shared: shared{}}
	return rules, func(e *event.Event) *event.Event {
		e.Author, e.Signature = "me", ed25519.Sign(key, e.SigningBytes())
		return e
	}
}

func TestRules(t *testing.T) {
	rules, sign := signer()
	payload := []byte("payload")
	with := func(e *event.Event, change func(*event.Event)) *event.Event { change(e); return e }
	gossiped := func(e *event.Event) *event.Event { e.ID = event.GossipID(sign(e).Signature); return e }
	for _, c := range []struct {
		name  string
		e     *event.Event
		topic string
		size  int
		want  event.Problem
	}{
		{"unsigned directed", &event.Event{ID: goodID, Type: event.Ping, Payload: payload}, "", 100, event.OK},
		{"signed directed", sign(&event.Event{ID: goodID, Type: event.Ping, Payload: payload}), "", 100, event.OK},
		{"largest", &event.Event{ID: goodID, Type: event.Ping}, "", event.MaxSize, event.OK},
		{"oversized", &event.Event{ID: goodID, Type: event.Ping}, "", event.MaxSize + 1, event.Oversized},
		{"no id", &event.Event{Type: event.Ping}, "", 100, event.BadID},
		{"upper case id", &event.Event{ID: strings.ToUpper(goodID), Type: event.Ping}, "", 100, event.BadID},
		{"unknown type", &event.Event{ID: goodID, Type: 4711}, "", 100, event.UnknownType},
		{"payload of another type", &event.Event{ID: goodID, Type: event.Ping, Payload: []byte("bad")}, "", 100, event.BadPayload},
		{"submission must be signed", &event.Event{ID: goodID, Type: event.TaskSubmission}, "", 100, event.Unsigned},
		{"result must be signed", &event.Event{ID: goodID, Type: event.TaskResult}, "", 100, event.Unsigned},
		{"author without signature", &event.Event{ID: goodID, Type: event.Ping, Author: "me"}, "", 100, event.BadSignature},
		{"signature without author", with(sign(&event.Event{ID: goodID, Type: event.Ping}), func(e *event.Event) { e.Author = "" }), "", 100, event.BadAuthor},
		{"unknown author", with(sign(&event.Event{ID: goodID, Type: event.Ping}), func(e *event.Event) { e.Author = "you" }), "", 100, event.BadAuthor},
		{"changed payload", with(sign(&event.Event{ID: goodID, Type: event.Ping, Payload: payload}), func(e *event.Event) { e.Payload = []byte("other") }), "", 100, event.BadSignature},
		{"changed type", with(sign(&event.Event{ID: goodID, Type: event.Ping, Payload: payload}), func(e *event.Event) { e.Type = 13 }), "", 100, event.BadSignature},
		{"short signature", with(sign(&event.Event{ID: goodID, Type: event.Ping}), func(e *event.Event) { e.Signature = e.Signature[:63] }), "", 100, event.BadSignature},
		{"shared signature", with(sign(&event.Event{ID: goodID, Type: event.Ping, Payload: payload}), share), "", 100, event.OK},
		{"shared signature of another", with(with(sign(&event.Event{ID: goodID, Type: event.Ping, Payload: payload}), share), func(e *event.Event) { e.Payload = nil }), "", 100, event.BadSignature},
		{"gossip with a shared signature", with(sign(&event.Event{ID: goodID, Type: event.Announcement}), share), "announcements", 100, event.BadSignature},
		{"attachment is not covered", with(sign(&event.Event{ID: goodID, Type: event.TaskSubmission}), func(e *event.Event) { e.Attachment = payload }), "", 100, event.OK},
		{"gossip", gossiped(&event.Event{ID: goodID, Type: event.Announcement}), "announcements", 100, event.OK},
		{"gossip with an id of its own", sign(&event.Event{ID: goodID, Type: event.Announcement}), "announcements", 100, event.NotCanonical},
		{"gossip with an attachment", with(gossiped(&event.Event{ID: goodID, Type: event.Announcement}), func(e *event.Event) { e.Attachment = payload }), "announcements", 100, event.NotCanonical},
		{"changed gossip", with(gossiped(&event.Event{ID: goodID, Type: event.Announcement}), func(e *event.Event) { e.Payload = payload }), "announcements", 100, event.BadSignature},
		{"gossip with a claim", &event.Event{ID: goodID, Type: event.Announcement, Author: "me"}, "announcements", 100, event.BadSignature},
		{"unsigned gossip", &event.Event{ID: goodID, Type: event.Announcement}, "announcements", 100, event.Unsigned},
		{"gossip on the wrong topic", sign(&event.Event{ID: goodID, Type: event.Announcement}), "metrics", 100, event.WrongTopic},
		{"gossip of a directed type", sign(&event.Event{ID: goodID, Type: event.TaskSubmission}), "metrics", 100, event.WrongTopic},
		{"gossip of a later version", sign(&event.Event{ID: goodID, Type: 4711}), "metrics", 100, event.UnknownType},
		{"large gossip", sign(&event.Event{ID: goodID, Type: event.Announcement}), "announcements", event.MaxGossipSize + 1, event.Oversized},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := rules.CheckDirected(c.e, c.size)
			if c.topic != "" {
				got = rules.CheckGossip(c.topic, c.e, make([]byte, c.size))
			}
			if got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// Another encoding of a sound event would be another message.
func TestGossipHasOneEncoding(t *testing.T) {
	rules, sign := signer()
	e := sign(&event.Event{ID: goodID, Type: event.Announcement})
	e.ID = event.GossipID(e.Signature)
	if got := rules.CheckGossip(event.TopicAnnouncements, e, []byte("other")); got != event.NotCanonical {
		t.Errorf("got %q", got)
	}
	if got := rules.CheckDirected(e, 100); got != event.OK {
		t.Errorf("directed: %q", got)
	}
	if got := event.GossipID([]byte("x")); got != "2d711642b726b04401627ca9fbac32f5" { // a contract, too: the first half of SHA-256
		t.Errorf("the id is %s", got)
	}
}

// The signing bytes are a contract with every other implementation.
func TestSigningBytes(t *testing.T) {
	e := &event.Event{Type: 30, Payload: []byte("x")}
	sum := sha256.Sum256([]byte("x"))
	want := "7368616c6c6f742d6576656e742d7631" + "00" + "0000001e" + hex.EncodeToString(sum[:])
	if got := hex.EncodeToString(e.SigningBytes()); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestOutcome(t *testing.T) {
	ok, rejected, late := event.Outcome{}, event.Outcome{Status: event.Rejected}, event.Outcome{Status: event.TimedOut}
	for _, c := range []struct{ a, b, want event.Outcome }{
		{ok, ok, ok}, {ok, rejected, rejected}, {rejected, ok, rejected}, {rejected, late, late}, {late, rejected, late}, {ok, late, late},
	} {
		if got := c.a.Worse(c.b); got != c.want {
			t.Errorf("%v and %v: got %v, want %v", c.a, c.b, got, c.want)
		}
	}
	for s, final := range map[event.Status]bool{event.Acknowledged: true, event.Rejected: true, event.Invalid: true, event.NoSubscriber: false, event.TimedOut: false, event.Busy: false, 99: false} {
		if got := (event.Outcome{Status: s}).Final(); got != final {
			t.Errorf("status %d final: got %v, want %v", s, got, final)
		}
	}
	for in, want := range map[string]string{"": "", "BAD_LIMITS": "BAD_LIMITS", "/home/me": "UNSPECIFIED", strings.Repeat("A", 65): "UNSPECIFIED"} {
		if got := event.Detail(in); got != want {
			t.Errorf("detail %q: got %q, want %q", in, got, want)
		}
	}
}
