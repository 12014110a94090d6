package app

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	"github.com/shallot-net/shallot/services/node/internal/domain"
	"github.com/shallot-net/shallot/services/node/internal/fake"
)

func TestAnnouncementOf(t *testing.T) {
	k, other := fake.NewKey(), fake.NewKey()
	good := fake.Announce(k.ID, 7, []string{"/ip4/127.0.0.1/tcp/1"}, 30*time.Second, k.Sign, "sum", "wasm")
	a, err := announcementOf(good)
	if err != nil || a.PeerID != k.ID || a.Version != 7 || len(a.Capabilities) != 2 || a.Interval != 30*time.Second || a.Signed != any(good) {
		t.Fatalf("got %+v, %v", a, err)
	}
	if c := a.Capability("wasm"); c == nil || c.Max.Memory != 1<<30 || a.Capability("python") != nil {
		t.Errorf("capability %+v", c)
	}
	for name, ev := range map[string]*eventv1.Event{
		"for somebody else": fake.Announce(other.ID, 7, nil, time.Second, k.Sign, "sum"),
		"tampered": func() *eventv1.Event {
			e := proto.CloneOf(good)
			e.Payload = fake.Announce(k.ID, 8, nil, time.Second, k.Sign, "sum").GetPayload()
			return e
		}(),
		"another's name": func() *eventv1.Event { e := proto.CloneOf(good); e.Author = other.ID; return e }(),
		"unsigned":       func() *eventv1.Event { e := proto.CloneOf(good); e.Signature = nil; return e }(),
		"short":          func() *eventv1.Event { e := proto.CloneOf(good); e.Signature = e.Signature[:10]; return e }(),
		"another type": func() *eventv1.Event {
			e := proto.CloneOf(good)
			e.Type = eventv1.EventType_EVENT_TYPE_METRIC_AVAILABLE
			return k.Sign(e)
		}(),
		"attachment": func() *eventv1.Event { e := proto.CloneOf(good); e.Attachment = []byte{1}; return e }(),
		"garbage":    k.Sign(&eventv1.Event{Type: eventv1.EventType_EVENT_TYPE_ANNOUNCEMENT, Payload: []byte{0xff, 0xff}}),
		"huge":       k.Sign(&eventv1.Event{Type: eventv1.EventType_EVENT_TYPE_ANNOUNCEMENT, Payload: make([]byte, domain.MaxAnnouncement+1)}),
		"nothing":    nil,
	} {
		if a, err := announcementOf(ev); err == nil || a.PeerID != "" {
			t.Errorf("%s: it is taken as %+v", name, a)
		} else if strings.Contains(err.Error(), k.ID) || strings.Contains(err.Error(), other.ID) {
			t.Errorf("%s: the error names a peer: %v", name, err)
		}
	}
}

// In anonymous mode nobody is believed who names another address than an onion service's.
func TestOnionAnnouncements(t *testing.T) {
	k := fake.NewKey()
	onion := "/onion3/" + strings.Repeat("a", 56) + ":4001"
	c := NewConsumer(ConsumerConfig{Aloof: true}, newEther(), discard)
	for name, at := range map[string][]string{
		"an IP address": {"/ip4/192.0.2.7/tcp/4001"}, "beside its own": {onion, "/ip4/192.0.2.7/tcp/4001"}, "a name": {"/dnsaddr/canary.test"}, "something behind it": {onion + "/ip4/192.0.2.7/tcp/1"},
	} {
		ev := fake.Announce(k.ID, 1, at, time.Minute, k.Sign, "sum")
		if a, err := c.announcement(ev); err == nil || a.PeerID != "" {
			t.Errorf("%s: it is taken as %+v", name, a)
		}
		if _, err := NewConsumer(ConsumerConfig{}, newEther(), discard).announcement(ev); err != nil {
			t.Errorf("%s, in open mode: %v", name, err)
		}
	}
	for name, at := range map[string][]string{"its own": {onion}, "none": nil} {
		if _, err := c.announcement(fake.Announce(k.ID, 1, at, time.Minute, k.Sign, "sum")); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzDiscoverResponse: whatever a provider answers, nothing breaks, and what gets into the view is within its bounds.
func FuzzDiscoverResponse(f *testing.F) {
	from, other := fake.NewKey(), fake.NewKey()
	seed := func(r *eventv1.DiscoverResponse) {
		b, err := proto.Marshal(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	good := fake.Announce(from.ID, 1, []string{"/ip4/127.0.0.1/tcp/1"}, time.Second, from.Sign, "sum")
	seed(&eventv1.DiscoverResponse{InReplyTo: "q", Announcements: []*eventv1.Event{good, fake.Announce(other.ID, 9, nil, time.Hour, other.Sign, "wasm")}, Known: 2})
	seed(&eventv1.DiscoverResponse{InReplyTo: "q", Announcements: []*eventv1.Event{nil, {Type: 1, Payload: good.GetPayload()}}, Known: 1 << 31})
	f.Add([]byte{})
	f.Add([]byte{0x0a, 0xff})
	f.Fuzz(func(t *testing.T, payload []byte) {
		c := NewConsumer(ConsumerConfig{}, nil, discard)
		c.questions["q"] = question{from.ID, eventv1.EventType_EVENT_TYPE_DISCOVER, time.Now().Add(time.Minute)}
		v := c.DiscoverResponse(from.ID, &eventv1.Event{Payload: payload})
		_, known, _ := c.Figures()
		if v.Verdict != 0 && known != 0 {
			t.Errorf("verdict %v and %d providers", v, known)
		}
		for _, p := range c.dir.View() {
			if err := p.Check(p.PeerID); err != nil || p.Interval < domain.MinInterval || p.Interval > domain.MaxInterval {
				t.Errorf("in the view is %+v: %v", p, err)
			}
		}
	})
}

func FuzzMetricAvailable(f *testing.F) {
	k := fake.NewKey()
	b, err := proto.Marshal(&eventv1.MetricAvailable{InReplyTo: "q", Metric: &eventv1.Metric{PeerId: k.ID, Version: 1, Queue: &eventv1.Queue{Slots: 2}, Cpu: &eventv1.Cpu{Load: 0.5}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte{0x0a, 0x00})
	f.Fuzz(func(t *testing.T, payload []byte) {
		c := NewConsumer(ConsumerConfig{}, nil, discard)
		c.dir.Hear(domain.Announcement{PeerID: k.ID, Version: 1, Interval: time.Second}, true, time.Now())
		c.questions["q"] = question{k.ID, eventv1.EventType_EVENT_TYPE_METRIC_QUERY, time.Now().Add(time.Minute)}
		v := c.MetricAvailable(k.ID, &eventv1.Event{Payload: payload, Author: k.ID})
		p := c.dir.Get(k.ID)
		if (v.Verdict == 0) != (p.Load != nil) {
			t.Fatalf("verdict %v, load %v", v, p.Load)
		}
		if busy := p.Busy(); !(busy >= 0) || busy > 1e7 {
			t.Errorf("its load is %v", busy)
		}
	})
}

// FuzzOrder: the parser that finds a task's id in an encoded event agrees with the real one.
func FuzzOrder(f *testing.F) {
	b, err := proto.Marshal(&eventv1.TaskAccepted{TaskId: strings.Repeat("a", 32), Attempt: 1})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, payload []byte) {
		id := firstString(payload)
		var m eventv1.TaskAccepted
		if proto.Unmarshal(payload, &m) == nil && id != "" && m.GetTaskId() != id && strings.Count(string(payload), "\x0a\x20") < 2 {
			t.Errorf("got %q, and it is %q", id, m.GetTaskId())
		}
	})
}
