package provider

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// grace is what an executor gets beyond the program's own time limit, to fetch, compile and end, before it counts
// as stuck.
const grace = 10 * time.Minute

// run executes one attempt in the slot that it has, and settles it.
func (s *Service) run(h *held) {
	_, span := s.cfg.Trace.Task(context.Background(), h.key.TaskID, "task.execute")
	span.SetType(h.taskType)
	span.SetAttempt(h.key.Attempt)
	out, res := s.execute(h)
	if out != nil {
		span.SetReason(out.Reason)
	}
	span.End()
	unread := h.discard() // the payload of one that did not get to run
	s.mu.Lock()
	if unread {
		s.staging--
	}
	s.leave(h)
	s.pump()
	s.watch.Tell(queueKey)
	s.mu.Unlock()
	s.fleet.kick()
	if out == nil && s.giveBack(h) {
		return
	}
	_, span = s.cfg.Trace.Task(context.Background(), h.key.TaskID, "task.settle")
	defer span.End()
	s.settle(h, out, res)
}

// execute runs the program. out is nil when the attempt was broken off by the end of this process, or could not be begun and can be by another replica.
func (s *Service) execute(h *held) (out *domain.Outcome, res *packedResult) {
	start := time.Now()
	e, err := s.starting(h, start)
	if s.another(err) {
		return nil, nil
	}
	if err != nil {
		return s.interrupted(h, err), nil
	}
	if e.Revision > 0 && s.speaks() { // its consumer knows of it
		s.watch.Tell(e.TaskID)
		s.tellRuns(h)
	}
	if e.Runs > domain.MaxRuns {
		return &domain.Outcome{Cause: domain.CauseProvider, Reason: "EXECUTOR_DIED", Message: fmt.Sprintf("it was started %d times and took its provider down each time", domain.MaxRuns)}, nil
	}
	var sealer *sealer
	if e.Sub.Recipient != "" {
		sealer = s.newSealer(e.Sub.Recipient, nil)
	}
	run, resultKey, clean, bad := s.unpack(h, e)
	defer clean()
	if s.another(bad) {
		return nil, nil
	}
	if bad != nil {
		return s.interrupted(h, bad), nil
	}
	if sealer == nil {
		sealer = s.newSealer("", resultKey)
	}
	sink := newSink(s.cfg.Workspace, run.Limits.Output, &h.logs)
	sink.progress = func(p domain.Progress) { s.progressed(h, p) }
	defer sink.remove()
	ctx, cancel := context.WithTimeout(h.ctx, run.Limits.Time+grace)
	defer cancel()
	o, err := h.executor.Execute(ctx, run, sink)
	program := app.ProgramHash(e.Sub.Type, run.Parts)
	h.mu.Lock()
	cancelled := h.cancelled
	h.mu.Unlock()
	wall := time.Since(start)
	if at := sink.startedAt(); !at.IsZero() {
		wall = time.Since(at)
	}
	s.cfg.Metrics.Run(e.Sub.Type, wall)
	if s.ctx.Err() != nil && !cancelled {
		return nil, nil
	}
	out = outcome(o, err, cancelled, sink)
	if cause := cmp.Or(sink.err, err); out.Cause == domain.CauseProvider && cause != nil {
		s.cfg.Log.Warn("a run broke off", "type", e.Sub.Type, "error", cause.Error())
	}
	out.Program = program
	out.Usage = domain.Usage{Wall: wall, CPU: o.CPU, PeakMemory: o.PeakMemory, Output: sink.total()}
	res, err = s.packResult(e, sealer, out, sink)
	if err != nil {
		if s.ctx.Err() != nil {
			return nil, nil
		}
		if errors.Is(err, errRecipient) {
			s.credits.fault(e.Consumer, e.Path)
			return &domain.Outcome{Cause: domain.CauseProgram, Reason: errRecipient.Reason, Message: errRecipient.Message, Usage: out.Usage}, nil
		}
		s.cfg.Log.Warn("a result could not be put away", "error", err.Error())
		return &domain.Outcome{Cause: domain.CauseProvider, Reason: "RESULT_LOST", Message: "the provider could not store the result", Usage: out.Usage}, nil
	}
	return out, res
}

