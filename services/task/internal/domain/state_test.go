package domain

import (
	"errors"
	"testing"
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
