package domain

import (
	"fmt"
	"slices"
	"time"
)

// End is how an attempt ended without an outcome of the task.
type End struct {
	What    string // REFUSED, UNREACHABLE, REJECTED, LEASE_LOST, FAILED_AT_PROVIDER, RESULT_INVALID
	Reason  string // UPPER_SNAKE, the provider's where it gave one
	Message string
	// RetryAfter is how long the peer is not chosen again for this task; 0: never.
	RetryAfter time.Duration
	// Again: the peer may be chosen again at once.
	Again bool
	// Final: it would be the same everywhere, so that the task fails.
	Final bool
}

// counted tells whether the end counts against MaxAttempts: a placement that no provider took did not cost anything.
func counted(what string) bool {
	return what == "LEASE_LOST" || what == "FAILED_AT_PROVIDER" || what == "RESULT_INVALID"
}

// EndAttempt ends attempt n. The task is PENDING then, and its peer excluded; or FAILED, when no attempt is left or the end
// is final; or CANCELLED, when that was asked for. from is empty when this node itself gave the attempt up.
func (t *Task) EndAttempt(now time.Time, n uint32, from string, e End) error {
	a := t.Attempt(n)
	if a == nil || from != "" && a.Peer != from && !slices.Contains(a.Trail, from) {
		return ErrNotHolder
	}
	if a.Ended != "" || t.State.Terminal() || t.Live() != a {
		return &MoveError{From: t.State, Move: Retry, Late: true}
	}
	// A provider that handed the task on may still say that it could not, but not once the next one has answered.
	if from != "" && a.Peer != from && t.State != Submitted {
		return &MoveError{From: t.State, Move: Retry, Late: true}
	}
	a.Ended, a.EndedAt = e.What, now
	peer := a.Peer
	detail := e.Reason
	if e.Message != "" {
		detail += ": " + e.Message
	}
	switch {
	case t.CancelRequested:
		return t.finish(now, Cancel, "CANCELLED", peer, &Failure{Reason: "CANCELLED", Message: "the task was cancelled by its user"})
	case e.Final:
		t.note(now, e.What, peer, detail)
		return t.finish(now, Fail, "FAILED", peer, &Failure{Reason: e.Reason, Message: e.Message})
	}
	if err := t.move(Retry); err != nil {
		return err
	}
	t.Receipt = nil
	if !e.Again {
		t.exclude(now, peer, e)
	}
	t.note(now, e.What, peer, detail)
	t.WaitingSince = now
	t.AcceptedAt, t.StartedAt = time.Time{}, time.Time{}
	if left, message := t.attemptsLeft(); !left {
		return t.finish(now, Fail, "FAILED", "", &Failure{Reason: "ATTEMPTS_EXHAUSTED", Message: message + "; the last: " + detail})
	}
	return nil
}

func (t *Task) exclude(now time.Time, peer string, e End) {
	if t.Excluded == nil {
		t.Excluded = make(map[string]Exclusion, 1)
	}
	x := Exclusion{Reason: e.Reason}
	if e.RetryAfter > 0 {
		x.Until = now.Add(e.RetryAfter)
	}
	t.Excluded[peer] = x
}

// Avoid keeps a task that wants a provider from one that it would not be placed at: e says why, and for how long.
func (t *Task) Avoid(now time.Time, peer string, e End) error {
	if t.State != Pending {
		return &MoveError{From: t.State, Move: Retry, Late: true}
	}
	t.exclude(now, peer, e)
	t.note(now, e.What, peer, e.Reason+": "+e.Message)
	return nil
}

func (t *Task) attemptsLeft() (bool, string) {
	n := 0
	for _, a := range t.Attempts {
		if counted(a.Ended) {
			n++
		}
	}
	switch {
	case n >= int(t.Policy.MaxAttempts):
		return false, fmt.Sprintf("all %d attempts failed at their providers", n)
	case len(t.Attempts) >= MaxPlacements:
		return false, fmt.Sprintf("no provider took the task in %d placements", len(t.Attempts))
	}
	return true, ""
}

