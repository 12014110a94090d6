package app

import (
	"context"
	crand "crypto/rand"
	"encoding/hex"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/logging"
	"github.com/shallot-net/shallot/services/metric/internal/domain"
)

const (
	MaxRefresh     = 16               // peers of one refresh
	DefaultRefresh = time.Second      // how long it waits
	LongestRefresh = 10 * time.Second // at most
	maxAnswers     = 64               // answers under way
	maxAsked       = 1024             // questions that wait for an answer
)

// versions hands out version numbers from blocks that are reserved on disk before their first number is used, so that no
// crash and no lost write repeats one.
type versions struct {
	store       Versions
	mu          sync.Mutex
	next, until uint64
}

func (v *versions) take(ctx context.Context) (uint64, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.next >= v.until {
		first, err := v.store.Reserve(ctx, versionBlock, v.next)
		if err != nil {
			return 0, err
		}
		v.next, v.until = first, first+versionBlock
	}
	v.next++
	return v.next - 1, nil
}

// skipTo makes the next version larger than one that was heard: this node's own past, when its store was lost.
func (v *versions) skipTo(seen uint64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.next <= seen {
		v.next, v.until = seen+1, 0
	}
}

// Verdict is what became of an event.
type Verdict int

// The verdicts.
const (
	Applied Verdict = iota
	Ignored
	Retry
)

// question is a query that waits for its answer.
type question struct {
	peer   string
	answer chan domain.Known // room for one
}

// HandleMetric takes a metric that passed the checks of envelope, author and shape. inReplyTo is empty for gossip.
func (s *Service) HandleMetric(from, inReplyTo string, m domain.Metric) Verdict {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if m.PeerID == s.peerID {
		if m.Version > s.own.Version {
			s.versions.skipTo(m.Version)
		}
		return Ignored
	}
	q := s.asked[inReplyTo]
	asked := q != nil && q.peer == from && m.PeerID == from
	outcome, evicted := s.table.Observe(m, asked, s.networkLocked(), now)
	if evicted != "" {
		s.cfg.Counter.Count(CountEvicted)
		s.saveLocked(nil, evicted)
		s.tellLocked(Change{Expired: evicted})
	}
	s.cfg.Counter.Count(outcomeCount[outcome])
	if !asked {
		s.size.Heard(now, m.PeerID, m.Clamped().Interval)
	}
	known, fresh := s.table.Get(m.PeerID, now)
	if asked {
		delete(s.asked, inReplyTo)
		if !fresh || known.Version < m.Version {
			known = domain.Known{Metric: m.Clamped(), ReceivedAt: now} // the table has no place, the asker has
		}
		q.answer <- known
	}
	switch outcome {
	case domain.Added, domain.Newer:
		if outcome == domain.Added && greets(s.networkLocked()) {
			s.greeting = true
			wake(s.marked)
		}
		s.saveLocked([]domain.Known{known})
		s.tellLocked(Change{Metric: known})
		return Applied
	case domain.Full:
		return Applied
	}
	return Ignored
}

// greets tells whether this node is among the few that report because somebody is new. In a larger network eight reports more
// would tell a newcomer next to nothing. And there, who is new to a table is hardly ever new to the network: full tables let go
// of one peer for another all the time, so that each report would call for others, and they for more.
func greets(network int) bool { return network <= greetUpTo && rand.IntN(network) < greeters }

// HandleQuery answers a peer with this node's metric as it is now.
func (s *Service) HandleQuery(from, question string) Verdict {
	select {
	case <-s.ready:
	default:
		return Retry
	}
	select {
	case s.answers <- struct{}{}:
	default:
		return Retry
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.run.Err() != nil || s.peerID == "" {
		<-s.answers
		return Retry
	}
	s.tasks.Go(func() {
		defer func() { <-s.answers }()
		s.answer(s.run, from, question)
	})
	return Applied
}

func (s *Service) answer(ctx context.Context, from, question string) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	m, ok, err := s.next(ctx)
	if err == nil && ok {
		err = s.cfg.Events.SendMetric(ctx, from, question, m)
	}
	if err != nil {
		s.log.Debug("query not answered", logging.Peer(from), logging.Err(err))
		return
	}
	s.cfg.Counter.Count(CountAnswered)
}

// Refresh asks peers for their metrics as they are now, side by side, and returns those that came in time. This node's
// own is measured, not asked for.
func (s *Service) Refresh(ctx context.Context, peers []string, timeout time.Duration) ([]domain.Known, error) {
	if len(peers) > MaxRefresh {
		return nil, fault.InvalidArgument("PEERS_TOO_MANY", "%d peers were given; %d can be asked in one call", len(peers), MaxRefresh)
	}
	for i, id := range peers {
		if !domain.PeerIDShaped(id) {
			return nil, fault.InvalidArgument("PEER_ID_INVALID", "peer %d of %d has an id that is not 1 to 128 letters and digits", i+1, len(peers))
		}
	}
	if timeout <= 0 {
		timeout = DefaultRefresh
	}
	ctx, cancel := context.WithTimeout(ctx, min(timeout, LongestRefresh))
	defer cancel()
	found := make([]domain.Known, len(peers))
	var wg sync.WaitGroup
	for i, id := range peers {
		wg.Go(func() { found[i] = s.refresh(ctx, id) })
	}
	wg.Wait()
	out := found[:0]
	seen := map[string]bool{}
	for _, k := range found {
		if k.PeerID != "" && !seen[k.PeerID] {
			seen[k.PeerID] = true
			out = append(out, k)
		}
	}
	return out, nil
}

func (s *Service) refresh(ctx context.Context, id string) domain.Known {
	q := &question{peer: id, answer: make(chan domain.Known, 1)}
	name := newID()
	s.mu.Lock()
	if id == s.peerID {
		own := s.own
		s.mu.Unlock()
		return own
	}
	if len(s.asked) >= maxAsked {
		s.mu.Unlock()
		return domain.Known{}
	}
	s.asked[name] = q
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.asked, name)
	}()
	s.cfg.Counter.Count(CountAsked)
	sent := make(chan error, 1)
	go func() { sent <- s.cfg.Events.SendQuery(ctx, id, name) }()
	for {
		select {
		case k := <-q.answer: // it may overtake the acknowledgement of the query
			return k
		case err := <-sent:
			if err != nil {
				s.log.Debug("peer not asked", logging.Peer(id), logging.Err(err))
				return domain.Known{}
			}
			sent = nil
		case <-ctx.Done():
			return domain.Known{}
		}
	}
}

// Expects tells whether an answer of this peer to this question is waited for.
func (s *Service) Expects(from, inReplyTo string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	q := s.asked[inReplyTo]
	return q != nil && q.peer == from
}

func newID() string {
	var b [16]byte
	_, _ = crand.Read(b[:]) // it never fails
	return hex.EncodeToString(b[:])
}
