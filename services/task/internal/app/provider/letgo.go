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
	wg      sync.WaitGroup
}

// maxLetting bounds what waits; what is beyond goes when its time is over.
const maxLetting = 1 << 16

func (l *letter) add(keys []domain.EntryKey) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.waiting)+len(keys) > maxLetting {
		return
	}
	l.waiting = append(l.waiting, keys...)
	if !l.busy {
		l.busy = true
		l.wg.Go(l.run)
	}
}

func (l *letter) run() {
	for {
		l.mu.Lock()
		n := min(len(l.waiting), 64)
		keys := l.waiting[:n:n]
		l.waiting = l.waiting[n:]
		if n == 0 {
			l.waiting, l.busy = nil, false
			l.mu.Unlock()
			return
		}
		l.mu.Unlock()
		l.s.letGo(keys)
	}
}

func (s *Service) letGo(keys []domain.EntryKey) {
	now := time.Now()
	w := &app.Writes{}
	var gone []*domain.Entry
	for _, k := range keys {
		e, err := s.cfg.Store.Entry(s.ctx, k)
		if err != nil {
			if !errors.Is(err, app.ErrNotFound) {
				s.cfg.Log.Warn("a collected result could not be let go", "error", err.Error())
			}
			continue
		}
		if e.Collect(now, s.cfg.Tomb) {
			e.Revision++
			w.Entries = append(w.Entries, app.EntryWrite{Entry: e, Forget: true, DropResult: true})
			gone = append(gone, e)
		}
	}
	if len(gone) == 0 {
		return
	}
	if s.ctx.Err() != nil { // at the end: the writer will not come to it
		return
	}
	s.cfg.Store.Later(w)
	for _, e := range gone {
		s.unpin(e)
	}
}

func (s *Service) unpin(e *domain.Entry) {
	if e.Outcome == nil || e.Outcome.ResultCID == "" {
		return
	}
	ctx, cancel := context.WithTimeout(s.ctx, 10*time.Second)
	defer cancel()
	if err := s.cfg.Repository.Unpin(ctx, resultOwner(e.TaskID), e.Outcome.ResultCID); err != nil {
		s.cfg.Log.Warn("a result stays pinned until its time is over", "error", err.Error())
	}
}