// starting marks the attempt as running. One that this process did not take itself is committed before it runs, so that
// one that takes the process down is not run for ever.
func (s *Service) starting(h *held, now time.Time) (*domain.Entry, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.cancelled {
		return nil, context.Canceled
	}
	if h.begun {
		h.begun = false
		return h.entry, nil
	}
	e := h.entry.Clone()
	if err := e.Start(now); err != nil {
		return nil, err
	}
	if !h.journaled {
		h.entry = e
		return e, nil
	}
	e.Revision++
	ew := app.EntryWrite{Entry: e}
	s.fleet.told(&ew)
	w := &app.Writes{Entries: []app.EntryWrite{ew}}
	if h.resumed {
		if err := s.cfg.Store.Commit(h.ctx, w); err != nil {
			return nil, err
		}
	} else {
		s.cfg.Store.Later(w)
	}
	h.entry = e
	return e, nil
}

// errRecipient is what a cipher says of a submission that names nobody's key.
var errRecipient = fault.InvalidArgument("RECIPIENT_INVALID", "the submission's result recipient is not a hybrid age recipient")

// invalid is what is wrong with a payload: the same everywhere.
type invalid string

func (i invalid) Error() string { return string(i) }

// interrupted is the outcome of an attempt that did not get to run.
func (s *Service) interrupted(h *held, err error) *domain.Outcome {
	h.mu.Lock()
	cancelled, e := h.cancelled, h.entry
	h.mu.Unlock()
	var bad invalid
	switch {
	case cancelled:
		return &domain.Outcome{Cause: domain.CauseCancelled, Reason: app.ReasonCancelled, Message: "cancelled before it ran"}
	case s.ctx.Err() != nil:
		return nil
	case errors.As(err, &bad):
		s.credits.fault(e.Consumer, e.Path)
		return &domain.Outcome{Cause: domain.CauseProgram, Reason: app.ReasonPayloadInvalid, Message: string(bad)}
	}
	s.cfg.Log.Warn("an attempt could not be run", "error", err.Error())
	return &domain.Outcome{Cause: domain.CauseProvider, Reason: "PROVIDER_FAILED", Message: "the provider could not run the task"}
}

// outcome judges how a run ended.
func outcome(o app.Outcome, err error, cancelled bool, sink *sink) *domain.Outcome {
	out := &domain.Outcome{ExitCode: o.ExitCode, Reason: o.Reason, Message: clip(o.Message)}
	switch {
	case cancelled:
		out.Cause, out.Reason, out.Message = domain.CauseCancelled, app.ReasonCancelled, "the program was stopped"
	case sink.over != "":
		out.Cause, out.Reason, out.Message = domain.CauseLimit, app.ReasonOutputLimit, sink.over
	case sink.lost:
		out.Cause, out.Reason, out.Message = domain.CauseProvider, "RESULT_LOST", "the provider could not keep the program's output"
	case sink.err != nil, err != nil, o.Reason == app.ReasonCancelled: // nobody cancelled: the executor gave up by itself
		out.Cause, out.Reason, out.Message = domain.CauseProvider, "EXECUTOR_DIED", "the executor ended before the program did"
	case o.Reason == app.ReasonTimeLimit, o.Reason == app.ReasonMemoryLimit, o.Reason == app.ReasonOutputLimit:
		out.Cause = domain.CauseLimit
	case o.Reason != "":
		out.Cause = domain.CauseProgram
	}
	return out
}

func clip(s string) string {
	if len(s) > 2000 {
		s = s[:2000]
	}
	return string(bytes.ToValidUTF8([]byte(s), []byte("\uFFFD")))
}
