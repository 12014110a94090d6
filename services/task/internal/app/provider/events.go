package provider

import (
	"context"
	"errors"
	"time"

	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// Bounds of cancels that came before their submission.
const (
	maxEarly = 4096
	earlyFor = 10 * time.Minute
)

// onCancel ends an attempt, or with attempt 0 every one of the task. The program stops at once; what it gave so far is its result.
func (s *Service) onCancel(ctx context.Context, d *app.Delivery, ref domain.Ref) app.Reply {
	var hs []*held
	s.mu.Lock()
	for k, h := range s.held {
		if k.Consumer == d.From && k.TaskID == ref.TaskID && (ref.Attempt == 0 || k.Attempt == ref.Attempt) {
			hs = append(hs, h)
		}
	}
	s.mu.Unlock()
	if len(hs) == 0 {
		s.cancelEarly(ctx, d, ref)
		return verdict(app.Ignored, "NOT_HERE")
	}
	for _, h := range hs {
		if !s.cancelHeld(ctx, h) {
			return verdict(app.Again, "") // the next life of this process will hear it
		}
	}
	return app.Reply{}
}

// cancelEarly remembers a cancel that overtook its submission.
func (s *Service) cancelEarly(ctx context.Context, d *app.Delivery, ref domain.Ref) {
	k := domain.EntryKey{Consumer: d.From, TaskID: ref.TaskID, Attempt: ref.Attempt}
	if ref.Attempt == 0 {
		return
	}
	if _, err := s.cfg.Store.Entry(ctx, k); !errors.Is(err, app.ErrNotFound) {
		return // it was here, and is over
	}
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.early) >= maxEarly {
		for k, at := range s.early {
			if now.Sub(at) > earlyFor {
				delete(s.early, k)
			}
		}
	}
	if len(s.early) < maxEarly {
		s.early[k] = now
	}
}

// cancelHeld is false when it cannot be done now.
func (s *Service) cancelHeld(ctx context.Context, h *held) bool {
	s.mu.Lock()
	far := h.at != here
	s.mu.Unlock()
	if far {
		return s.cancelFar(ctx, h)
	}
	return s.cancelHere(h)
}

// cancelHere is false when this process ends.
func (s *Service) cancelHere(h *held) bool {
	h.mu.Lock()
	h.cancelled = true
	h.mu.Unlock()
	s.mu.Lock()
	if s.stopping { // nothing begins any more
		s.mu.Unlock()
		return false
	}
	if s.unqueue(h) { // nobody else will settle it
		s.runs.Go(func() {
			if h.discard() {
				s.mu.Lock()
				s.staging--
				s.mu.Unlock()
			}
			s.settle(h, &domain.Outcome{Cause: domain.CauseCancelled, Reason: app.ReasonCancelled, Message: "cancelled before it ran"}, nil)
		})
	}
	s.mu.Unlock()
	h.stop()
	return true
}

// onQuery answers for each attempt: how it stands, or its result again.
func (s *Service) onQuery(ctx context.Context, d *app.Delivery, b *domain.QueryEvent) app.Reply {
	var r app.Reply
	for _, ref := range b.Tasks {
		k := domain.EntryKey{Consumer: d.From, TaskID: ref.TaskID, Attempt: ref.Attempt}
		out, err := s.answer(ctx, d, k)
		if err != nil {
			s.cfg.Log.Warn("a question could not be answered", "error", err.Error())
			return verdict(app.Again, "")
		}
		r.Outbox = append(r.Outbox, out)
	}
	return r
}

// answerTimeout is how long an answer is tried: the question will be asked again.
const answerTimeout = 30 * time.Second

func (s *Service) answer(ctx context.Context, d *app.Delivery, k domain.EntryKey) (app.Outgoing, error) {
	to := app.Address{Persona: d.Persona, Peer: d.From}
	ref := domain.Ref{TaskID: k.TaskID, Attempt: k.Attempt}
	status := &domain.StatusEvent{TaskID: k.TaskID, Attempt: k.Attempt}
	s.mu.Lock()
	h := s.held[k]
	s.mu.Unlock()
	if h != nil {
		h.mu.Lock()
		status.State = h.entry.State
		h.mu.Unlock()
	} else {
		e, err := s.cfg.Store.Entry(ctx, k)
		switch {
		case errors.Is(err, app.ErrNotFound):
		case err != nil:
			return app.Outgoing{}, err
		case e.IsReplica() && e.State.Terminal() && !e.Collected:
			return s.replicaAgain(ctx, d, e)
		case e.IsReplica():
		case e.What == "" && !e.Collected && e.Outcome != nil:
			return s.resultAgain(ctx, e)
		default:
			status.State = e.State
		}
	}
	if status.State != 0 && status.State < domain.Accepted {
		status.State = domain.Accepted
	}
	return s.outbox.Once(to, ref, status, nil, false, answerTimeout), nil
}

func (s *Service) resultAgain(ctx context.Context, e *domain.Entry) (app.Outgoing, error) {
	row := s.receipt(e)
	var attachment []byte
	if row.Attach == app.AttachResult {
		var err error
		if attachment, err = s.cfg.Store.Result(ctx, e.Key()); err != nil {
			return app.Outgoing{}, err
		}
	}
	to := app.Address{Persona: row.Persona, Peer: row.Peer}
	return s.outbox.Once(to, domain.Ref{TaskID: e.TaskID, Attempt: e.Sub.Attempt}, receiptBody(e), attachment, true, answerTimeout), nil
}

// onCollected lets results go. Nobody waits for the write: one that is lost costs only space, until its time is over. What others keep as well is
// another matter: they hear of it from here, and this is committed.
func (s *Service) onCollected(ctx context.Context, d *app.Delivery, b *domain.CollectedEvent) app.Reply {
	var out app.Reply
	refs := make([]domain.EntryKey, 0, len(b.Tasks))
	for _, r := range b.Tasks {
		k := domain.EntryKey{Consumer: d.From, TaskID: r.TaskID, Attempt: r.Attempt}
		said, was, err := s.releaseReplicas(ctx, k)
		if err != nil && was {
			s.cfg.Log.Warn("a collected result could not be let go", "error", err.Error())
			out.Delivered = &app.Delivered{Verdict: app.Again}
			return out
		}
		out.Outbox = append(out.Outbox, said.Outbox...)
		if !was {
			refs = append(refs, k)
		}
	}
	s.letter.add(refs)
	return out
}