// ExcludedNow lists the peers that must not be chosen at this time, with the reasons, and when the first of them may
// be again (zero: none will).
func (t *Task) ExcludedNow(now time.Time) (peers map[string]string, next time.Time) {
	peers = make(map[string]string, len(t.Excluded)+len(t.Policy.Exclude))
	for _, p := range t.Policy.Exclude {
		peers[p] = "EXCLUDED_BY_USER"
	}
	for p, x := range t.Excluded {
		if x.Until.IsZero() {
			peers[p] = x.Reason
			continue
		}
		if x.Until.After(now) {
			peers[p] = x.Reason
			if next.IsZero() || x.Until.Before(next) {
				next = x.Until
			}
		}
	}
	return peers, next
}

// NoCandidate notes why no provider could be chosen; the same words twice in a row are noted once.
func (t *Task) NoCandidate(now time.Time, detail string, c *Choice) (changed bool) {
	if t.State != Pending {
		return false
	}
	if n := len(t.History); n > 0 && t.History[n-1].What == "NO_CANDIDATE" && t.History[n-1].Detail == clip(detail) {
		return false
	}
	t.note(now, "NO_CANDIDATE", "", detail)
	t.Unplaced, t.UnplacedAt = c, now
	return true
}

// StillHeld notes that a provider whose lease was lost works on the task after all: while nobody else has it, the
// placement clock starts again, because its result would count.
func (t *Task) StillHeld(now time.Time, n uint32, from string) bool {
	a := t.Attempt(n)
	if a == nil || a.Peer != from || a.Ended != "LEASE_LOST" || t.State != Pending {
		return false
	}
	t.WaitingSince = now
	return true
}

// Receive takes a provider's receipt, of whichever attempt it is: the first one that proves good is the outcome. That a provider has
// stopped an attempt is one only where the task's user wants its end: an attempt that was taken from a silent provider is cancelled, too.
// The task is Collecting then, until Settle or EndAttempt.
func (t *Task) Receive(now time.Time, r Receipt) error {
	a := t.Attempt(r.Attempt)
	if a == nil || a.Peer != r.Peer {
		return ErrNotHolder
	}
	if t.State.Terminal() || t.Receipt != nil || a.Ended == "RESULT_INVALID" || r.Cause == CauseCancelled && !t.CancelRequested {
		return &MoveError{From: t.State, Move: Complete, Late: true}
	}
	r.At, r.Persona = now, a.Persona
	t.Receipt = &r
	t.note(now, "RESULT", r.Peer, r.Reason)
	return nil
}

// Spoil ends the attempt whose result turned out not to be what its receipt says.
func (t *Task) Spoil(now time.Time, message string) error {
	r := t.Receipt
	if r == nil {
		return &MoveError{From: t.State, Move: Retry}
	}
	t.Receipt = nil
	a := t.Attempt(r.Attempt)
	if t.Live() != a { // an earlier attempt's: the newer one goes on
		a.Ended, a.EndedAt = "RESULT_INVALID", now
		t.note(now, "RESULT_INVALID", r.Peer, message)
		// It may be one that was not counted when it ended, and no attempt may begin that is not left.
		if left, why := t.attemptsLeft(); !left && t.State == Pending {
			return t.finish(now, Fail, "FAILED", "", &Failure{Reason: "ATTEMPTS_EXHAUSTED", Message: why + "; the last: " + message})
		}
		return nil
	}
	return t.EndAttempt(now, r.Attempt, r.Peer, End{What: "RESULT_INVALID", Reason: "RESULT_INVALID", Message: message})
}

// Settle makes the receipt the outcome: COMPLETED, FAILED or CANCELLED. result may be nil where a failure has no body.
func (t *Task) Settle(now time.Time, result *Result) error {
	r := t.Receipt
	if r == nil {
		return &MoveError{From: t.State, Move: Complete}
	}
	was := *t
	t.Usage, t.Result = r.Usage, result
	if a := t.Attempt(r.Attempt); a.Ended == "" {
		a.State, a.Ended, a.EndedAt = Running, "RESULT", now
	}
	var err error
	switch r.Cause {
	case 0:
		code := r.ExitCode
		t.ExitCode = &code
		err = t.finish(now, Complete, "COMPLETED", r.Peer, nil)
	case CauseCancelled:
		err = t.finish(now, Cancel, "CANCELLED", r.Peer, &Failure{Reason: "CANCELLED", Message: "the task was cancelled by its user"})
	default:
		err = t.finish(now, Fail, "FAILED", r.Peer, &Failure{Reason: r.Reason, Message: r.Message})
	}
	if err != nil {
		*t = was
	}
	return err
}
