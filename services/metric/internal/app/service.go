package app

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"golang.org/x/time/rate"

	"github.com/shallot-net/shallot/kit/crew"
	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/lifecycle"
	"github.com/shallot-net/shallot/kit/logging"
	"github.com/shallot-net/shallot/kit/pace"
	"github.com/shallot-net/shallot/services/metric/internal/domain"
)

// DefaultPace: a metric event is about half a kilobyte, a sixth of an announcement, so twice as many of them cost a
// third of what announcements do. Five seconds at least suffice in a small network, because marked changes are told at once
// and a placement asks its candidates: what is gossiped says what machines there are. So in a large network an interval may have hours, as announcements'.
var DefaultPace = pace.Config{Min: 5 * time.Second, Max: 12 * time.Hour, PerPeer: time.Second}

const (
	DefaultMaxMetrics = 256
	DefaultSample     = 2 * time.Second

	// A metric that is published before this node has connections is heard by nobody, and this service does not know when it
	// has them: so the first reports follow each other quickly, each wait twice the one before, unless the network turns out to be a large one.
	firstWait    = 400 * time.Millisecond
	firstReports = 4
	greeters     = 8  // reports that one newcomer triggers in a whole small network, on average
	greetUpTo    = 16 // providers of a network in which newcomers are greeted; see greets

	changesAtFirst     = 5 // marked changes that are told in the shortest interval, at most
	changesPerInterval = 2 // the same in what an interval has grown by
	tellEvery          = 5 * time.Second
	callTimeout        = 5 * time.Second
	versionBlock       = 4096 // every answer to a query takes one
)

// Config of a Service; zero values take the defaults.
type Config struct {
	Pace       pace.Config
	MaxMetrics int
	Sample     time.Duration // between two measurements
	Coarse     bool          // tell classes that many nodes share instead of figures: anonymous mode
	Log        *slog.Logger
	Counter    Counter

	Host     Host
	Events   Events
	Versions Versions
	Shared   Shared // nil: there are no other replicas
	HostID   string // that no other host has; needed with Shared

	// Stored is told whether the shared store answers, at first and at every change. It must not block.
	Stored func(ok bool)
}

// Service is metric. Run it; its other methods may be called at any time.
type Service struct {
	cfg Config
	log *slog.Logger

	lead    *crew.Lead
	commons commons

	mu       sync.Mutex
	peerID   string
	own      domain.Known // as measured last; its Version is that of the last one that was told
	told     domain.Metric
	greeting bool // a newcomer should hear of this node
	queue    domain.Queue
	reports  uint64 // of the queue, by node, to this replica
	table    *domain.Table
	size     pace.Size
	watchers map[*Watcher]*ownWatch
	asked    map[string]*question

	versions versions
	changes  *rate.Limiter
	marked   chan struct{}
	queued   chan struct{}
	identify chan struct{}
	answers  chan struct{}
	tasks    sync.WaitGroup
	run      context.Context
	ready    chan struct{}
}

// New makes a service and measures once. An error is the shared store's.
func New(ctx context.Context, cfg Config) (*Service, error) {
	if cfg.Pace == (pace.Config{}) {
		cfg.Pace = DefaultPace
	}
	if cfg.MaxMetrics <= 0 {
		cfg.MaxMetrics = DefaultMaxMetrics
	}
	if cfg.Sample <= 0 {
		cfg.Sample = DefaultSample
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Counter == nil {
		cfg.Counter = noCounter{}
	}
	s := &Service{cfg: cfg, log: cfg.Log, table: domain.NewTable(cfg.MaxMetrics), size: pace.Size{PerPeer: cfg.Pace.PerPeer}, watchers: map[*Watcher]*ownWatch{}, asked: map[string]*question{},
		versions: versions{store: cfg.Versions}, changes: rate.NewLimiter(rate.Every(cfg.Pace.Min/changesAtFirst), 1),
		marked: make(chan struct{}, 1), queued: make(chan struct{}, 1), identify: make(chan struct{}, 1), answers: make(chan struct{}, maxAnswers), ready: make(chan struct{})}
	if err := s.share(ctx); err != nil {
		return nil, err
	}
	s.measure(ctx)
	return s, nil
}

type noCounter struct{}

func (noCounter) Count(string) {}

// Run measures, tells and forgets until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	s.run = ctx
	close(s.ready)
	err := lifecycle.Run(ctx, s.identityLoop, s.measureLoop, s.listenLoop, s.lead.Run, s.leadLoop)
	s.tasks.Wait()
	_ = s.lead.Leave()
	return err
}

// Connected says that the broker is there (again): it may know this node by another name now.
func (s *Service) Connected() { wake(s.identify) }

func (s *Service) identityLoop(ctx context.Context) error {
	wait := newWait()
	for {
		next := time.Hour
		call, cancel := context.WithTimeout(ctx, callTimeout)
		id, err := s.cfg.Events.Whoami(call)
		cancel()
		if err != nil {
			next = wait.NextBackOff()
		} else {
			wait.Reset()
			s.mu.Lock()
			known := s.peerID == id
			s.peerID, s.own.PeerID = id, id
			s.mu.Unlock()
			if !known {
				wake(s.marked)
			}
		}
		if !sleep(ctx, next, s.identify) {
			return nil
		}
	}
}

// measureLoop samples the host, and looks at once when the queue has changed.
func (s *Service) measureLoop(ctx context.Context) error {
	tick := time.NewTicker(s.cfg.Sample)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			s.measure(ctx)
		case <-s.queued:
			if s.cfg.Shared != nil {
				s.refreshCommon(ctx)
				continue
			}
			s.requeue()
		case <-ctx.Done():
			return nil
		}
	}
}

