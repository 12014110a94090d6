package provider

import (
	"context"
	"crypto/sha256"
	"errors"
	"slices"
	"time"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// Deliver applies one event. What was applied is committed when it returns, or can be told again.
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
	case domain.TypeSubmission, domain.TypeForceSubmission, domain.TypeCancel, domain.TypeQuery, domain.TypeCollected,
		domain.TypeReplicaRequest, domain.TypeReplicaAnswer:
	case domain.TypeAccepted, domain.TypeRedirected, domain.TypeRefused, domain.TypeProgress, domain.TypeLog, domain.TypeResult, domain.TypeFailure, domain.TypeStatus,
		domain.TypeReplicas, domain.TypeReplicaResult:
		return verdict(app.Rejected, "NOT_A_CONSUMER")
	default:
		return verdict(app.Ignored, "TYPE_UNKNOWN")
	}
	body, err := s.cfg.Codec.Decode(d.Event.Type, d.Event.Payload)
	if err != nil {
		return verdict(app.Rejected, "PAYLOAD_INVALID")
	}
	switch b := body.(type) {
	case *domain.Submission:
		if d.Event.Author != d.From {
			return verdict(app.Rejected, "AUTHOR_INVALID")
		}
		return s.onSubmission(ctx, &offer{d: d, sub: *b, signed: d.Event, consumer: d.From})
	case *domain.ForceSubmission:
		return s.onForceSubmission(ctx, d, b)
	case *domain.CancelEvent:
		return s.onCancel(ctx, d, domain.Ref(*b))
	case *domain.QueryEvent:
		return s.onQuery(ctx, d, b)
	case *domain.CollectedEvent:
		return s.onCollected(ctx, d, b)
	case *domain.ReplicaRequestEvent:
		return s.onReplicaRequest(ctx, d, b)
	case *domain.ReplicaAnswerEvent:
		return s.onReplicaAnswer(ctx, d, b)
	}
	return verdict(app.Ignored, "TYPE_UNKNOWN")
}

// offer is a submission, directly from its consumer or handed on.
type offer struct {
	d        *app.Delivery
	sub      domain.Submission
	signed   domain.Event // the consumer's, without attachment once it is stored
	consumer string
	path     []string
	sealed   app.Material
}

func (o *offer) key() domain.EntryKey {
	return domain.EntryKey{Consumer: o.consumer, TaskID: o.sub.TaskID, Attempt: o.sub.Attempt}
}

func (s *Service) onForceSubmission(ctx context.Context, d *app.Delivery, b *domain.ForceSubmission) app.Reply {
	body, err := s.cfg.Codec.Decode(domain.TypeSubmission, b.Submission.Payload)
	sub, ok := body.(*domain.Submission)
	if err != nil || !ok || !s.cfg.Verifier.Verify(&b.Submission) || !sub.Redirect {
		return verdict(app.Rejected, "SUBMISSION_INVALID")
	}
	if b.Path[len(b.Path)-1] != d.From || slices.Contains(b.Path, d.OwnPeer) {
		return verdict(app.Rejected, "PATH_INVALID")
	}
	o := &offer{d: d, sub: *sub, signed: b.Submission, consumer: b.Submission.Author, path: b.Path}
	if s.bound(o) {
		return verdict(app.Rejected, "CANNOT_BE_HANDED_ON")
	}
	return s.onSubmission(ctx, o)
}

// onSubmission decides about a submission: refuse, hand on, or take it.
func (s *Service) onSubmission(ctx context.Context, o *offer) app.Reply {
	s.cfg.Trace.Remember(ctx, o.sub.TaskID)
	known, again := s.known(o)
	if !known { // what is new here has to be paid for before it costs anything
		if r, no := s.paid(ctx, o); no {
			return r
		}
	}
	sealedKey, ciphertext, err := s.cfg.Codec.DecodeSealed(o.d.Event.Attachment)
	if err != nil || !s.payloadFits(o, ciphertext) {
		return verdict(app.Rejected, "ATTACHMENT_INVALID")
	}
	o.sealed = app.Material{SealedKey: sealedKey, Ciphertext: ciphertext}
	if known {
		return again
	}
	if r, no := s.tooMuch(o); no {
		return r
	}
	limits, no := s.judge(o)
	if no != nil {
		return s.refuse(o, no)
	}
	if o.sealed.SealedKey, err = s.cfg.Key.Whole(sealedKey); err != nil {
		return s.unsealed(ctx, o)
	}
	_, span := s.cfg.Trace.Task(ctx, o.sub.TaskID, "task.evaluate")
	c, why := s.evaluate(o)
	span.End()
	if c != nil {
		r, err := s.redirect(ctx, o, c, why)
		if err == nil {
			return r
		}
		if errors.Is(err, app.ErrRepeated) || errors.Is(err, app.ErrExists) {
			return verdict(app.Ignored, "REPEATED")
		}
		s.cfg.Log.Warn("a task could not be handed on and stays here", "error", err.Error())
	}
	return s.take(ctx, o, limits)
}

