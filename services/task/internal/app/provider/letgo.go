package provider

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// letter lets results go in the background: rows and pins, a batch at a time.
type letter struct {
	s       *Service
	mu      sync.Mutex
	waiting []domain.EntryKey
	busy    bool
	closed  bool
	wg      sync.WaitGroup
}

const (
	// maxLetting bounds what waits; what is beyond goes when its time is over.
	maxLetting = 1 << 16
	letBatch   = 256
	// letDelay is how long what is to be let go waits for company: nobody waits for it.
	letDelay = 50 * time.Millisecond
)

func (l *letter) add(keys []domain.EntryKey) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || len(l.waiting)+len(keys) > maxLetting {
		return
	}
	l.waiting = append(l.waiting, keys...)
	if !l.busy {
		l.busy = true
		l.wg.Go(l.run)
	}
}

// close waits for what is under way; nothing begins after it.
func (l *letter) close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.wg.Wait()
}

func (l *letter) run() {
	delay := time.NewTimer(letDelay)
	defer delay.Stop()
	for {
		select {
		case <-delay.C:
		case <-l.s.ctx.Done(): // what is dropped then goes when its time is over
		}
		for {
			l.mu.Lock()
			n := min(len(l.waiting), letBatch)
			keys := l.waiting[:n:n]
			l.waiting = l.waiting[n:]
			if n == 0 {
				l.waiting, l.busy = nil, false
				l.mu.Unlock()
				return
			}
			rest := len(l.waiting)
			l.mu.Unlock()
			l.s.letGo(keys)
			if rest < letBatch {
				delay.Reset(letDelay)
				break
			}
		}
	}
}

func (s *Service) letGo(keys []domain.EntryKey) {
	now := time.Now()
	var gone []*domain.Entry
	for _, k := range keys {
		e, err := s.settledEntry(k)
		if err == nil && e.IsReplica() || errors.Is(err, app.ErrNotFound) {
			err = s.letReplicaOf(k)
			e = nil
		}
		if e == nil || err != nil {
			if err != nil && !errors.Is(err, app.ErrNotFound) && s.ctx.Err() == nil {
				s.cfg.Log.Warn("a collected result could not be let go", "error", err.Error())
			}
			continue
		}
		if e.Collect(now, s.cfg.Tomb) {
			e.Revision++
			gone = append(gone, e)
		}
	}
	if s.ctx.Err() != nil { // at the end: the writer will not come to it
		return
	}
	for _, e := range gone { // each by itself: where another process was faster, only that one is dropped
		s.cfg.Store.Later(&app.Writes{Entries: []app.EntryWrite{{Entry: e, Forget: true, DropResult: true}}})
	}
	s.unpin(gone)
}

// letReplicaOf lets the replica go that a peer has a word on, where there is one.
func (s *Service) letReplicaOf(k domain.EntryKey) error {
	if k, ok := s.replicaOf(k); ok {
		return s.letReplica(k)
	}
	return nil
}

// settledEntry finds an entry that is likely to have been settled by this process a moment ago. The caller may change it.
func (s *Service) settledEntry(k domain.EntryKey) (*domain.Entry, error) {
	s.mu.Lock()
	e := s.recent.take(k)
	s.mu.Unlock()
	if e != nil {
		return e.Clone(), nil
	}
	return s.cfg.Store.Entry(s.ctx, k)
}

// wanted tells whether a result is kept for its consumer.
func (s *Service) wanted(ctx context.Context, taskID, cid string) (bool, error) {
	entries, err := s.cfg.Store.Entries(ctx, taskID)
	for _, e := range entries {
		if !e.State.Terminal() && (e.IsReplica() || s.fleet != nil) { // it is being fetched, or another replica is about to write down what it has put
			return true, nil
		}
		if o := e.Outcome; o != nil && o.ResultCID == cid && !e.Collected {
			return true, nil
		}
	}
	return false, err
}

// unpin lets the results' content go.
func (s *Service) unpin(entries []*domain.Entry) {
	pins := make([]app.Pinned, 0, len(entries))
	for _, e := range entries {
		if e.Outcome != nil && e.Outcome.ResultCID != "" {
			pins = append(pins, app.Pinned{CID: e.Outcome.ResultCID, Owner: pinOwner(e)})
		}
	}
	s.unpinNow(pins...)
}

func (s *Service) unpinNow(pins ...app.Pinned) {
	if len(pins) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(s.ctx, 10*time.Second)
	defer cancel()
	if err := s.cfg.Repository.Unpin(ctx, pins...); err != nil {
		s.cfg.Log.Warn("results stay pinned until their time is over", "results", len(pins), "error", err.Error())
	}
}

// recentKeys remembers the last few thousand attempts that are over, and how they ended until they are collected.
type recentKeys struct {
	ring [4096]domain.EntryKey
	next int
	set  map[domain.EntryKey]*domain.Entry // nil: only that it is over
}

func (r *recentKeys) has(k domain.EntryKey) bool {
	_, ok := r.set[k]
	return ok
}

// add remembers a key; e, which may be nil, is not changed afterwards.
func (r *recentKeys) add(k domain.EntryKey, e *domain.Entry) {
	if r.has(k) {
		return
	}
	if r.set == nil {
		r.set = make(map[domain.EntryKey]*domain.Entry, 64)
	}
	delete(r.set, r.ring[r.next])
	r.ring[r.next] = k
	r.set[k] = e
	r.next = (r.next + 1) % len(r.ring)
}

// take returns the entry once, nil where there is none.
func (r *recentKeys) take(k domain.EntryKey) *domain.Entry {
	e := r.set[k]
	if e != nil {
		r.set[k] = nil
	}
	return e
}
