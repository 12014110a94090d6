// Package peers is discovery and metric as a provider's node calls them.
package peers

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	discoveryv1 "github.com/shallot-net/shallot/proto/shallot/discovery/v1"
	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	metricv1 "github.com/shallot-net/shallot/proto/shallot/metric/v1"
)

// Discovery calls the discovery service.
type Discovery struct {
	// API is for calls that are handed on as they are.
	API discoveryv1.DiscoveryServiceClient
}

// NewDiscovery makes a client over a connection.
func NewDiscovery(conn grpc.ClientConnInterface) *Discovery {
	return &Discovery{discoveryv1.NewDiscoveryServiceClient(conn)}
}

// WatchPeers follows the peer table; see app.PeerTable.
func (d *Discovery) WatchPeers(ctx context.Context, peer func(*discoveryv1.Peer), forgotten func(string), synced func()) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := d.API.WatchPeers(ctx, &discoveryv1.WatchPeersRequest{})
	if err != nil {
		return err
	}
	for {
		r, err := s.Recv()
		if err != nil {
			return err
		}
		switch x := r.GetChange().(type) {
		case *discoveryv1.WatchPeersResponse_Peer:
			peer(x.Peer)
		case *discoveryv1.WatchPeersResponse_ForgottenPeerId:
			forgotten(x.ForgottenPeerId)
		case *discoveryv1.WatchPeersResponse_Synced:
			synced()
		}
	}
}

// UpdateSelf sets what this node announces.
func (d *Discovery) UpdateSelf(ctx context.Context, capabilities []*eventv1.Capability, sealingKey string, puzzle *eventv1.Puzzle) error {
	_, err := d.API.UpdateSelf(ctx, &discoveryv1.UpdateSelfRequest{Capabilities: capabilities, SealingKey: sealingKey, Puzzle: puzzle})
	return err
}

// Metric calls the metric service.
type Metric struct {
	// API is for calls that are handed on as they are.
	API metricv1.MetricServiceClient
}

// NewMetric makes a client over a connection.
func NewMetric(conn grpc.ClientConnInterface) *Metric {
	return &Metric{metricv1.NewMetricServiceClient(conn)}
}

// WatchMetrics follows the metrics; see app.MetricTable.
func (m *Metric) WatchMetrics(ctx context.Context, opened func(), metric func(*metricv1.KnownMetric), expired func(string)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := m.API.WatchMetrics(ctx, &metricv1.WatchMetricsRequest{})
	if err != nil {
		return err
	}
	opened()
	for {
		r, err := s.Recv()
		if err != nil {
			return err
		}
		switch x := r.GetChange().(type) {
		case *metricv1.WatchMetricsResponse_Metric:
			metric(x.Metric)
		case *metricv1.WatchMetricsResponse_ExpiredPeerId:
			expired(x.ExpiredPeerId)
		}
	}
}

// ReportQueue tells the metric service what the task service has to do.
func (m *Metric) ReportQueue(ctx context.Context, q *eventv1.Queue) error {
	_, err := m.API.ReportQueue(ctx, &metricv1.ReportQueueRequest{Queue: q})
	return err
}

// Refresh asks a peer for its metric as it is now; see app.MetricTable.
func (m *Metric) Refresh(ctx context.Context, peer string, within time.Duration) (*metricv1.KnownMetric, error) {
	r, err := m.API.RefreshMetrics(ctx, &metricv1.RefreshMetricsRequest{PeerIds: []string{peer}, Timeout: durationpb.New(within)})
	if err != nil || len(r.GetMetrics()) == 0 {
		return nil, err
	}
	return r.GetMetrics()[0], nil
}
