package fake

import (
	"context"
	"crypto/ed25519"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/shallot-net/shallot/kit/brokerclient"
	"github.com/shallot-net/shallot/kit/fault"
	discoveryv1 "github.com/shallot-net/shallot/proto/shallot/discovery/v1"
	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	metricv1 "github.com/shallot-net/shallot/proto/shallot/metric/v1"
)

// Announce makes a signed announcement; sign puts author and signature on an event.
func Announce(id string, version uint64, addresses []string, interval time.Duration, sign func(*eventv1.Event) *eventv1.Event, types ...string) *eventv1.Event {
	a := &eventv1.Announcement{PeerId: id, Version: version, Role: "provider", SealingKey: "age1pq1fakefakefakefake", Addresses: addresses, Interval: durationpb.New(interval)}
	for _, t := range types {
		a.Capabilities = append(a.Capabilities, Capability(t))
	}
	b, err := proto.Marshal(a)
	if err != nil {
		panic(err)
	}
	return sign(&eventv1.Event{Id: brokerclient.NewID(), Type: eventv1.EventType_EVENT_TYPE_ANNOUNCEMENT, Payload: b})
}

// Key is an identity that signs.
type Key struct {
	ID  string
	key ed25519.PrivateKey
}

// NewKey makes one.
func NewKey() Key {
	pub, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		panic(err)
	}
	return Key{brokerclient.PeerID(pub), key}
}

// Sign returns ev signed.
func (k Key) Sign(ev *eventv1.Event) *eventv1.Event {
	out := proto.CloneOf(ev)
	out.Author = k.ID
	out.Signature = ed25519.Sign(k.key, brokerclient.SignedBytes(out))
	return out
}

// Discovery is a discovery service whose table is set by the test.
type Discovery struct {
	discoveryv1.UnimplementedDiscoveryServiceServer
	Switch
	mu      sync.Mutex
	peers   map[string]*discoveryv1.Peer
	watches map[chan *discoveryv1.WatchPeersResponse]struct{}
	updates []*discoveryv1.UpdateSelfRequest
	Joined  []string
}

// NewDiscovery makes one without peers.
func NewDiscovery() *Discovery {
	return &Discovery{peers: map[string]*discoveryv1.Peer{}, watches: map[chan *discoveryv1.WatchPeersResponse]struct{}{}}
}

// Register serves it.
func (d *Discovery) Register(s grpc.ServiceRegistrar) {
	discoveryv1.RegisterDiscoveryServiceServer(s, d)
}

// SetPeer changes the table.
func (d *Discovery) SetPeer(p *discoveryv1.Peer) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.peers[p.GetPeerId()] = p
	d.tell(&discoveryv1.WatchPeersResponse{Change: &discoveryv1.WatchPeersResponse_Peer{Peer: p}})
}

// Forget removes a peer; silently: without telling those who watch.
func (d *Discovery) Forget(id string, silently bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.peers, id)
	if !silently {
		d.tell(&discoveryv1.WatchPeersResponse{Change: &discoveryv1.WatchPeersResponse_ForgottenPeerId{ForgottenPeerId: id}})
	}
}

func (d *Discovery) tell(r *discoveryv1.WatchPeersResponse) {
	for w := range d.watches {
		w <- r
	}
}

// Updates is what UpdateSelf was told.
func (d *Discovery) Updates() []*discoveryv1.UpdateSelfRequest {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]*discoveryv1.UpdateSelfRequest(nil), d.updates...)
}

// WatchPeers is of the contract.
func (d *Discovery) WatchPeers(_ *discoveryv1.WatchPeersRequest, out grpc.ServerStreamingServer[discoveryv1.WatchPeersResponse]) error {
	ctx, cancel, err := d.during(out.Context())
	if err != nil {
		return err
	}
	defer cancel()
	w := make(chan *discoveryv1.WatchPeersResponse, 4096)
	d.mu.Lock()
	for _, p := range d.peers {
		w <- &discoveryv1.WatchPeersResponse{Change: &discoveryv1.WatchPeersResponse_Peer{Peer: p}}
	}
	w <- &discoveryv1.WatchPeersResponse{Change: &discoveryv1.WatchPeersResponse_Synced{Synced: &discoveryv1.Synced{}}}
	d.watches[w] = struct{}{}
	d.mu.Unlock()
	defer func() {
		d.mu.Lock()
		delete(d.watches, w)
		d.mu.Unlock()
	}()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case r := <-w:
			if err := out.Send(r); err != nil {
				return err
			}
		}
	}
}

// UpdateSelf is of the contract.
func (d *Discovery) UpdateSelf(_ context.Context, r *discoveryv1.UpdateSelfRequest) (*discoveryv1.UpdateSelfResponse, error) {
	if _, err := d.alive(); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.updates = append(d.updates, r)
	return &discoveryv1.UpdateSelfResponse{}, nil
}

