package app

import (
	"fmt"
	"math"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/shallot-net/shallot/kit/brokerclient"
	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
	"github.com/shallot-net/shallot/services/node/internal/domain"
)

// announcementOf decodes and checks a signed announcement, which came inside another event: the broker has not verified it.
func announcementOf(ev *eventv1.Event) (domain.Announcement, error) {
	var none domain.Announcement
	if ev.GetType() != eventv1.EventType_EVENT_TYPE_ANNOUNCEMENT {
		return none, fmt.Errorf("not an announcement")
	}
	if len(ev.GetSignature()) == 0 || len(ev.GetAttachment()) > 0 {
		return none, fmt.Errorf("not signed, or with an attachment")
	}
	if len(ev.GetPayload()) > domain.MaxAnnouncement {
		return none, fmt.Errorf("larger than %d bytes", domain.MaxAnnouncement)
	}
	var m eventv1.Announcement
	if err := proto.Unmarshal(ev.GetPayload(), &m); err != nil {
		return none, fmt.Errorf("does not decode")
	}
	if len(m.GetCapabilities()) > domain.MaxCapabilities {
		return none, fmt.Errorf("more than %d capabilities", domain.MaxCapabilities)
	}
	a := domain.Announcement{PeerID: m.GetPeerId(), Version: m.GetVersion(), Role: m.GetRole(), SealingKey: m.GetSealingKey(),
		Capabilities: capabilitiesOf(m.GetCapabilities()), Addresses: m.GetAddresses(), Interval: m.GetInterval().AsDuration(),
		Leaving: m.GetLeaving(), Effort: m.GetEffort(), Signed: ev}
	if err := a.Check(ev.GetAuthor()); err != nil {
		return none, err
	}
	if err := brokerclient.Verify(ev); err != nil { // last, because it costs the most
		return none, err
	}
	a.Clamp()
	return a, nil
}

// onionAnnouncementOf is announcementOf in anonymous mode.
func onionAnnouncementOf(ev *eventv1.Event) (domain.Announcement, error) {
	a, err := announcementOf(ev)
	if err == nil && !a.OnionOnly() {
		return domain.Announcement{}, fmt.Errorf("an address is not that of an onion service")
	}
	return a, err
}

func capabilitiesOf(in []*eventv1.Capability) []domain.Capability {
	out := make([]domain.Capability, len(in))
	for i, c := range in {
		out[i] = domain.Capability{Type: c.GetType(), Version: c.GetVersion(), Max: limitsOf(c.GetMaxLimits()), Attributes: c.GetAttributes()}
	}
	return out
}

// loadOf checks and takes apart a metric that its owner signed.
func loadOf(m *eventv1.Metric, age, interval time.Duration, now time.Time) domain.Load {
	q := m.GetQueue()
	return domain.Load{Pending: q.GetPending(), Running: q.GetRunning(), Slots: q.GetSlots(), Version: m.GetVersion(),
		At: now.Add(-age), Interval: interval, Metric: m}
}

// Bounds of a metric that a stranger sent.
const (
	maxGPUs      = 64
	maxModel     = 128 // bytes
	maxMetric    = 16 << 10
	maxQueueSize = 1 << 20
)

// metricOf decodes and checks a metric whose event the broker has verified.
func metricOf(ev *eventv1.Event) (*eventv1.MetricAvailable, error) {
	if len(ev.GetPayload()) > maxMetric || len(ev.GetAttachment()) > 0 {
		return nil, fmt.Errorf("larger than %d bytes, or with an attachment", maxMetric)
	}
	var m eventv1.MetricAvailable
	if err := proto.Unmarshal(ev.GetPayload(), &m); err != nil {
		return nil, fmt.Errorf("does not decode")
	}
	x := m.GetMetric()
	if x.GetPeerId() == "" || x.GetPeerId() != ev.GetAuthor() {
		return nil, fmt.Errorf("author is not peer_id")
	}
	if len(x.GetCpu().GetModel()) > maxModel || len(x.GetGpus()) > maxGPUs {
		return nil, fmt.Errorf("a name is too long, or there are too many GPUs")
	}
	for _, g := range x.GetGpus() {
		if len(g.GetModel()) > maxModel {
			return nil, fmt.Errorf("a name is too long")
		}
	}
	for _, f := range []float64{x.GetCpu().GetMhz(), x.GetCpu().GetLoad(), x.GetCpu().GetLoad1()} {
		if math.IsNaN(f) || math.IsInf(f, 0) || f < 0 {
			return nil, fmt.Errorf("a figure is not a number of 0 or more")
		}
	}
	if q := x.GetQueue(); max(q.GetPending(), q.GetRunning(), q.GetSlots()) > maxQueueSize {
		return nil, fmt.Errorf("a queue figure is out of bounds")
	}
	return &m, nil
}

// choiceOf is a Why as the task service keeps it.
func choiceOf(w *domain.Why) *taskv1.Choice {
	c := &taskv1.Choice{Because: w.Because, Known: uint32(w.Known), Qualified: uint32(w.Fit), Considered: make([]*taskv1.Considered, len(w.Considered))}
	for i, x := range w.Considered {
		c.Considered[i] = &taskv1.Considered{PeerId: x.Peer, Score: x.Cost, Verdict: x.Verdict, Reason: x.Reason}
	}
	return c
}
