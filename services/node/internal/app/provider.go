package app

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/shallot-net/shallot/kit/logging"
	discoveryv1 "github.com/shallot-net/shallot/proto/shallot/discovery/v1"
	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	metricv1 "github.com/shallot-net/shallot/proto/shallot/metric/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
	"github.com/shallot-net/shallot/services/node/internal/domain"
)

// PeerTable is discovery, as a provider's node uses it.
type PeerTable interface {
	// WatchPeers gives every peer, then synced, then changes; it returns when the stream broke.
	WatchPeers(ctx context.Context, peer func(*discoveryv1.Peer), forgotten func(id string), synced func()) error
	// UpdateSelf sets what this node announces. puzzle is what a stranger's submission costs; nil for nothing.
	UpdateSelf(ctx context.Context, capabilities []*eventv1.Capability, sealingKey string, puzzle *eventv1.Puzzle) error
}

// MetricTable is metric, as a provider's node uses it.
type MetricTable interface {
	// WatchMetrics gives every metric, then changes; opened is told when the stream stands. It returns when it broke.
	WatchMetrics(ctx context.Context, opened func(), metric func(*metricv1.KnownMetric), expired func(id string)) error
	ReportQueue(ctx context.Context, q *eventv1.Queue) error
	// Refresh asks a peer for its metric as it is now; nil when it did not answer within the time. An error is the service's own.
	Refresh(ctx context.Context, peer string, within time.Duration) (*metricv1.KnownMetric, error)
}

// TaskDescriber says what the task service is.
type TaskDescriber interface {
	Describe(ctx context.Context) (*taskv1.DescribeResponse, error)
	// WatchQueue gives the queue's figures now and at every change, and another description when Describe says something else; it
	// returns when the stream broke.
	WatchQueue(ctx context.Context, news func(q *eventv1.Queue, description uint64)) error
}

// maxSnapshot bounds the peers that are kept; discovery's view has a bound of its own.
const maxSnapshot = 4096

// Provider is a provider's snapshot of its peers and their metrics, so that a submission costs no look-up, and what keeps
// discovery and metric told of this node's task service.
type Provider struct {
	peers   PeerTable
	metrics MetricTable
	tasks   TaskDescriber
	dialer  Dialer
	log     *slog.Logger

	mu       sync.Mutex
	trails   domain.Trails[*eventv1.Metric]
	rows     map[string]*domain.Provider
	silent   map[string]time.Time // candidates that did not answer, until when that counts
	seen     map[string]uint64    // the round of watching in which a peer was told last
	round    uint64
	own      *metricv1.KnownMetric
	ownID    string
	self     *taskv1.DescribeResponse
	queue    *eventv1.Queue
	describe chan struct{}
	update   chan struct{}
	report   chan struct{}
}

// NewProvider makes one; Run it.
func NewProvider(peers PeerTable, metrics MetricTable, tasks TaskDescriber, dialer Dialer, log *slog.Logger) *Provider {
	return &Provider{peers: peers, metrics: metrics, tasks: tasks, dialer: dialer, log: log, rows: map[string]*domain.Provider{}, silent: map[string]time.Time{}, seen: map[string]uint64{},
		describe: make(chan struct{}, 1), update: make(chan struct{}, 1), report: make(chan struct{}, 1)}
}

// SetOwnPeerID notes who this node is.
func (p *Provider) SetOwnPeerID(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ownID = id
}

// OwnPeerID is this node's peer id; "" until the broker has told it.
func (p *Provider) OwnPeerID() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ownID
}

// Addresses are where another provider says that it is; none where it is not known.
func (p *Provider) Addresses(peer string) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r := p.rows[peer]; r != nil {
		return r.Addresses
	}
	return nil
}

// OwnMetric is this node's own metric; nil until there is one.
func (p *Provider) OwnMetric() *eventv1.Metric {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.own.GetMetric()
}

// Self is what the task service said of itself; nil until it has.
func (p *Provider) Self() *taskv1.DescribeResponse {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.self
}

// Available counts the peers that are.
func (p *Provider) Available() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, r := range p.rows {
		if r.State == domain.StateAvailable {
			n++
		}
	}
	return n
}

// TaskServiceUp says that a session with the task service stands: perhaps it is another one than before.
func (p *Provider) TaskServiceUp() { kick(p.describe) }

// Run keeps the snapshots fresh and the others told, until ctx ends.
func (p *Provider) Run(ctx context.Context) error {
	var loops sync.WaitGroup
	loops.Go(func() { again(ctx, p.log, "discovery's watch", p.watchPeers) })
	loops.Go(func() { again(ctx, p.log, "metric's watch", p.watchMetrics) })
	loops.Go(func() { again(ctx, p.log, "task's queue figures", p.watchQueue) })
	loops.Go(func() { p.told(ctx, p.describe, "description", p.describeSelf) })
	loops.Go(func() { p.told(ctx, p.update, "announcement", p.updateSelf) })
	loops.Go(func() { p.told(ctx, p.report, "queue figures", p.reportQueue) })
	loops.Wait()
	return nil
}

// again calls a watch, and again when it returns, until ctx ends.
func again(ctx context.Context, log *slog.Logger, what string, watch func(context.Context) error) {
	pause := domain.Backoff{First: 10 * time.Millisecond, Max: time.Second}
	failures := 0
	for ctx.Err() == nil {
		began := time.Now()
		err := watch(ctx)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > 2*time.Second {
			failures = 0
		}
		failures++
		log.Debug("a stream broke and is opened again", slog.String("stream", what), logging.Err(err))
		sleep(ctx, pause.After(failures, nil))
	}
}