// ListPeers is of the contract, without pages.
func (d *Discovery) ListPeers(context.Context, *discoveryv1.ListPeersRequest) (*discoveryv1.ListPeersResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := &discoveryv1.ListPeersResponse{}
	for _, p := range d.peers {
		out.Peers = append(out.Peers, p)
	}
	return out, nil
}

// GetPeer is of the contract.
func (d *Discovery) GetPeer(_ context.Context, r *discoveryv1.GetPeerRequest) (*discoveryv1.GetPeerResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.peers[r.GetPeerId()]
	if p == nil {
		return nil, fault.NotFound("PEER_NOT_FOUND", "not known")
	}
	return &discoveryv1.GetPeerResponse{Peer: p}, nil
}

// Join is of the contract: it notes the address.
func (d *Discovery) Join(_ context.Context, r *discoveryv1.JoinRequest) (*discoveryv1.JoinResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.Joined = append(d.Joined, r.GetAddress())
	return &discoveryv1.JoinResponse{PeerId: "joined"}, nil
}

// Metric is a metric service whose table is set by the test.
type Metric struct {
	metricv1.UnimplementedMetricServiceServer
	Switch
	mu      sync.Mutex
	metrics map[string]*metricv1.KnownMetric
	watches map[chan *metricv1.WatchMetricsResponse]struct{}
	reports []*eventv1.Queue
}

// NewMetric makes one that knows nothing.
func NewMetric() *Metric {
	return &Metric{metrics: map[string]*metricv1.KnownMetric{}, watches: map[chan *metricv1.WatchMetricsResponse]struct{}{}}
}

// Register serves it.
func (m *Metric) Register(s grpc.ServiceRegistrar) { metricv1.RegisterMetricServiceServer(s, m) }

// SetMetric changes the table.
func (m *Metric) SetMetric(k *metricv1.KnownMetric) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.metrics[k.GetMetric().GetPeerId()] = k
	for w := range m.watches {
		w <- &metricv1.WatchMetricsResponse{Change: &metricv1.WatchMetricsResponse_Metric{Metric: k}}
	}
}

// Expire removes a metric.
func (m *Metric) Expire(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.metrics, id)
	for w := range m.watches {
		w <- &metricv1.WatchMetricsResponse{Change: &metricv1.WatchMetricsResponse_ExpiredPeerId{ExpiredPeerId: id}}
	}
}

// Reports is what ReportQueue was told.
func (m *Metric) Reports() []*eventv1.Queue {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]*eventv1.Queue(nil), m.reports...)
}

// WatchMetrics is of the contract.
func (m *Metric) WatchMetrics(_ *metricv1.WatchMetricsRequest, out grpc.ServerStreamingServer[metricv1.WatchMetricsResponse]) error {
	ctx, cancel, err := m.during(out.Context())
	if err != nil {
		return err
	}
	defer cancel()
	w := make(chan *metricv1.WatchMetricsResponse, 4096)
	m.mu.Lock()
	for _, k := range m.metrics {
		w <- &metricv1.WatchMetricsResponse{Change: &metricv1.WatchMetricsResponse_Metric{Metric: k}}
	}
	m.watches[w] = struct{}{}
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		delete(m.watches, w)
		m.mu.Unlock()
	}()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case r := <-w:
			if err := out.Send(r); err != nil {
				return err
			}
		}
	}
}

// ReportQueue is of the contract.
func (m *Metric) ReportQueue(_ context.Context, r *metricv1.ReportQueueRequest) (*metricv1.ReportQueueResponse, error) {
	if _, err := m.alive(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reports = append(m.reports, r.GetQueue())
	return &metricv1.ReportQueueResponse{}, nil
}

// ListMetrics is of the contract, without pages.
func (m *Metric) ListMetrics(context.Context, *metricv1.ListMetricsRequest) (*metricv1.ListMetricsResponse, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := &metricv1.ListMetricsResponse{}
	for _, k := range m.metrics {
		out.Metrics = append(out.Metrics, k)
	}
	return out, nil
}

// GetMetric is of the contract.
func (m *Metric) GetMetric(_ context.Context, r *metricv1.GetMetricRequest) (*metricv1.GetMetricResponse, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	k := m.metrics[r.GetPeerId()]
	if k == nil {
		return nil, fault.NotFound("METRIC_NOT_FOUND", "not known")
	}
	return &metricv1.GetMetricResponse{Metric: k}, nil
}

// RefreshMetrics is of the contract: who is in the table answers at once.
func (m *Metric) RefreshMetrics(_ context.Context, r *metricv1.RefreshMetricsRequest) (*metricv1.RefreshMetricsResponse, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := &metricv1.RefreshMetricsResponse{}
	for _, id := range r.GetPeerIds() {
		if k := m.metrics[id]; k != nil {
			fresh := proto.CloneOf(k)
			fresh.Age = nil
			out.Metrics = append(out.Metrics, fresh)
		}
	}
	return out, nil
}
