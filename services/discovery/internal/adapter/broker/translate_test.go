package broker_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/shallot-net/shallot/kit/brokerclient"
	"github.com/shallot-net/shallot/kit/brokertest"
	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	"github.com/shallot-net/shallot/services/discovery/internal/adapter/broker"
	"github.com/shallot-net/shallot/services/discovery/internal/app"
	"github.com/shallot-net/shallot/services/discovery/internal/domain"
)

func good(id string, version uint64) domain.Announcement {
	return domain.Announcement{PeerID: id, Version: version, Role: domain.RoleProvider, SealingKey: "age1pq1" + strings.Repeat("q", 1950), Interval: 15 * time.Second,
		Addresses:    []string{"/ip4/192.0.2.1/tcp/1"},
		Capabilities: []domain.Capability{{Type: "wasm", Version: "1", MaxLimits: domain.Limits{Time: time.Minute, Memory: 1, Output: 2}, Attributes: map[string]string{"engine": "wazero"}}}}
}

// event signs a message as an announcement.
func event(t testing.TB, b *brokertest.Broker, m *eventv1.Announcement) *eventv1.Event {
	t.Helper()
	ev, err := brokerclient.NewEvent(eventv1.EventType_EVENT_TYPE_ANNOUNCEMENT, m)
	if err != nil {
		t.Fatal(err)
	}
	return b.SignEvent(ev)
}

// nothing was had before.
func nothing(string, []byte) bool { return false }

// What was had bit for bit is not verified again, and nothing else passes for it.
func TestOnlyWhatWasHadNeedsNoVerification(t *testing.T) {
	b := brokertest.NewNetwork().Add()
	ev := event(t, b, broker.Encode(good(b.PeerID(), 7)))
	h, err := broker.HearNested(ev, nothing)
	if err != nil {
		t.Fatal(err)
	}
	had := func(peer string, signed []byte) bool { return peer == b.PeerID() && bytes.Equal(signed, h.Signed) }
	if _, err := broker.HearNested(ev, had); err != nil {
		t.Errorf("what was had: %v", err)
	}
	ev.Signature[0] ^= 1
	var why *domain.Invalid
	if _, err := broker.HearNested(ev, had); !errors.As(err, &why) || why.Reason != "SIGNATURE_INVALID" {
		t.Errorf("another signature: %v", err)
	}
}

