package consumer

import (
	"context"
	"errors"
	"time"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// Place gives a PENDING task to a provider. For a task that needs none any more it changes nothing.
func (s *Service) Place(ctx context.Context, taskID string, c app.Candidate, detail string) (app.Reply, error) {
	paid, done, err := s.pay(ctx, taskID, &c)
	defer done()
	if err != nil {
		return app.Reply{}, err
	}
	return s.change(ctx, taskID, func(e *edit) error {
		if e.t.State != domain.Pending {
			return errUnchanged
		}
		if paid.dear > 0 {
			return s.tooDear(e, c.Peer, paid.dear)
		}
		if paid.attempt > 0 && int(paid.attempt) != len(e.t.Attempts)+1 { // another placement was faster
			e.reply.Placement = s.needed(e.t, e.now)
			return errUnchanged
		}
		if peers, _ := e.t.ExcludedNow(e.now); peers[c.Peer] != "" {
			e.reply.Placement = s.needed(e.t, e.now)
			return errUnchanged
		}
		if e.draft != nil {
			if err := s.packDraft(ctx, e, &c); err != nil {
				return err
			}
			return s.place(e, c, detail, e.draft.payload)
		}
		if err := s.grant(ctx, e.t, &c); err != nil {
			return err
		}
		ciphertext, err := s.ciphertext(ctx, e.t)
		if err != nil {
			return err
		}
		return s.place(e, c, detail, ciphertext)
	})
}

func (s *Service) ciphertext(ctx context.Context, t *domain.Task) ([]byte, error) {
	if t.PayloadCID != "" {
		return nil, nil
	}
	return s.cfg.Store.Payload(ctx, t.ID)
}

// place makes the next attempt and its submission.
func (s *Service) place(e *edit, c app.Candidate, detail string, ciphertext []byte) error {
	if !domain.ValidPeer(c.Peer) {
		return fault.InvalidArgument("CANDIDATE_INVALID", "the candidate's peer id is not one")
	}
	if err := s.loadKeys(e.live, e.t.ID); err != nil {
		return err
	}
	sealed, seal, err := s.cfg.Cipher.SealKey(e.payload, c.SealingKey, c.Persona)
	if err != nil {
		return err
	}
	if err := e.t.Place(e.now, domain.Attempt{Peer: c.Peer, Persona: c.Persona, Addresses: c.Addresses, Replicas: namedReplicas(e.t, &c), Choice: c.Choice.Bounded()}, detail); err != nil {
		return err
	}
	e.live.seal = seal
	a := e.t.Current()
	paid := c.Paid
	if len(paid) == 0 {
		paid = s.unpaid()
	}
	copies := e.t.Policy.Copies()
	if len(a.Replicas) == 0 {
		copies = 0
	}
	row := s.outbox.Row(address(a), domain.Ref{TaskID: e.t.ID, Attempt: a.Number}, &domain.Submission{TaskID: e.t.ID, Attempt: a.Number, Type: e.t.Type,
		Limits: e.t.Limits, Recipient: e.key.Recipient(), PayloadHash: e.t.PayloadHash, PayloadSize: e.t.PayloadSize, PayloadCID: e.t.PayloadCID, RefSize: e.t.RefSize,
		Redirect: e.t.MayHandOn(a.Number), Keep: e.t.Keep, Copies: copies, Named: peersOf(a.Replicas), Paid: paid})
	row.Sign, row.Timeout, row.Attach, row.Sealed = true, s.cfg.SubmitTimeout, app.AttachPayload, sealed
	e.send(row, s.cfg.Codec.EncodeSealed(sealed, ciphertext))
	e.live.lease = time.Time{} // it begins when the submission has arrived
	s.cfg.Metrics.Attempt("SUBMITTED")
	return nil
}

// loadKeys reads the task's keys where they are not in memory.
func (s *Service) loadKeys(l *live, id string) error {
	if l.key != nil {
		return nil
	}
	secret, err := s.cfg.Store.Secret(context.Background(), id)
	if err != nil {
		return err
	}
	if len(secret) < 16 {
		return fault.FailedPrecondition("TASK_KEY_MISSING", "the keys of task %s are not in the store any more", id)
	}
	key, err := s.cfg.Keys.Parse(string(secret[16:]))
	if err != nil {
		return err
	}
	l.payload, l.key = secret[:16:16], key
	return nil
}

// needed asks for a provider.
func (s *Service) needed(t *domain.Task, now time.Time) *app.Placement {
	excluded, _ := t.ExcludedNow(now)
	return &app.Placement{TaskID: t.ID, Type: t.Type, Attempt: uint32(len(t.Attempts)) + 1, Excluded: excluded, Only: t.Policy.Only, Limits: t.Limits, Copies: t.Policy.Copies(),
		Job: t.JobOf(), Personas: s.jobs.personas(t.JobOf()), Efforts: s.efforts(t), MaxEffort: s.cfg.MaxEffort}
}

// PlacementFailed notes why there is no provider; the task stays PENDING.
func (s *Service) PlacementFailed(ctx context.Context, taskID, detail string, why *domain.Choice) (app.Reply, error) {
	return s.change(ctx, taskID, func(e *edit) error {
		if !e.t.NoCandidate(e.now, detail, why.Bounded()) {
			return errUnchanged
		}
		return e.unplaced()
	})
}

// endAttempt gives the current attempt up or takes a provider's no, and asks for another provider where one is needed.
func (s *Service) endAttempt(e *edit, n uint32, from string, end domain.End) error {
	a := e.t.Attempt(n)
	if a == nil {
		return domain.ErrNotHolder
	}
	before := *a
	if err := e.t.EndAttempt(e.now, n, from, end); err != nil {
		return err
	}
	s.cfg.Metrics.Attempt(end.What)
	s.withdraw(e)
	e.live.lease = time.Time{}
	if from == "" && end.What != "UNREACHABLE" && end.What != "REJECTED" { // it may be working on it
		s.sendCancel(e, &before)
	}
	s.next(e)
	return nil
}

// next follows the end of an attempt: another provider is asked for, or the task is over and lets go what was kept for it.
func (s *Service) next(e *edit) {
	switch {
	case e.t.State == domain.Pending:
		e.reply.Placement = s.needed(e.t, e.now)
	case e.t.State.Terminal():
		s.letGo(e)
	}
}

// withdraw deletes the task's outbox rows: what they say is void.
func (s *Service) withdraw(e *edit) {
	for _, id := range e.rows {
		snd, ok := s.outbox.Get(id)
		if !ok || snd.Row.Type == domain.TypeCancel {
			continue
		}
		e.w.Sent = append(e.w.Sent, id)
		e.reply.Outbox = append(e.reply.Outbox, app.Outgoing{ID: id, TaskID: e.t.ID, Persona: snd.Row.Persona, Peer: snd.Row.Peer, Withdrawn: true})
		e.after = append(e.after, func() { s.outbox.Take(id) })
	}
	e.live.rows = nil
}

// cancelTimeout is how long a provider is tried that should stop working on a task.
const cancelTimeout = time.Minute

// sendCancel tells a provider to stop. It is durable: a program that nobody waits for costs its provider dearly.
func (s *Service) sendCancel(e *edit, a *domain.Attempt) {
	row := s.outbox.Row(address(a), domain.Ref{TaskID: e.t.ID, Attempt: a.Number}, &domain.CancelEvent{TaskID: e.t.ID, Attempt: a.Number})
	row.Timeout = cancelTimeout
	e.send(row, nil)
}

// Cancel asks for the end of a task. A terminal one stays as it is.
func (s *Service) Cancel(ctx context.Context, taskID string) (app.Reply, error) {
	return s.change(ctx, taskID, func(e *edit) error {
		if e.t.State.Terminal() || e.t.CancelRequested {
			return errUnchanged
		}
		var at *domain.Attempt
		if a := e.t.Live(); a != nil && e.t.Receipt == nil {
			c := *a
			at = &c
		}
		done, err := e.t.RequestCancel(e.now, s.cfg.CancelGrace)
		if err != nil {
			return err
		}
		s.withdraw(e)
		if at != nil {
			s.sendCancel(e, at)
		}
		if done {
			s.letGo(e)
		}
		return nil
	})
}

// letGo tells the providers of a task that is over that they may forget it.
func (s *Service) letGo(e *edit) {
	for i := range e.t.Attempts {
		a := &e.t.Attempts[i]
		if r := e.t.Receipt; r != nil && r.Attempt == a.Number || a.Ended == "LEASE_LOST" { // it may have come to an end that was heard too late
			s.addRelease(e, a)
			if a.HandedOver() {
				s.releaseReplicas(e, a)
			}
		}
	}
	if t := e.t; len(t.Content()) > 0 {
		e.after = append(e.after, func() { s.unpinLater(t) })
	}
	s.forgetLogs(e)
}

func (s *Service) forgetLogs(e *edit) {
	id, keep := e.t.ID, e.t.Result == nil
	if !keep { // stderr is in the result
		e.after = append(e.after, func() { s.cfg.Logs.Remove(id) })
	}
}

func isLate(err error) bool {
	var m *domain.MoveError
	return errors.As(err, &m) && m.Late
}
