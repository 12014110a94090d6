package domain

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// table is written down a second time, on purpose: a change of the rules must be made twice.
// A word is the next state, "late" is ignored, "-" is a mistake.
var table = map[State]map[Move]string{
	Pending:   {Place: "SUBMITTED", Accept: "-", Start: "-", Retry: "-", Complete: "COMPLETED", Fail: "FAILED", Cancel: "CANCELLED", Expire: "EXPIRED"},
	Submitted: {Place: "late", Accept: "ACCEPTED", Start: "RUNNING", Retry: "PENDING", Complete: "COMPLETED", Fail: "FAILED", Cancel: "CANCELLED", Expire: "EXPIRED"},
	Accepted:  {Place: "late", Accept: "late", Start: "RUNNING", Retry: "PENDING", Complete: "COMPLETED", Fail: "FAILED", Cancel: "CANCELLED", Expire: "EXPIRED"},
	Running:   {Place: "late", Accept: "late", Start: "late", Retry: "PENDING", Complete: "COMPLETED", Fail: "FAILED", Cancel: "CANCELLED", Expire: "EXPIRED"},
	Completed: {Place: "late", Accept: "late", Start: "late", Retry: "late", Complete: "late", Fail: "late", Cancel: "late", Expire: "late"},
	Failed:    {Place: "late", Accept: "late", Start: "late", Retry: "late", Complete: "late", Fail: "late", Cancel: "late", Expire: "late"},
	Cancelled: {Place: "late", Accept: "late", Start: "late", Retry: "late", Complete: "late", Fail: "late", Cancel: "late", Expire: "late"},
	Expired:   {Place: "late", Accept: "late", Start: "late", Retry: "late", Complete: "late", Fail: "late", Cancel: "late", Expire: "late"},
}

func TestEveryMoveFromEveryState(t *testing.T) {
	for _, from := range States {
		for _, m := range Moves {
			want := table[from][m]
			to, err := Next(from, m)
			var move *MoveError
			got := to.String()
			if errors.As(err, &move) {
				got = "-"
				if move.Late {
					got = "late"
				}
				if to != from {
					t.Errorf("%s while %s failed and moved to %s", m, from, to)
				}
			}
			if got != want {
				t.Errorf("%s while %s: %s, want %s", m, from, got, want)
			}
			if from.Terminal() && err == nil {
				t.Errorf("%s left the terminal state %s", m, from)
			}
		}
	}
}

func TestStateNames(t *testing.T) {
	for _, s := range States {
		if got, ok := ParseState(s.String()); !ok || got != s {
			t.Errorf("%s reads as %s", s, got)
		}
	}
	if _, ok := ParseState("RUNING"); ok {
		t.Error("a state that is none")
	}
	if State(77).String() != "STATE_77" {
		t.Error(State(77).String())
	}
}

// life drives a task through whatever may happen to it, in any order, and holds what must hold always.
type life struct {
	now      time.Time
	task     *Task
	outcomes int
}

var peers = []string{"12D3KooWa", "12D3KooWb", "12D3KooWc"}

func (l *life) Init() {
	l.now = time.Unix(1_700_000_000, 0)
	l.task = NewTask(Task{ID: "t", Clocks: DefaultClocks, Policy: Policy{MaxAttempts: 3, Redirect: true}}, l.now)
}

// step runs one event on a clone, as the application does, and checks the result against the state before.
func (l *life) step(t *rapid.T, what string, f func(task *Task) error) {
	l.now = l.now.Add(time.Duration(rapid.IntRange(0, 60).Draw(t, "seconds")) * time.Second)
	before := l.task
	snapshot := fmt.Sprintf("%+v", *before)
	clone := before.Clone()
	err := f(clone)
	if fmt.Sprintf("%+v", *before) != snapshot {
		t.Fatalf("%s changed the task that it was cloned from", what)
	}
	if err != nil {
		var m *MoveError
		if errors.As(err, &m) && !m.Late {
			t.Fatalf("%s: %v", what, err) // events alone never make a mistake
		}
		return
	}
	if before.State.Terminal() && (clone.State != before.State || len(clone.Attempts) != len(before.Attempts)) {
		t.Fatalf("%s: from %s to %s", what, before.State, clone.State)
	}
	forward := len(clone.Attempts) > len(before.Attempts) || clone.State >= before.State || clone.State == Pending && before.Live() != nil && clone.Live() == nil
	if !forward {
		t.Fatalf("%s went backward from %s to %s", what, before.State, clone.State)
	}
	if clone.State.Terminal() && !before.State.Terminal() {
		l.outcomes++
	}
	l.task = clone
}