// unsealed answers a submission whose key is sealed under something that an earlier life of this process knew. That one may have run the task.
func (s *Service) unsealed(ctx context.Context, o *offer) app.Reply {
	switch _, err := s.cfg.Store.Entry(ctx, o.key()); {
	case err == nil:
		return verdict(app.Ignored, "REPEATED")
	case !errors.Is(err, app.ErrNotFound):
		return verdict(app.Again, "")
	}
	return s.refuse(o, &refusal{Reason: app.ReasonSealUnknown, Message: "this provider does not remember what the payload key is sealed under: seal it anew"})
}

// payloadFits holds what came against what the consumer has signed.
func (s *Service) payloadFits(o *offer, ciphertext []byte) bool {
	if len(ciphertext) == 0 {
		return o.sub.PayloadCID != ""
	}
	return o.sub.PayloadCID == "" && len(ciphertext) <= app.SmallLimit && int64(len(ciphertext)) == o.sub.PayloadSize && sha256.Sum256(ciphertext) == o.sub.PayloadHash
}

// known answers a submission that has been here before. What was over before this process began, or long ago, is found
// out by the commit: a look into the journal for every submission costs more than the rare run in vain.
func (s *Service) known(o *offer) (bool, app.Reply) {
	k := o.key()
	s.mu.Lock()
	h := s.held[k]
	_, cancelled := s.early[k]
	over := s.recent.has(k)
	s.mu.Unlock()
	if h != nil {
		h.mu.Lock()
		journaled := h.journaled
		h.mu.Unlock()
		if journaled {
			return true, verdict(app.Ignored, "REPEATED")
		}
		return true, verdict(app.Again, "") // its first delivery is being decided
	}
	if cancelled {
		return true, s.refuse(o, &refusal{Reason: app.ReasonCancelled, Message: "the task was cancelled before it came"})
	}
	if over {
		return true, verdict(app.Ignored, "REPEATED")
	}
	return false, app.Reply{}
}

// refusal is a TaskRefused in the making.
type refusal struct {
	Reason, Message string
	RetryAfter      time.Duration
	puzzle          *domain.Puzzle // what a submission costs, where that is the reason
}

// judge holds a submission against the policy.
func (s *Service) judge(o *offer) (domain.Limits, *refusal) {
	p := &s.cfg.Policy
	if slices.Contains(p.Deny, o.consumer) || len(p.Allow) > 0 && !slices.Contains(p.Allow, o.consumer) {
		return domain.Limits{}, &refusal{Reason: "PEER_NOT_ALLOWED", Message: "this provider does not run tasks for this peer"}
	}
	ex := s.executors[o.sub.Type]
	if ex == nil {
		msg := "this provider does not execute the task type " + quote(o.sub.Type)
		if hint := fault.Suggest(o.sub.Type, s.types); hint != "" {
			msg += ": " + hint
		}
		return domain.Limits{}, &refusal{Reason: "TYPE_UNKNOWN", Message: msg}
	}
	c := ex.Describe()
	if no := s.absent(o.sub.Type, &c); no != nil {
		return domain.Limits{}, no
	}
	limits, no := p.Limits.Capped(domain.Limits(c.MaxLimits)).Grant(o.sub.Limits)
	if no != nil {
		return limits, &refusal{Reason: "LIMITS_TOO_HIGH", Message: no.Error()}
	}
	if no := enough(&c, o.sub.Limits, &limits); no != nil {
		return limits, no
	}
	if size := o.sub.PayloadSize + o.sub.RefSize; size > p.MaxPayload {
		return limits, &refusal{Reason: "PAYLOAD_TOO_LARGE", Message: "the payload has " + domain.Bytes(size) + ", and this provider takes " + domain.Bytes(p.MaxPayload)}
	}
	s.mu.Lock()
	unfinished := s.perPeer[o.consumer]
	s.mu.Unlock()
	if unfinished >= p.PerPeer {
		return limits, &refusal{Reason: "PEER_QUOTA", Message: "this peer has as many unfinished tasks here as it may have", RetryAfter: 2 * time.Second}
	}
	return limits, nil
}

func quote(s string) string {
	if len(s) > 64 {
		s = s[:64]
	}
	return "\"" + s + "\""
}

// refuse says no. It is not journaled: asked again, the answer would be the same, and a stranger's submissions should
// cost no sync of the disk.
func (s *Service) refuse(o *offer, no *refusal) app.Reply {
	if !s.spent(o, no) {
		return verdict(app.Rejected, no.Reason)
	}
	if s.outbox.Full() {
		return verdict(app.Again, "")
	}
	row := s.outbox.Row(app.Address{Persona: o.d.Persona, Peer: o.consumer}, domain.Ref{TaskID: o.sub.TaskID, Attempt: o.sub.Attempt},
		&domain.RefusedEvent{TaskID: o.sub.TaskID, Attempt: o.sub.Attempt, Reason: no.Reason, Message: no.Message, RetryAfter: no.RetryAfter, Puzzle: no.puzzle})
	row.Timeout = time.Minute
	s.cfg.Store.Later(&app.Writes{Outbox: []app.OutboxRow{row}})
	s.outbox.Track(row)
	s.cfg.Metrics.Attempt("REFUSED_" + no.Reason)
	return app.Reply{Outbox: []app.Outgoing{row.Outgoing(nil)}}
}
