package broker_test

import (
	"errors"
	"math"
	"reflect"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	"github.com/shallot-net/shallot/services/metric/internal/adapter/broker"
	"github.com/shallot-net/shallot/services/metric/internal/domain"
)

func good() domain.Metric {
	return domain.Metric{PeerID: "12D3KooWGood", Version: 7, Interval: 15 * time.Second,
		CPU:    domain.CPU{Model: "Example CPU", Cores: 4, Threads: 8, MHz: 3000, Load: 0.5, Load1: 2.5},
		Memory: domain.Space{Total: 3, Free: 1, Used: 2}, Disk: domain.Space{Total: 30, Free: 10, Used: 20},
		GPUs: []domain.GPU{{Model: "Example GPU", Memory: 5}}, Queue: domain.Queue{Pending: 1, Running: 2, Slots: 3, Capacity: 4}}
}

func event(t testing.TB, m *eventv1.MetricAvailable) *eventv1.Event {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return &eventv1.Event{Type: eventv1.EventType_EVENT_TYPE_METRIC_AVAILABLE, Payload: b, Author: m.GetMetric().GetPeerId()}
}

func TestMetricsSurviveTheirEncoding(t *testing.T) {
	got, question, err := broker.Hear(event(t, &eventv1.MetricAvailable{Metric: broker.Encode(good()), InReplyTo: "q"}))
	if err != nil || question != "q" || !reflect.DeepEqual(got, good()) {
		t.Errorf("Hear = %+v, %q, %v", got, question, err)
	}
}

func TestHearRefuses(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(m *eventv1.Metric, ev *eventv1.Event)
		reason string
	}{
		{"another's metric", func(_ *eventv1.Metric, ev *eventv1.Event) { ev.Author = "12D3KooWOther" }, "AUTHOR_MISMATCH"},
		{"nobody's metric", func(_ *eventv1.Metric, ev *eventv1.Event) { ev.Author, ev.Payload = "", nil }, "AUTHOR_MISMATCH"},
		{"bytes", func(_ *eventv1.Metric, ev *eventv1.Event) { ev.Payload = []byte("\xff") }, "METRIC_INVALID"},
		{"another type", func(_ *eventv1.Metric, ev *eventv1.Event) { ev.Type = eventv1.EventType_EVENT_TYPE_PING }, "METRIC_INVALID"},
		{"an attachment", func(_ *eventv1.Metric, ev *eventv1.Event) { ev.Attachment = []byte{1} }, "METRIC_TOO_LARGE"},
		{"16 KiB", func(_ *eventv1.Metric, ev *eventv1.Event) { ev.Payload = append(ev.Payload, make([]byte, 16<<10)...) }, "METRIC_TOO_LARGE"},
		{"a ratio that is no number", func(m *eventv1.Metric, _ *eventv1.Event) { m.Cpu.Load = math.NaN() }, "CPU_INVALID"},
		{"no interval", func(m *eventv1.Metric, _ *eventv1.Event) { m.Interval = nil }, "INTERVAL_INVALID"},
		{"an interval that is no duration", func(m *eventv1.Metric, _ *eventv1.Event) { m.Interval = &durationpb.Duration{Seconds: math.MaxInt64} }, "INTERVAL_INVALID"},
		{"65 GPUs", func(m *eventv1.Metric, _ *eventv1.Event) { m.Gpus = make([]*eventv1.Gpu, 65) }, "GPU_INVALID"},
	} {
		m := broker.Encode(good())
		var none eventv1.Event
		c.change(m, &none)
		ev := event(t, &eventv1.MetricAvailable{Metric: m})
		c.change(proto.CloneOf(m), ev)
		var why *domain.Invalid
		if _, _, err := broker.Hear(ev); !errors.As(err, &why) || why.Reason != c.reason {
			t.Errorf("%s: Hear = %v, want %s", c.name, err, c.reason)
		}
	}
}

// FuzzHear: whatever a payload holds, it is refused by reason or gives a metric within all bounds that encodes again to
// the same.
func FuzzHear(f *testing.F) {
	for _, m := range []*eventv1.MetricAvailable{{Metric: broker.Encode(good())}, {Metric: &eventv1.Metric{PeerId: "a", Version: 1, Interval: durationpb.New(1)}}, {}} {
		f.Add(event(f, m).GetPayload())
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		var msg eventv1.MetricAvailable
		author := "12D3KooWGood"
		if proto.Unmarshal(payload, &msg) == nil {
			author = msg.GetMetric().GetPeerId()
		}
		m, _, err := broker.Hear(&eventv1.Event{Type: eventv1.EventType_EVENT_TYPE_METRIC_AVAILABLE, Payload: payload, Author: author})
		if err != nil {
			var why *domain.Invalid
			if !errors.As(err, &why) || why.Reason == "" {
				t.Fatalf("refused without a reason: %v", err)
			}
			return
		}
		again, err := broker.Decode(broker.Encode(m))
		if err != nil || !reflect.DeepEqual(again, m) {
			t.Fatalf("encoded and decoded it is %+v, was %+v (%v)", again, m, err)
		}
		if s := m.Sound(); s.CPU != m.CPU && s.CPU.Model == m.CPU.Model || s.Memory != m.Memory || s.Disk != m.Disk {
			t.Fatalf("heard as valid, but not sound: %+v", m)
		}
	})
}