func TestAnnouncementsSurviveTheirEncoding(t *testing.T) {
	b := brokertest.NewNetwork().Add()
	want := good(b.PeerID(), 7)
	want.Effort = 64
	h, err := broker.HearNested(event(t, b, broker.Encode(want)), nothing)
	if err != nil {
		t.Fatal(err)
	}
	if got := h.Announcement; got.Version != 7 || got.Interval != want.Interval || got.Effort != 64 || !got.SameSelf(&want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	var ev eventv1.Event
	if err := proto.Unmarshal(h.Signed, &ev); err != nil || brokerclient.Verify(&ev) != nil {
		t.Errorf("what is handed on does not verify: %v", err)
	}
}

func TestHearRefuses(t *testing.T) {
	net := brokertest.NewNetwork()
	b, other := net.Add(), net.Add()
	for _, c := range []struct {
		name   string
		nested bool
		make   func() *eventv1.Event
		reason string
	}{
		{"another's announcement", false, func() *eventv1.Event { return event(t, other, broker.Encode(good(b.PeerID(), 1))) }, "AUTHOR_MISMATCH"},
		{"no author", false, func() *eventv1.Event {
			ev := event(t, b, broker.Encode(good(b.PeerID(), 1)))
			ev.Author = ""
			return ev
		}, "AUTHOR_MISMATCH"},
		{"a forged signature in a sample", true, func() *eventv1.Event {
			ev := event(t, other, broker.Encode(good(b.PeerID(), 1)))
			ev.Author = b.PeerID()
			return ev
		}, "SIGNATURE_INVALID"},
		{"an unsigned one in a sample", true, func() *eventv1.Event {
			ev := event(t, b, broker.Encode(good(b.PeerID(), 1)))
			ev.Signature = nil
			return ev
		}, "SIGNATURE_INVALID"},
		{"bytes", false, func() *eventv1.Event {
			return &eventv1.Event{Type: eventv1.EventType_EVENT_TYPE_ANNOUNCEMENT, Payload: []byte("\xff\xff"), Author: b.PeerID()}
		}, "ANNOUNCEMENT_INVALID"},
		{"another type", false, func() *eventv1.Event {
			ev := event(t, b, broker.Encode(good(b.PeerID(), 1)))
			ev.Type = eventv1.EventType_EVENT_TYPE_PING
			return ev
		}, "ANNOUNCEMENT_INVALID"},
		{"an attachment", false, func() *eventv1.Event {
			ev := event(t, b, broker.Encode(good(b.PeerID(), 1)))
			ev.Attachment = []byte{1}
			return ev
		}, "ANNOUNCEMENT_INVALID"},
		{"16 KiB and more", false, func() *eventv1.Event {
			m := broker.Encode(good(b.PeerID(), 1))
			m.SealingKey += strings.Repeat("q", 16<<10)
			return event(t, b, m)
		}, "ANNOUNCEMENT_TOO_LARGE"},
		{"an effort that is none", false, func() *eventv1.Event {
			m := broker.Encode(good(b.PeerID(), 1))
			m.Effort = 3
			return event(t, b, m)
		}, "EFFORT_INVALID"},
		{"no interval", false, func() *eventv1.Event {
			m := broker.Encode(good(b.PeerID(), 1))
			m.Interval = nil
			return event(t, b, m)
		}, "INTERVAL_INVALID"},
		{"an interval that is no duration", false, func() *eventv1.Event {
			m := broker.Encode(good(b.PeerID(), 1))
			m.Interval = &durationpb.Duration{Seconds: 1, Nanos: -1}
			return event(t, b, m)
		}, "INTERVAL_INVALID"},
		{"a limit that is no duration", false, func() *eventv1.Event {
			m := broker.Encode(good(b.PeerID(), 1))
			m.Capabilities[0].MaxLimits.Time = &durationpb.Duration{Seconds: 1 << 62}
			return event(t, b, m)
		}, "CAPABILITY_INVALID"},
		{"a thousand capabilities", false, func() *eventv1.Event {
			m := broker.Encode(good(b.PeerID(), 1))
			for range 1000 {
				m.Capabilities = append(m.Capabilities, &eventv1.Capability{})
			}
			return event(t, b, m)
		}, "CAPABILITIES_TOO_MANY"},
	} {
		var why *domain.Invalid
		hear := broker.Hear
		if c.nested {
			hear = func(ev *eventv1.Event) (app.Heard, error) { return broker.HearNested(ev, nothing) }
		}
		if _, err := hear(c.make()); !errors.As(err, &why) || why.Reason != c.reason {
			t.Errorf("%s: Hear = %v, want %s", c.name, err, c.reason)
		}
	}
}

// FuzzHear: whatever a payload holds, it is refused by reason or gives an announcement within all bounds that encodes
// again to the same.
func FuzzHear(f *testing.F) {
	b := brokertest.NewNetwork().Add()
	for _, a := range []domain.Announcement{good(b.PeerID(), 1), {PeerID: b.PeerID(), Version: 1, Role: domain.RoleProvider, Interval: time.Second, Leaving: true}} {
		payload, err := proto.Marshal(broker.Encode(a))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(payload)
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, payload []byte) {
		var m eventv1.Announcement
		author := b.PeerID()
		if proto.Unmarshal(payload, &m) == nil {
			author = m.GetPeerId()
		}
		h, err := broker.Hear(&eventv1.Event{Type: eventv1.EventType_EVENT_TYPE_ANNOUNCEMENT, Payload: payload, Author: author})
		if err != nil {
			var why *domain.Invalid
			if !errors.As(err, &why) || why.Reason == "" {
				t.Fatalf("refused without a reason: %v", err)
			}
			return
		}
		a := h.Announcement
		if err := a.Check(); err != nil {
			t.Fatalf("heard, and not valid: %v", err)
		}
		if i := a.Clamped().Interval; i < domain.MinInterval || i > domain.MaxInterval {
			t.Fatalf("interval %v", i)
		}
		again, err := broker.Decode(broker.Encode(a))
		if err != nil || !again.SameSelf(&a) || again.Version != a.Version || again.Interval != a.Interval {
			t.Fatalf("encoded and decoded it is %+v, was %+v (%v)", again, a, err)
		}
	})
}