func (s *Service) measure(ctx context.Context) {
	s.take(s.together(ctx, s.cfg.Host.Measure(ctx).Sound()))
}

func (s *Service) take(m domain.Metric) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m.PeerID, m.Version, m.Queue = s.peerID, s.own.Version, s.queue
	stated := pace.Stated
	if s.cfg.Coarse {
		stated = pace.StatedClass
	}
	m.Interval = stated(s.cfg.Pace.Interval(s.networkLocked()))
	s.setOwnLocked(m)
	for _, id := range s.table.Expire(time.Now()) {
		s.cfg.Counter.Count(CountExpired)
		s.saveLocked(nil, id)
		s.tellLocked(Change{Expired: id})
	}
}

func (s *Service) requeue() {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.own.Metric
	m.Queue = s.queue
	s.setOwnLocked(m)
}

// setOwnLocked takes a measurement, and tells whoever should know by now.
func (s *Service) setOwnLocked(m domain.Metric) {
	if s.cfg.Coarse { // here and nowhere later: what is not known cannot be told
		m = m.Coarse()
	}
	s.own = domain.Known{Metric: m, ReceivedAt: time.Now()}
	if domain.MarkedChange(&s.told, &m) {
		wake(s.marked)
	}
	s.tellOwnLocked()
}

// networkLocked estimates the number of providers, this one included.
func (s *Service) networkLocked() int {
	return s.size.Estimate(time.Now(), s.table.Len()+1)
}

// ReportQueue sets the queue part of this node's metric.
func (s *Service) ReportQueue(ctx context.Context, q domain.Queue) error {
	if err := q.Check(); err != nil {
		return fault.InvalidArgument("QUEUE_INVALID", "%v", err)
	}
	if s.cfg.Shared != nil { // also what is known here: another replica may have been told something else
		if err := s.cfg.Shared.SaveQueue(ctx, q); err != nil {
			return err
		}
	}
	s.mu.Lock()
	same := s.queue == q
	s.queue = q
	s.reports++
	s.mu.Unlock()
	if !same {
		wake(s.queued)
	}
	return nil
}

// publishLoop gossips this node's metric at the interval that the network's size allows, and marked changes between.
func (s *Service) publishLoop(ctx context.Context) error {
	wait := newWait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	early := firstWait
	for {
		s.mu.Lock()
		network := s.networkLocked()
		s.mu.Unlock()
		interval := s.cfg.Pace.Interval(network)
		select {
		case <-timer.C:
		case <-s.marked:
			if !s.worthTelling() { // before it uses up one of the few
				continue
			}
			s.changes.SetLimit(rate.Every(s.changeEvery(interval)))
			if err := s.changes.Wait(ctx); err != nil {
				return nil
			}
			if !s.worthTelling() { // it has changed back meanwhile
				continue
			}
		case <-ctx.Done():
			return nil
		}
		s.mu.Lock()
		network = s.networkLocked() // much may have been heard since
		s.mu.Unlock()
		interval = s.cfg.Pace.Interval(network)
		next := pace.Jitter(interval)
		switch said, err := s.publish(ctx); {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			s.log.Debug("metric not published", logging.Err(err))
			next = wait.NextBackOff()
		case said:
			wait.Reset()
			if early < firstWait<<firstReports && network <= greetUpTo {
				next, early = min(next, pace.Jitter(early)), 2*early
			}
		default: // nobody knows yet who this node is
			next = interval
		}
		timer.Reset(next)
	}
}

// changeEvery is the least time between two marked changes: in a small network they are told soon; in a larger one a busy node must not say much more
// than an idle one, for all may be busy.
func (s *Service) changeEvery(interval time.Duration) time.Duration {
	least := s.cfg.Pace.Min
	return least/changesAtFirst + max(interval-least, 0)/changesPerInterval
}

func (s *Service) worthTelling() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.own.PeerID != "" && (s.greeting || s.told.PeerID != s.own.PeerID || domain.MarkedChange(&s.told, &s.own.Metric))
}

// publish tells the metric as it is; false when there is nothing to say yet.
func (s *Service) publish(ctx context.Context) (bool, error) {
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	m, ok, err := s.next(call)
	if err != nil || !ok {
		return false, err
	}
	if err := s.cfg.Events.Publish(call, m); err != nil {
		return false, err
	}
	s.mu.Lock()
	s.told, s.greeting = m, false
	s.mu.Unlock()
	s.cfg.Counter.Count(CountPublished)
	return true, nil
}

// next is this node's metric under a fresh version; false until it knows who it is.
func (s *Service) next(ctx context.Context) (domain.Metric, bool, error) {
	s.mu.Lock()
	known := s.peerID != ""
	s.mu.Unlock()
	if !known {
		return domain.Metric{}, false, nil
	}
	v, err := s.versions.take(ctx)
	if err != nil {
		return domain.Metric{}, false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.own.Version = max(s.own.Version, v)
	m := s.own.Metric
	m.Version = v
	return m, true, nil
}

func newWait() *backoff.ExponentialBackOff {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval, b.MaxInterval, b.RandomizationFactor, b.Multiplier = 10*time.Millisecond, 2*time.Second, 0.5, 2
	return b
}

// sleep waits for d, or less when woken; false when ctx has ended.
func sleep(ctx context.Context, d time.Duration, woken <-chan struct{}) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-woken:
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