// told calls f at every kick, and again until it succeeds.
func (p *Provider) told(ctx context.Context, kicks <-chan struct{}, what string, f func(context.Context) error) {
	pause := domain.Backoff{First: 20 * time.Millisecond, Max: time.Second}
	for {
		select {
		case <-ctx.Done():
			return
		case <-kicks:
		}
		for n := 1; ; n++ {
			call, cancel := context.WithTimeout(ctx, 3*time.Second)
			err := f(call)
			cancel()
			if err == nil || ctx.Err() != nil {
				break
			}
			if !transient(err) { // it will say the same again, until somebody mends something
				p.log.Warn("another service refuses what it was told", slog.String("what", what), logging.Err(err))
				sleep(ctx, domain.Jitter(10*time.Second, nil))
				continue
			}
			p.log.Debug("another service was not told", slog.String("what", what), logging.Err(err))
			sleep(ctx, pause.After(n, nil))
		}
	}
}

func (p *Provider) watchPeers(ctx context.Context) error {
	p.mu.Lock()
	p.round++
	p.mu.Unlock()
	kick(p.update) // a new discovery service knows what its store says, which may be old
	return p.peers.WatchPeers(ctx, p.peer, p.forgotten, p.synced)
}

func (p *Provider) peer(m *discoveryv1.Peer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.rows[m.GetPeerId()]
	if r == nil {
		if len(p.rows) >= maxSnapshot {
			return
		}
		r = &domain.Provider{}
		p.rows[m.GetPeerId()] = r
	}
	load := r.Load
	*r = domain.Provider{State: m.GetState(), Connected: m.GetConnected(), Load: load,
		Announcement: domain.Announcement{PeerID: m.GetPeerId(), Version: m.GetVersion(), Role: m.GetRole(), SealingKey: m.GetSealingKey(),
			Capabilities: capabilitiesOf(m.GetCapabilities()), Addresses: m.GetAddresses()}}
	if m.GetAnnouncement() != nil {
		r.Signed = m.GetAnnouncement()
	}
	p.seen[m.GetPeerId()] = p.round
}

func (p *Provider) forgotten(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.rows, id)
	delete(p.seen, id)
}

// synced forgets whom a new discovery service did not tell of.
func (p *Provider) synced() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for id := range p.rows {
		if p.seen[id] != p.round {
			delete(p.rows, id)
			delete(p.seen, id)
		}
	}
}

func (p *Provider) watchMetrics(ctx context.Context) error {
	return p.metrics.WatchMetrics(ctx, p.metricsOpened, p.metric, p.expired)
}

func (p *Provider) metricsOpened() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range p.rows {
		r.Load = nil
	}
	kick(p.report) // a new metric service does not know the queue
}

func (p *Provider) metric(m *metricv1.KnownMetric) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.trails.Add(m.GetMetric().GetPeerId(), m.GetMetric(), time.Now())
	if m.GetOwn() {
		p.own = m
		return
	}
	r := p.rows[m.GetMetric().GetPeerId()]
	if r == nil { // its announcement comes later than its metric
		if len(p.rows) >= maxSnapshot {
			return
		}
		r = &domain.Provider{Announcement: domain.Announcement{PeerID: m.GetMetric().GetPeerId()}, State: domain.StateUnavailable}
		p.rows[r.PeerID] = r
		p.seen[r.PeerID] = p.round
	}
	l := loadOf(m.GetMetric(), m.GetAge().AsDuration(), m.GetMetric().GetInterval().AsDuration(), time.Now())
	r.Load = &l
}

func (p *Provider) expired(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.rows[id]
	switch {
	case r == nil:
	case r.Signed == nil: // only its metric was ever heard of
		delete(p.rows, id)
		delete(p.seen, id)
	default:
		r.Load = nil
	}
}

func (p *Provider) watchQueue(ctx context.Context) error {
	described, first := uint64(0), true
	return p.tasks.WatchQueue(ctx, func(q *eventv1.Queue, description uint64) {
		p.mu.Lock()
		p.queue = q
		p.mu.Unlock()
		kick(p.report)
		if first || description != described { // what was said before this stream stood may have been missed
			described, first = description, false
			kick(p.describe)
		}
	})
}

func (p *Provider) reportQueue(ctx context.Context) error {
	p.mu.Lock()
	q := p.queue
	p.mu.Unlock()
	if q == nil {
		return nil
	}
	return p.metrics.ReportQueue(ctx, q)
}

func (p *Provider) describeSelf(ctx context.Context) error {
	d, err := p.tasks.Describe(ctx)
	if err != nil {
		return err
	}
	p.mu.Lock()
	same := p.self != nil && p.self.GetSealingKey() == d.GetSealingKey() && sameCapabilities(p.self.GetCapabilities(), d.GetCapabilities()) && proto.Equal(p.self.GetPuzzle(), d.GetPuzzle())
	p.self = d
	p.mu.Unlock()
	if !same {
		kick(p.update)
	}
	return nil
}

func sameCapabilities(a, b []*eventv1.Capability) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if !proto.Equal(a[i], b[i]) {
			return false
		}
	}
	return true
}

func (p *Provider) updateSelf(ctx context.Context) error {
	p.mu.Lock()
	d := p.self
	p.mu.Unlock()
	if d == nil {
		return nil
	}
	return p.peers.UpdateSelf(ctx, d.GetCapabilities(), d.GetSealingKey(), d.GetPuzzle())
}
