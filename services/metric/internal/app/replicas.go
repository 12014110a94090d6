package app

import (
	"context"
	"sync"
	"time"

	"github.com/shallot-net/shallot/kit/crew"
	"github.com/shallot-net/shallot/kit/logging"
	"github.com/shallot-net/shallot/services/metric/internal/domain"
)

// Shared is what several replicas of this service have in common. Each measures its host; one of them leads: it alone tells the network what the node has, and answers questions. See
// sharedtest for what every store must do.
type Shared interface {
	crew.Members
	// Exchange keeps what a host measures until the time is over, and what this node has told last where that is not 0, and returns what there is of all. Of several replicas on one
	// host the measurement of one counts, until it is silent.
	Exchange(ctx context.Context, host string, m domain.Metric, keep time.Duration, version uint64) (Common, error)
	// SaveQueue keeps the queue as node has told it; the others hear of it. It is durable when it returns.
	SaveQueue(ctx context.Context, q domain.Queue) error
	// Listen tells that something has changed or may have been missed, and whether a replica has left, until ctx ends. heard must not block.
	Listen(ctx context.Context, heard func(left bool)) error
	// LoadKnown returns the peers' metrics that SaveKnown has kept, which returns at once: a crash may lose what was saved last.
	LoadKnown(ctx context.Context) ([]domain.Known, error)
	SaveKnown(put []domain.Known, del []string)
}

// Common is what the replicas have together.
type Common struct {
	Hosts   []domain.Metric // one of each host, in a stable order
	Queue   domain.Queue
	Version uint64 // told last
}

// keepSamples is for how many samples a host's measurement counts, and keepAtLeast for how long at least.
const (
	keepSamples = 3
	keepAtLeast = 6 * time.Second
)

func (s *Service) share(ctx context.Context) error {
	var members crew.Members
	if s.cfg.Shared != nil {
		members = s.cfg.Shared
	}
	s.lead = crew.New(members, crew.Lease, s.log)
	if s.cfg.Stored != nil {
		s.lead.Store = s.cfg.Stored
	}
	if s.cfg.Shared == nil {
		return nil
	}
	known, err := s.cfg.Shared.LoadKnown(ctx)
	if err != nil {
		return err
	}
	for _, k := range known {
		s.table.Restore(k, time.Now())
	}
	return nil
}

// Leads tells whether this replica does.
func (s *Service) Leads() bool { return s.lead.Leads() }

// Led waits until this replica leads; false when ctx ended before. A single one leads at once.
func (s *Service) Led(ctx context.Context) bool {
	select {
	case <-s.lead.Led():
		return true
	case <-ctx.Done():
		return false
	}
}

// listenLoop hears what other replicas are told.
func (s *Service) listenLoop(ctx context.Context) error {
	if s.cfg.Shared == nil {
		return nil
	}
	return s.cfg.Shared.Listen(ctx, func(left bool) {
		if left {
			s.lead.Kick()
		}
		wake(s.queued)
	})
}

// While runs do whenever this replica leads, and ends its context when it does not any more; see crew.Lead.
func (s *Service) While(ctx context.Context, do func(ctx context.Context) error) error {
	return s.lead.While(ctx, do)
}

// leadLoop tells the network what the node has, whenever this replica leads.
func (s *Service) leadLoop(ctx context.Context) error { return s.lead.While(ctx, s.publishLoop) }

// commons is what the replicas had together when the store was last asked.
type commons struct {
	mu   sync.Mutex // one exchange after the other, or the older could come last
	own  domain.Metric
	last Common
}

// together adds what the other hosts measure. While the store is away they count as they were.
func (s *Service) together(ctx context.Context, own domain.Metric) domain.Metric {
	if s.cfg.Shared == nil {
		return own
	}
	if s.cfg.Coarse {
		own = own.Coarse() // nobody else needs more, the store neither
	}
	c := &s.commons
	c.mu.Lock()
	defer c.mu.Unlock()
	c.own = own
	s.mu.Lock()
	version, reports := uint64(0), s.reports
	if s.lead.Leads() {
		version = s.own.Version
	}
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	got, err := s.cfg.Shared.Exchange(ctx, s.cfg.HostID, own, max(keepSamples*s.cfg.Sample, keepAtLeast), version)
	if err != nil {
		s.log.Debug("what the other hosts measure could not be read", logging.Err(err))
	} else {
		c.last = got
		s.mu.Lock()
		if s.reports == reports { // else the answer may be of before what node has said meanwhile
			s.queue = got.Queue
		}
		if !s.lead.Leads() {
			s.own.Version = max(s.own.Version, got.Version) // one that led a moment ago may have told more than it could write
		}
		s.mu.Unlock()
	}
	if len(c.last.Hosts) == 0 {
		return own
	}
	return domain.Sum(c.last.Hosts)
}

// refreshCommon reads again what another replica may have changed.
func (s *Service) refreshCommon(ctx context.Context) {
	s.commons.mu.Lock()
	own := s.commons.own
	s.commons.mu.Unlock()
	s.take(s.together(ctx, own))
}

// saveLocked keeps peers' metrics for replicas that begin, where it is this one's to do so.
func (s *Service) saveLocked(put []domain.Known, del ...string) {
	if s.cfg.Shared != nil && s.lead.Leads() {
		s.cfg.Shared.SaveKnown(put, del)
	}
}
