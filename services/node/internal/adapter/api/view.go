package api

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shallot-net/shallot/kit/fault"
	discoveryv1 "github.com/shallot-net/shallot/proto/shallot/discovery/v1"
	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	metricv1 "github.com/shallot-net/shallot/proto/shallot/metric/v1"
	"github.com/shallot-net/shallot/services/node/internal/app"
	"github.com/shallot-net/shallot/services/node/internal/domain"
)

// ProviderView is the View of a provider: discovery's and metric's.
type ProviderView struct {
	Discovery discoveryv1.DiscoveryServiceClient
	Metric    metricv1.MetricServiceClient
	Snapshot  *app.Provider
}

// ListPeers asks discovery.
func (v ProviderView) ListPeers(ctx context.Context, q PeerQuery) ([]*discoveryv1.Peer, string, error) {
	r, err := v.Discovery.ListPeers(ctx, &discoveryv1.ListPeersRequest{Capability: q.Capability, State: q.State, PageSize: q.PageSize, PageToken: q.PageToken})
	return r.GetPeers(), r.GetNextPageToken(), err
}

// GetPeer asks discovery.
func (v ProviderView) GetPeer(ctx context.Context, id string) (*discoveryv1.Peer, error) {
	r, err := v.Discovery.GetPeer(ctx, &discoveryv1.GetPeerRequest{PeerId: id})
	return r.GetPeer(), err
}

// ListMetrics asks metric.
func (v ProviderView) ListMetrics(ctx context.Context, size uint32, token string) ([]*metricv1.KnownMetric, string, error) {
	r, err := v.Metric.ListMetrics(ctx, &metricv1.ListMetricsRequest{PageSize: size, PageToken: token})
	return r.GetMetrics(), r.GetNextPageToken(), err
}

// GetMetric asks metric.
func (v ProviderView) GetMetric(ctx context.Context, id string) (*metricv1.KnownMetric, error) {
	r, err := v.Metric.GetMetric(ctx, &metricv1.GetMetricRequest{PeerId: id})
	return r.GetMetric(), err
}

// Join asks discovery to dial.
func (v ProviderView) Join(ctx context.Context, address string) (string, error) {
	r, err := v.Discovery.Join(ctx, &discoveryv1.JoinRequest{Address: address})
	return r.GetPeerId(), err
}

// Available counts in the snapshot.
func (v ProviderView) Available() int { return v.Snapshot.Available() }

// Capabilities are what the task service executes.
func (v ProviderView) Capabilities() []*eventv1.Capability {
	return v.Snapshot.Self().GetCapabilities()
}

// ConsumerView is the View of a consumer: node's own directory.
type ConsumerView struct {
	Directory *app.Consumer
	// RoundTrips asks the broker.
	RoundTrips func(ctx context.Context) (map[string]time.Duration, error)
}

const defaultPage = 50

func pageSize(n uint32) int {
	if n == 0 {
		return defaultPage
	}
	return int(min(n, maxPage))
}

// ListPeers lists by peer id; a page's token is the last id of the one before.
func (v ConsumerView) ListPeers(ctx context.Context, q PeerQuery) ([]*discoveryv1.Peer, string, error) {
	v.measure(ctx)
	found, more := v.Directory.Providers(q.PageToken, pageSize(q.PageSize), func(p *domain.Provider) bool {
		return (q.State == "" || p.State == q.State) && (q.Capability == "" || p.Capability(q.Capability) != nil)
	})
	out := make([]*discoveryv1.Peer, 0, len(found))
	for i := range found {
		out = append(out, peerOf(&found[i]))
	}
	return out, nextToken(found, more), nil
}

func nextToken(page []domain.Provider, more bool) string {
	if !more {
		return ""
	}
	return page[len(page)-1].PeerID
}

func (v ConsumerView) measure(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	rtts, err := v.RoundTrips(ctx)
	if err != nil {
		return // the broker is away: the last ones stay
	}
	for id, d := range rtts {
		v.Directory.SetRTT(id, d)
	}
}

func (v ConsumerView) one(id string) (domain.Provider, bool) {
	found, _ := v.Directory.Providers("", 1, func(p *domain.Provider) bool { return p.PeerID == id })
	if len(found) == 0 {
		return domain.Provider{}, false
	}
	return found[0], true
}

// GetPeer looks in the directory.
func (v ConsumerView) GetPeer(ctx context.Context, id string) (*discoveryv1.Peer, error) {
	v.measure(ctx)
	p, ok := v.one(id)
	if !ok {
		return nil, fault.NotFound("PEER_NOT_FOUND", "this node does not know the peer %s", id)
	}
	return peerOf(&p), nil
}

// ListMetrics lists what providers have answered, by peer id.
func (v ConsumerView) ListMetrics(_ context.Context, size uint32, token string) ([]*metricv1.KnownMetric, string, error) {
	found, more := v.Directory.Providers(token, pageSize(size), func(p *domain.Provider) bool { return p.Load != nil })
	out := make([]*metricv1.KnownMetric, 0, len(found))
	for i := range found {
		out = append(out, metricOf(&found[i]))
	}
	return out, nextToken(found, more), nil
}

// GetMetric looks in the directory.
func (v ConsumerView) GetMetric(_ context.Context, id string) (*metricv1.KnownMetric, error) {
	p, ok := v.one(id)
	if !ok || p.Load == nil {
		return nil, fault.NotFound("METRIC_NOT_FOUND", "no fresh metric is known of the peer %s", id)
	}
	return metricOf(&p), nil
}

// Join dials, and keeps the address.
func (v ConsumerView) Join(ctx context.Context, address string) (string, error) {
	return v.Directory.Join(ctx, address)
}

// Available counts in the directory.
func (v ConsumerView) Available() int {
	n, _, _ := v.Directory.Figures()
	return n
}

// Capabilities are none: a consumer executes nothing.
func (v ConsumerView) Capabilities() []*eventv1.Capability { return nil }

func peerOf(p *domain.Provider) *discoveryv1.Peer {
	out := &discoveryv1.Peer{PeerId: p.PeerID, Role: p.Role, State: p.State, SealingKey: p.SealingKey, Addresses: p.Addresses,
		FirstSeen: timestamppb.New(p.FirstSeen), LastSeen: timestamppb.New(p.LastSeen), Connected: p.Connected, Version: p.Version}
	if p.RTT > 0 && p.Connected {
		out.Rtt = durationpb.New(p.RTT)
	}
	for _, c := range p.Announcement.Capabilities {
		out.Capabilities = append(out.Capabilities, &eventv1.Capability{Type: c.Type, Version: c.Version, Attributes: c.Attributes, MaxLimits: limits(c.Max)})
	}
	if ev, ok := p.Signed.(*eventv1.Event); ok {
		out.Announcement = ev
	}
	return out
}

func limits(l domain.Limits) *eventv1.Limits {
	out := &eventv1.Limits{Memory: l.Memory, Output: l.Output}
	if l.Time > 0 {
		out.Time = durationpb.New(l.Time)
	}
	return out
}

func metricOf(p *domain.Provider) *metricv1.KnownMetric {
	m, _ := p.Load.Metric.(*eventv1.Metric) // nil where it is not: then only its age is shown
	return &metricv1.KnownMetric{Metric: m, ReceivedAt: timestamppb.New(p.Load.At), Age: durationpb.New(time.Since(p.Load.At))}
}