func (l *life) attempt(t *rapid.T) uint32 {
	return uint32(rapid.IntRange(0, len(l.task.Attempts)+1).Draw(t, "attempt"))
}

func (l *life) peer(t *rapid.T) string { return rapid.SampledFrom(peers).Draw(t, "peer") }

func (l *life) Place(t *rapid.T) {
	p := l.peer(t)
	l.step(t, "place", func(x *Task) error {
		if x.State != Pending {
			return &MoveError{Late: true} // the application asks first
		}
		return x.Place(l.now, Attempt{Peer: p}, "")
	})
}

func (l *life) Accept(t *rapid.T) {
	n, p := l.attempt(t), l.peer(t)
	l.step(t, "accept", func(x *Task) error { return x.Accept(l.now, n, p, "") })
}

func (l *life) Start(t *rapid.T) {
	n, p := l.attempt(t), l.peer(t)
	l.step(t, "start", func(x *Task) error { return x.Start(l.now, n, p) })
}

func (l *life) Redirect(t *rapid.T) {
	n, p, to := l.attempt(t), l.peer(t), l.peer(t)
	l.step(t, "redirect", func(x *Task) error { return x.Redirect(l.now, n, p, to, nil, "") })
}

func (l *life) End(t *rapid.T) {
	n, p := l.attempt(t), rapid.SampledFrom(append([]string{""}, peers...)).Draw(t, "from")
	e := End{What: rapid.SampledFrom([]string{"REFUSED", "LEASE_LOST", "UNREACHABLE", "FAILED_AT_PROVIDER"}).Draw(t, "what"), Reason: "R", Final: rapid.IntRange(0, 9).Draw(t, "final") == 0,
		RetryAfter: time.Duration(rapid.IntRange(0, 2).Draw(t, "after")) * time.Minute}
	l.step(t, "end", func(x *Task) error { return x.EndAttempt(l.now, n, p, e) })
}

func (l *life) Receive(t *rapid.T) {
	n, p := l.attempt(t), l.peer(t)
	c := Cause(rapid.SampledFrom([]int{0, 0, 0, 1, 2, 4}).Draw(t, "cause"))
	l.step(t, "receive", func(x *Task) error { return x.Receive(l.now, Receipt{Attempt: n, Peer: p, Cause: c}) })
}

func (l *life) Settle(t *rapid.T) {
	l.step(t, "settle", func(x *Task) error {
		if !x.Collecting() {
			return &MoveError{Late: true}
		}
		return x.Settle(l.now, &Result{})
	})
}

func (l *life) Spoil(t *rapid.T) {
	l.step(t, "spoil", func(x *Task) error {
		if !x.Collecting() {
			return &MoveError{Late: true}
		}
		return x.Spoil(l.now, "bad")
	})
}

func (l *life) Cancel(t *rapid.T) {
	l.step(t, "cancel", func(x *Task) error { _, err := x.RequestCancel(l.now, time.Second); return err })
}

func (l *life) Clock(t *rapid.T) {
	l.step(t, "clock", func(x *Task) error {
		at, c := x.Deadline()
		if at.IsZero() || at.After(l.now) {
			return &MoveError{Late: true}
		}
		if c == ClockCancel {
			return x.Cancel(l.now, "", "")
		}
		return x.Expire(l.now, c)
	})
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
	if x.State == Completed && x.ExitCode == nil {
		t.Fatal("COMPLETED without an exit code")
	}
	if x.State >= Submitted && !x.State.Terminal() && x.Live() == nil {
		t.Fatalf("%s and no attempt lives", x.State)
	}
	if x.State == Pending && x.Live() != nil {
		t.Fatal("PENDING and an attempt lives")
	}
	live := 0
	for i, a := range x.Attempts {
		if a.Number != uint32(i+1) || (a.Ended == "") != a.EndedAt.IsZero() {
			t.Fatalf("attempt %d is %+v", i+1, a)
		}
		if a.Ended == "" {
			live++
		}
	}
	if live > 1 || x.State.Terminal() && live > 0 {
		t.Fatalf("%d attempts live while %s", live, x.State)
	}
	if len(x.History) == 0 || len(x.History) > maxHistory {
		t.Fatalf("the history has %d entries", len(x.History))
	}
}

func TestLife(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := &life{}
		l.Init()
		t.Repeat(rapid.StateMachineActions(l))
	})
}
