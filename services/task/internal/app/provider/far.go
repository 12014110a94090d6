package provider

import (
	"context"
	"errors"
	"time"

	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// cancelFar ends an entry that is elsewhere. false: not now.
func (s *Service) cancelFar(ctx context.Context, h *held) bool {
	mine, err := s.fleet.Cancel(ctx, h.key, s.fleet.lease)
	if err != nil {
		s.cfg.Log.Warn("a task could not be cancelled yet", "error", err.Error())
		return false
	}
	if mine == nil {
		return true
	}
	if h, new := s.adopt(Claimed{Entry: mine}); new {
		return s.cancelHere(h)
	}
	return true
}

// refresh hears that another replica has changed an entry.
func (s *Service) refresh(k domain.EntryKey) {
	s.watch.Tell(k.TaskID)
	if !s.fleet.leads.Load() {
		return
	}
	ctx, cancel := context.WithTimeout(s.ctx, 10*time.Second)
	defer cancel()
	e, err := s.cfg.Store.Entry(ctx, k)
	if err == nil && e.State.Terminal() {
		err = s.endedFar(ctx, e)
	} else if err == nil {
		s.movedFar(e)
	}
	if err != nil && !errors.Is(err, app.ErrNotFound) && s.ctx.Err() == nil {
		s.cfg.Log.Warn("what another replica did could not be read, and will be looked at again", "error", err.Error())
		s.fleet.missed.Store(true)
	}
}

// movedFar hears that an entry runs.
func (s *Service) movedFar(e *domain.Entry) {
	s.mu.Lock()
	h := s.held[e.Key()]
	s.mu.Unlock()
	if h == nil {
		return
	}
	h.mu.Lock()
	s.mu.Lock()
	moved := h.at != here && s.held[h.key] == h && h.entry.Revision < e.Revision
	if moved {
		h.entry = e
		if e.State == domain.Running {
			s.put(h, runsFar)
		}
	}
	s.mu.Unlock()
	h.mu.Unlock()
	if moved {
		s.watch.Tell(queueKey)
		s.tellRuns(h)
	}
}

// endedFar says what another replica has written down: how an entry ended.
func (s *Service) endedFar(ctx context.Context, e *domain.Entry) error {
	rows, err := s.fleet.Events(ctx, e.Key())
	if err != nil {
		return err
	}
	v := view(e, 0)
	r := app.Reply{Task: &v}
	for i := range rows {
		if _, known := s.outbox.Get(rows[i].ID); known {
			continue
		}
		attachment, ok, err := s.attachment(ctx, rows[i])
		if err != nil {
			return err
		}
		if ok {
			s.outbox.Track(rows[i])
			r.Outbox = append(r.Outbox, rows[i].Outgoing(attachment))
		}
	}
	s.mu.Lock()
	h := s.held[e.Key()]
	far := h != nil && h.at != here
	if far { // nobody else says it as well
		s.put(h, here)
	}
	s.mu.Unlock()
	if far {
		h.mu.Lock()
		h.entry = e
		close(h.settled)
		h.mu.Unlock()
		h.stop()
		s.forget(h, true)
		s.replicateLater(e)
	}
	if far || len(r.Outbox) > 0 {
		s.cfg.Pusher.Push(s.ctx, r)
	}
	return nil
}
