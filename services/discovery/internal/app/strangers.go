package app

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/logging"
	"github.com/shallot-net/shallot/kit/pace"
	"github.com/shallot-net/shallot/services/discovery/internal/domain"
)

// Routing is the network's shared memory of who offers what: it finds those whom nobody that this node knows has told it of. Calls block until they are
// done or ctx ends.
type Routing interface {
	// Advertise says that this node has a name, and returns when to say so again.
	Advertise(ctx context.Context, name string) (again time.Duration, err error)
	// Find calls found for peers that say that they have a name, limit at most.
	Find(ctx context.Context, name string, limit int, found func(peerID string, addresses []string)) error
}

const (
	routingTimeout = 15 * time.Second
	// A provider that knows a few others hears of the rest from them, so it looks for strangers while it has fewer neighbours than fewNeighbours only; in a network of
	// two that is for good, hence the long wait.
	lookFirst   = 5 * time.Second
	lookLongest = 10 * time.Minute
	lookLimit   = 16
	sayFirst    = time.Second // after a failure: the broker may have nobody to tell yet
	sayLongest  = 5 * time.Minute
)

// saying is one name that is being advertised.
type saying struct {
	due  time.Time
	wait *backoff.ExponentialBackOff
}

// advertiseLoop tells the routing table what this node offers: what is new soon, and everything again before it is forgotten there. What is offered no
// more is forgotten by itself.
func (s *Service) advertiseLoop(ctx context.Context) error {
	said := map[string]*saying{}
	for {
		next := time.Now().Add(sayLongest)
		names := s.names()
		if s.alone() { // nobody to tell; the first connection wakes this loop
			names = nil
		}
		for name := range said {
			if !slices.Contains(names, name) {
				delete(said, name)
			}
		}
		for _, name := range names {
			w := said[name]
			if w == nil {
				w = &saying{wait: newWait(sayFirst, sayLongest)}
				said[name] = w
			}
			if !time.Now().Before(w.due) {
				w.due = time.Now().Add(s.say(ctx, name, w.wait))
			}
			if w.due.Before(next) {
				next = w.due
			}
		}
		if !sleep(ctx, max(time.Until(next), 0), s.advertise) {
			return nil
		}
	}
}

// alone tells whether there is no connection at all, so that the broker has nobody to ask either.
func (s *Service) alone() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.online.IsZero()
}

// names are what this node can be found by; none before it is known what that is.
func (s *Service) names() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.hasSelf || s.identity.PeerID == "" {
		return nil
	}
	names := []string{domain.NameProvider}
	for _, c := range s.self.Capabilities {
		names = append(names, domain.NameOfType(c.Type))
	}
	return names
}

// say advertises once and returns how long that holds.
func (s *Service) say(ctx context.Context, name string, wait *backoff.ExponentialBackOff) time.Duration {
	call, cancel := context.WithTimeout(ctx, routingTimeout)
	defer cancel()
	again, err := s.cfg.Routing.Advertise(call, name)
	if err != nil && fault.From(err).Reason == "ROUTING_OFF" {
		return sayLongest // nothing has failed: the broker was started without the table
	}
	if err != nil {
		s.log.Debug("not advertised", logging.Err(err))
		s.cfg.Counter.Count(CountAdvertiseFailed)
		return wait.NextBackOff()
	}
	wait.Reset()
	s.cfg.Counter.Count(CountAdvertised)
	return pace.Jitter(max(again, time.Minute) * 2 / 3) // never later than again
}

// strangersLoop looks for providers in the routing table while this node has next to nobody.
func (s *Service) strangersLoop(ctx context.Context) error {
	wait := newWait(lookFirst, lookLongest)
	for sleep(ctx, wait.NextBackOff(), nil) {
		if s.alone() {
			wait.Reset()
			continue
		}
		if s.countNeighbours() >= fewNeighbours {
			wait.Reset()
			if !sleep(ctx, resyncEvery, nil) {
				return nil
			}
			continue
		}
		s.lookForStrangers(ctx)
	}
	return nil
}

func (s *Service) lookForStrangers(ctx context.Context) {
	call, cancel := context.WithTimeout(ctx, routingTimeout)
	defer cancel()
	type stranger struct {
		id        string
		addresses []string
	}
	var found []stranger
	err := s.cfg.Routing.Find(call, domain.NameProvider, lookLimit, func(id string, addresses []string) {
		if domain.PeerIDShaped(id) && len(found) < lookLimit {
			found = append(found, stranger{id, addresses})
		}
	})
	if err != nil {
		s.log.Debug("the routing table named nobody", logging.Err(err))
	}
	rand.Shuffle(len(found), func(i, j int) { found[i], found[j] = found[j], found[i] })
	slots := make(chan struct{}, maxDials)
	var dials sync.WaitGroup
	for _, p := range found {
		s.mu.Lock()
		skip := p.id == s.identity.PeerID || s.table.IsConnected(p.id)
		s.mu.Unlock()
		if skip {
			continue
		}
		slots <- struct{}{}
		dials.Go(func() {
			defer func() { <-slots }()
			// Who they are they say themselves: a new connection is asked.
			if _, err := s.connect(ctx, p.id, p.id, p.addresses); err == nil {
				s.cfg.Counter.Count(CountStranger)
			}
		})
	}
	dials.Wait()
}
