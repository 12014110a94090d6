package domain

import (
	"encoding/json"
	"errors"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// life drives a task through whatever may happen to it, in any order: events that come late, twice, from holders and from
// strangers, and clocks. step holds each change against the state before, Check what must hold always.
type life struct {
	now      time.Time
	task     *Task
	outcomes int
	last     *event // what happened last, to be repeated
}

type event struct {
	what string
	do   func(x *Task) error
}

var (
	peers = []string{"12D3KooWa", "12D3KooWb", "12D3KooWc", "12D3KooWd", "12D3KooWe", "12D3KooWf"}
	errNo = &MoveError{Late: true} // the application asks first, and would not have called
)

func (l *life) begin(t *rapid.T) {
	l.now = time.Unix(1_700_000_000, 0)
	clocks := DefaultClocks
	if rapid.Bool().Draw(t, "short clocks") {
		clocks = Clocks{Placement: 2 * time.Minute, Queue: 3 * time.Minute, Run: 5 * time.Minute, Collection: time.Minute, Total: 20 * time.Minute}
	}
	l.task = NewTask(Task{ID: "t", Clocks: clocks, Policy: Policy{MaxAttempts: rapid.Uint32Range(1, 4).Draw(t, "attempts"), Redirect: rapid.Bool().Draw(t, "redirect")}}, l.now)
}

func asJSON(x *Task) string {
	b, err := json.Marshal(x)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// step runs one event on a clone, as the application does, and checks the result against the state before.
func (l *life) step(t *rapid.T, what string, do func(x *Task) error) {
	l.now = l.now.Add(time.Duration(rapid.IntRange(0, 60).Draw(t, "seconds")) * time.Second)
	l.apply(t, &event{what, do})
}

func (l *life) apply(t *rapid.T, ev *event) {
	l.last = ev
	before := l.task
	was := asJSON(before)
	clone := before.Clone()
	err := ev.do(clone)
	if asJSON(before) != was {
		t.Fatalf("%s changed the task that it was cloned from", ev.what)
	}
	if err != nil {
		var m *MoveError
		if errors.As(err, &m) && !m.Late {
			t.Fatalf("%s: %v", ev.what, err) // events alone never make a mistake
		}
		return
	}
	if before.State.Terminal() && asJSON(clone) != was {
		t.Fatalf("%s changed a task that was over: from %s to %s", ev.what, was, asJSON(clone))
	}
	forward := len(clone.Attempts) > len(before.Attempts) || clone.State >= before.State || clone.State == Pending && before.Live() != nil && clone.Live() == nil
	if !forward {
		t.Fatalf("%s went backward from %s to %s", ev.what, before.State, clone.State)
	}
	for i, a := range before.Attempts {
		b := clone.Attempts[i]
		invalid := b.Ended == "RESULT_INVALID" // the one thing that may be found out of an attempt after its end
		if a.Ended != "" && b.Ended != a.Ended && !invalid || b.State < a.State || b.Number != a.Number || a.Ended != "" && b.Peer != a.Peer {
			t.Fatalf("%s: attempt %d was %+v and is %+v", ev.what, i+1, a, b)
		}
	}
	if clone.State.Terminal() && !before.State.Terminal() {
		l.outcomes++
	}
	l.task = clone
}

func (l *life) attempt(t *rapid.T) uint32 {
	if n := len(l.task.Attempts); n > 0 && rapid.IntRange(0, 3).Draw(t, "any attempt") > 0 {
		return uint32(n)
	}
	return uint32(rapid.IntRange(0, len(l.task.Attempts)+1).Draw(t, "attempt"))
}

// peer is mostly the one that has the attempt, else anybody: a stranger, one that had it, one that will.
func (l *life) peer(t *rapid.T, n uint32) string {
	if a := l.task.Attempt(n); a != nil && rapid.IntRange(0, 3).Draw(t, "anybody") > 0 {
		return a.Peer
	}
	return rapid.SampledFrom(peers).Draw(t, "peer")
}

// Repeat is the same event again, at once or much later.
func (l *life) Repeat(t *rapid.T) {
	if l.last == nil {
		t.Skip("nothing has happened")
	}
	ev := l.last
	l.step(t, "again "+ev.what, ev.do)
	l.last = ev
}

func (l *life) Place(t *rapid.T) {
	p := rapid.SampledFrom(peers).Draw(t, "peer")
	l.step(t, "place", func(x *Task) error {
		if x.State != Pending {
			return errNo
		}
		return x.Place(l.now, Attempt{Peer: p}, "")
	})
}

func (l *life) NoCandidate(t *rapid.T) {
	detail := rapid.SampledFrom([]string{"nobody", "all are busy"}).Draw(t, "detail")
	l.step(t, "no candidate", func(x *Task) error { x.NoCandidate(l.now, detail, nil); return nil })
}

func (l *life) Accept(t *rapid.T) {
	n := l.attempt(t)
	p := l.peer(t, n)
	l.step(t, "accept", func(x *Task) error { return x.Accept(l.now, n, p, "") })
}

func (l *life) Start(t *rapid.T) {
	n := l.attempt(t)
	p := l.peer(t, n)
	l.step(t, "start", func(x *Task) error { return x.Start(l.now, n, p) })
}

func (l *life) StillHeld(t *rapid.T) {
	n := l.attempt(t)
	p := l.peer(t, n)
	l.step(t, "still held", func(x *Task) error { x.StillHeld(l.now, n, p); return nil })
}

func (l *life) Redirect(t *rapid.T) {
	n := l.attempt(t)
	p, to := l.peer(t, n), rapid.SampledFrom(peers).Draw(t, "to")
	l.step(t, "redirect", func(x *Task) error { return x.Redirect(l.now, n, p, to, nil, "") })
}

func (l *life) end(t *rapid.T, from string, n uint32, whats ...string) {
	e := End{What: rapid.SampledFrom(whats).Draw(t, "what"), Reason: "R", Final: rapid.IntRange(0, 9).Draw(t, "final") == 0,
		RetryAfter: time.Duration(rapid.IntRange(0, 2).Draw(t, "after")) * time.Minute}
	l.step(t, e.What, func(x *Task) error { return x.EndAttempt(l.now, n, from, e) })
}

// Refuse is a provider's no, or its failure.
func (l *life) Refuse(t *rapid.T) {
	n := l.attempt(t)
	l.end(t, l.peer(t, n), n, "REFUSED", "FAILED_AT_PROVIDER")
}

// GiveUp is this node's: the provider is silent, or cannot be reached.
func (l *life) GiveUp(t *rapid.T) {
	l.end(t, "", l.attempt(t), "LEASE_LOST", "UNREACHABLE", "REJECTED")
}

func (l *life) Receive(t *rapid.T) {
	n := l.attempt(t)
	p := l.peer(t, n)
	r := Receipt{Attempt: n, Peer: p, Cause: Cause(rapid.SampledFrom([]int{0, 0, 0, 1, 2, 4}).Draw(t, "cause")), Reason: "R", ExitCode: rapid.Int32Range(0, 3).Draw(t, "code")}
	l.step(t, "receive", func(x *Task) error { return x.Receive(l.now, r) })
}

func (l *life) Settle(t *rapid.T) {
	l.step(t, "settle", func(x *Task) error {
		if !x.Collecting() {
			return errNo
		}
		return x.Settle(l.now, &Result{})
	})
}

func (l *life) Spoil(t *rapid.T) {
	l.step(t, "spoil", func(x *Task) error {
		if !x.Collecting() {
			return errNo
		}
		return x.Spoil(l.now, "bad")
	})
}

func (l *life) Cancel(t *rapid.T) {
	l.step(t, "cancel", func(x *Task) error { _, err := x.RequestCancel(l.now, time.Second); return err })
}

func runOut(x *Task, now time.Time) error {
	at, c := x.Deadline()
	switch {
	case at.IsZero() || at.After(now):
		return errNo
	case c == ClockCancel:
		return x.Cancel(now, "", "")
	}
	return x.Expire(now, c)
}

func (l *life) Clock(t *rapid.T) {
	l.step(t, "clock", func(x *Task) error { return runOut(x, l.now) })
}

func (l *life) Check(t *rapid.T) {
	x := l.task
	if l.outcomes > 1 || (l.outcomes == 1) != x.State.Terminal() {
		t.Fatalf("%d outcomes while %s", l.outcomes, x.State)
	}
	if x.State.Terminal() == x.FinishedAt.IsZero() {
		t.Fatalf("%s, finished at %v", x.State, x.FinishedAt)
	}
	at, c := x.Deadline()
	if x.State.Terminal() != at.IsZero() || !x.State.Terminal() && c == 0 {
		t.Fatalf("%s has the deadline %v", x.State, at)
	}
	if (x.Error != nil) != (x.State.Terminal() && x.State != Completed) {
		t.Fatalf("%s with the error %v", x.State, x.Error)
	}
	if (x.State == Completed) != (x.ExitCode != nil) {
		t.Fatalf("%s with the exit code %v", x.State, x.ExitCode)
	}
	if x.State >= Submitted && !x.State.Terminal() && x.Live() == nil {
		t.Fatalf("%s and no attempt lives", x.State)
	}
	if x.State == Pending && x.Live() != nil {
		t.Fatal("PENDING and an attempt lives")
	}
	l.checkAttempts(t)
	l.checkHistory(t)
}

func (l *life) checkAttempts(t *rapid.T) {
	x := l.task
	live, cost := 0, 0
	for i, a := range x.Attempts {
		if a.Number != uint32(i+1) || (a.Ended == "") != a.EndedAt.IsZero() {
			t.Fatalf("attempt %d is %+v", i+1, a)
		}
		if len(a.Trail) > MaxHops || slices.Contains(a.Trail, a.Peer) || len(a.Trail) > 0 && !x.Policy.Redirect {
			t.Fatalf("attempt %d is at %s and came by %v", a.Number, a.Peer, a.Trail)
		}
		if a.Ended == "" {
			live++
		}
		if counted(a.Ended) {
			cost++
		}
	}
	if live > 1 || x.State.Terminal() && live > 0 {
		t.Fatalf("%d attempts live while %s", live, x.State)
	}
	if len(x.Attempts) > MaxPlacements {
		t.Fatalf("%d attempts", len(x.Attempts))
	}
	// One that lives when an earlier one's result proves bad goes on: its own may be good.
	if cost >= int(x.Policy.MaxAttempts) && x.State == Pending {
		t.Fatalf("%d attempts counted of %d, and the task is %s", cost, x.Policy.MaxAttempts, x.State)
	}
}

func (l *life) checkHistory(t *rapid.T) {
	h := l.task.History
	if len(h) == 0 || len(h) > maxHistory {
		t.Fatalf("the history has %d entries", len(h))
	}
	if h[0].What != "CREATED" || h[len(h)-1].State != l.task.State {
		t.Fatalf("the history goes from %s to %s, and the task is %s", h[0].What, h[len(h)-1].State, l.task.State)
	}
	for i := 1; i < len(h); i++ {
		a, b := h[i-1], h[i]
		switch {
		case b.At.Before(a.At), b.Attempt < a.Attempt, b.What == "", len(b.Detail) > maxDetail:
			t.Fatalf("%+v follows %+v", b, a)
		case b.Attempt == a.Attempt && b.State < a.State && b.State != Pending:
			t.Fatalf("within an attempt %s follows %s", b.State, a.State)
		case a.State.Terminal():
			t.Fatalf("%s follows the end, %s", b.What, a.State)
		}
	}
}

func TestLife(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := &life{}
		l.begin(t)
		t.Repeat(rapid.StateMachineActions(l))
		// Whatever has happened, time alone ends the task.
		for range 3 {
			if l.task.State.Terminal() {
				break
			}
			l.now = l.now.Add(l.task.Clocks.Total)
			l.apply(t, &event{"clock", func(x *Task) error { return runOut(x, l.now) }})
			l.Check(t)
		}
		if !l.task.State.Terminal() {
			t.Fatalf("the task is %s after its total clock", l.task.State)
		}
	})
}
