package consumer

import (
	"context"
	"errors"
	"time"

	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// Deliver applies one event from a provider. What was applied is committed when it returns.
func (s *Service) Deliver(ctx context.Context, d app.Delivery) app.Reply {
	r := s.deliver(ctx, &d)
	if r.Delivered == nil {
		r.Delivered = &app.Delivered{}
	}
	s.cfg.Metrics.Event(d.Event.Type.String(), r.Delivered.Verdict)
	return r
}

func verdict(v app.Verdict, reason string) app.Reply {
	return app.Reply{Delivered: &app.Delivered{Verdict: v, Reason: reason}}
}

func (s *Service) deliver(ctx context.Context, d *app.Delivery) app.Reply {
	if !domain.ValidID(d.Event.ID) || !domain.ValidPeer(d.From) {
		return verdict(app.Rejected, "EVENT_INVALID")
	}
	switch d.Event.Type {
	case domain.TypeAccepted, domain.TypeRedirected, domain.TypeRefused, domain.TypeProgress, domain.TypeLog, domain.TypeResult, domain.TypeFailure, domain.TypeStatus,
		domain.TypeReplicas, domain.TypeReplicaResult:
	case domain.TypeSubmission, domain.TypeForceSubmission, domain.TypeCancel, domain.TypeQuery, domain.TypeCollected:
		return verdict(app.Rejected, "NOT_A_PROVIDER")
	case domain.TypeReplicaRequest, domain.TypeReplicaAnswer: // whoever asks does so for another consumer, which has named this node
		return verdict(app.Ignored, "NOT_A_PROVIDER")
	default:
		return verdict(app.Ignored, "TYPE_UNKNOWN")
	}
	body, err := s.cfg.Codec.Decode(d.Event.Type, d.Event.Payload)
	if err != nil {
		return verdict(app.Rejected, "PAYLOAD_INVALID")
	}
	switch b := body.(type) {
	case *domain.AcceptedEvent:
		return s.onAccepted(ctx, d, b)
	case *domain.RedirectedEvent:
		return s.onRedirected(ctx, d, b)
	case *domain.RefusedEvent:
		return s.onRefused(ctx, d, b)
	case *domain.ProgressEvent:
		return s.onProgress(ctx, d, b)
	case *domain.LogEvent:
		return s.onLog(ctx, d, b)
	case *domain.ResultEvent:
		return s.onResult(ctx, d, b)
	case *domain.FailureEvent:
		return s.onFailure(ctx, d, b)
	case *domain.StatusEvent:
		return s.onStatus(ctx, d, b)
	case *domain.ReplicasEvent:
		return s.onReplicas(ctx, d, b)
	case *domain.ReplicaResultEvent:
		return s.onReplicaResult(ctx, d, b)
	}
	return verdict(app.Ignored, "TYPE_UNKNOWN")
}

// apply runs an event's edit and finds the verdict. fn's errors: late moves are ignored, senders that do not hold the attempt
// are rejected, anything else is to be tried again.
func (s *Service) apply(ctx context.Context, d *app.Delivery, taskID string, fn func(e *edit) error) app.Reply {
	r, err := s.change(ctx, taskID, func(e *edit) error {
		e.w.Inbox = []app.InboxID{app.InboxIDOf(d.From, d.Event.ID)}
		return fn(e)
	})
	if err == nil {
		return r
	}
	return s.judge(err)
}

func (s *Service) judge(err error) app.Reply {
	var rej rejection
	switch {
	case errors.As(err, &rej):
		return verdict(app.Rejected, string(rej))
	case errors.Is(err, errAgain):
		return verdict(app.Again, "")
	case errors.Is(err, app.ErrRepeated), isLate(err):
		return verdict(app.Ignored, "LATE")
	case errors.Is(err, domain.ErrNotHolder):
		return verdict(app.Rejected, "NOT_HOLDER")
	case isNotFound(err): // pruned, or never made here: it says nothing of the sender, who may be late
		return verdict(app.Ignored, "TASK_UNKNOWN")
	}
	s.cfg.Log.Warn("an event could not be applied and will be tried again", "error", err.Error())
	return verdict(app.Again, "")
}

// rejection is an event that its sender should not have sent.
type rejection string

func (r rejection) Error() string { return string(r) }

// errAgain is an event whose time has not come.
var errAgain = errors.New("not yet")

func (s *Service) onAccepted(ctx context.Context, d *app.Delivery, b *domain.AcceptedEvent) app.Reply {
	return s.apply(ctx, d, b.TaskID, func(e *edit) error {
		if err := e.t.Accept(e.now, b.Attempt, d.From, position(b.QueuePosition)); err != nil {
			return s.mayCome(e, b.Attempt, d.From, err)
		}
		s.opened(e, b.Attempt, d.From)
		s.renew(e)
		s.cfg.Metrics.Attempt("ACCEPTED")
		return nil
	})
}

func position(n uint32) string {
	if n == 0 {
		return ""
	}
	return "tasks ahead of it: " + utoa(n)
}

// mayCome turns "not the holder" into "not yet" while a redirect may still be on its way, and into "late" when that is not waited for
// any more.
func (s *Service) mayCome(e *edit, n uint32, from string, err error) error {
	a := e.t.Attempt(n)
	if !errors.Is(err, domain.ErrNotHolder) || !e.t.MayBeAt(a, from) {
		return err
	}
	if e.t.Live() == a {
		return errAgain
	}
	return &domain.MoveError{From: e.t.State, Move: domain.Accept, Late: true}
}

func (s *Service) onRedirected(ctx context.Context, d *app.Delivery, b *domain.RedirectedEvent) app.Reply {
	body, err := s.cfg.Codec.Decode(domain.TypeAnnouncement, b.Announcement.Payload)
	ann, ok := body.(*domain.Announcement)
	if err != nil || !ok || ann.PeerID != b.Announcement.Author || !s.cfg.Verifier.Verify(&b.Announcement) {
		return verdict(app.Rejected, "ANNOUNCEMENT_INVALID")
	}
	return s.apply(ctx, d, b.TaskID, func(e *edit) error {
		if err := e.t.Redirect(e.now, b.Attempt, d.From, ann.PeerID, ann.Addresses, b.Reason); err != nil {
			if a := e.t.Attempt(b.Attempt); a != nil && a.Peer == d.From && a.Ended != "" { // whoever has it now works for nothing
				s.stop(e, app.Address{Persona: a.Persona, Peer: ann.PeerID, Addresses: ann.Addresses}, a.Number)
				return errUnchanged
			}
			return s.mayCome(e, b.Attempt, d.From, err) // of two that hand it on, the second may be heard first
		}
		s.renew(e)
		a := e.t.Attempt(b.Attempt)
		if e.t.CancelRequested {
			c := *a
			s.sendCancel(e, &c)
		}
		// A question makes node connect to the new provider, which may be unable to dial this node.
		s.ask(e, a)
		s.cfg.Metrics.Attempt("REDIRECTED")
		return nil
	})
}

func (s *Service) onRefused(ctx context.Context, d *app.Delivery, b *domain.RefusedEvent) app.Reply {
	return s.apply(ctx, d, b.TaskID, func(e *edit) error {
		end := domain.End{What: "REFUSED", Reason: b.Reason, Message: b.Message, RetryAfter: b.RetryAfter}
		if end.Reason == "" {
			end.Reason = "REFUSED"
		}
		end.Final = b.Reason == app.ReasonPayloadInvalid
		if b.Reason == app.ReasonSealUnknown && b.Attempt == uint32(len(e.t.Attempts)) {
			end.RetryAfter, end.Again = s.resealed(e)
		}
		end = s.priced(e.t, d.From, b, end)
		if err := s.endAttempt(e, b.Attempt, d.From, end); err != nil {
			return s.mayCome(e, b.Attempt, d.From, err)
		}
		return nil
	})
}

// opened remembers that a provider could open what the last attempt was sealed with.
func (s *Service) opened(e *edit, attempt uint32, from string) {
	a := e.t.Attempt(attempt)
	if e.live.seal != nil && a != nil && a.Peer == from && attempt == uint32(len(e.t.Attempts)) {
		e.live.seal.Heard()
	}
}

// resealed sees to it that the next attempt's seal says all, and tells when it may be made at the same provider: at once where this one's said less. Who does not know a seal that has
// said all is as good as one that refuses for good. A submission that an earlier life of this process made is one or the other.
func (s *Service) resealed(e *edit) (after time.Duration, atOnce bool) {
	if e.live.seal == nil {
		return time.Second, false
	}
	return 0, e.live.seal.Lost()
}

// onProgress renews leases in memory; only a change of state is written, and nobody waits for that.
func (s *Service) onProgress(ctx context.Context, d *app.Delivery, b *domain.ProgressEvent) app.Reply {
	var out app.Reply
	for _, p := range b.Tasks {
		r, err := s.change(ctx, p.TaskID, func(e *edit) error { return s.progress(e, d, p) })
		if err == nil {
			out.Outbox = append(out.Outbox, r.Outbox...)
		}
	}
	return out
}

func (s *Service) progress(e *edit, d *app.Delivery, p domain.ProgressEntry) error {
	a := e.t.Attempt(p.Attempt)
	if a == nil || a.Peer != d.From {
		if e.t.Live() != a && e.t.MayBeAt(a, d.From) {
			s.stop(e, app.Address{Persona: a.Persona, Peer: d.From}, a.Number)
			return errUnchanged
		}
		return domain.ErrNotHolder
	}
	if e.t.StillHeld(e.now, p.Attempt, d.From) {
		return nil
	}
	if e.t.State.Terminal() || a.Ended != "" {
		s.stop(e, address(a), a.Number)
		return errUnchanged
	}
	s.renew(e)
	if p.Progress != nil {
		now := *p.Progress
		now.At = e.now
		e.progress, e.progressAttempt = &now, p.Attempt
	}
	return s.follow(e, p.Attempt, d.From, p.State)
}

// ask asks a provider what has become of an attempt.
func (s *Service) ask(e *edit, a *domain.Attempt) {
	ref := domain.Ref{TaskID: e.t.ID, Attempt: a.Number}
	e.once(s.outbox.Once(address(a), ref, &domain.QueryEvent{Tasks: []domain.Ref{ref}}, nil, false, s.cfg.Lease))
}

// stop tells a provider to stop that works for nothing: it has not heard of the end, or nobody knew that it has the attempt.
func (s *Service) stop(e *edit, to app.Address, attempt uint32) {
	e.once(s.outbox.Once(to, domain.Ref{TaskID: e.t.ID, Attempt: attempt}, &domain.CancelEvent{TaskID: e.t.ID, Attempt: attempt}, nil, false, s.cfg.SubmitTimeout))
}

// follow moves the task to where its provider says that it is.
func (s *Service) follow(e *edit, n uint32, from string, state domain.State) error {
	moved := false
	if state >= domain.Accepted && e.t.State < domain.Accepted {
		if err := e.t.Accept(e.now, n, from, ""); err != nil {
			return err
		}
		moved = true
	}
	if state == domain.Running && e.t.State < domain.Running {
		if err := e.t.Start(e.now, n, from); err != nil {
			return err
		}
		moved = true
	}
	if !moved {
		return errUnchanged
	}
	return nil
}

func (s *Service) onStatus(ctx context.Context, d *app.Delivery, b *domain.StatusEvent) app.Reply {
	return s.apply(ctx, d, b.TaskID, func(e *edit) error {
		a := e.t.Attempt(b.Attempt)
		if !a.Had(d.From) && a.Replica(d.From) != nil {
			return errUnchanged // it was asked for the result, and has none
		}
		if !a.Had(d.From) {
			return s.mayCome(e, b.Attempt, d.From, domain.ErrNotHolder)
		}
		if a.Peer != d.From || e.t.Live() != a || e.t.Receipt != nil { // who handed it on may have been asked before that was known
			return errUnchanged
		}
		if b.State == domain.Accepted || b.State == domain.Running {
			s.renew(e)
			return s.follow(e, b.Attempt, d.From, b.State)
		}
		if a.State == domain.Submitted {
			return errUnchanged // the submission may still be under way: its lease decides
		}
		what := "the provider does not know the task any more"
		if b.State != 0 {
			what = "the provider has let the result go"
		}
		// Others come first. But it is no liar: one of the two has been brought back from a backup, and there may be no other provider.
		return s.endAttempt(e, b.Attempt, d.From, domain.End{What: "FAILED_AT_PROVIDER", Reason: "FORGOTTEN", Message: what, RetryAfter: s.cfg.Lease})
	})
}

func (s *Service) onLog(ctx context.Context, d *app.Delivery, b *domain.LogEvent) app.Reply {
	_, err := s.change(ctx, b.TaskID, func(e *edit) error {
		a := e.t.Attempt(b.Attempt)
		if a == nil || a.Peer != d.From {
			return s.mayCome(e, b.Attempt, d.From, domain.ErrNotHolder)
		}
		if e.t.Live() != a || e.t.Receipt != nil {
			return errUnchanged
		}
		s.renew(e)
		if err := s.cfg.Logs.Append(logName(e.t.ID, b.Attempt), b.Offset, b.Data); err != nil {
			s.cfg.Log.Warn("a piece of a task's log is lost", "error", err.Error())
		}
		s.watch.Tell(e.t.ID)
		return errUnchanged
	})
	if err != nil {
		return s.judge(err)
	}
	return app.Reply{}
}
