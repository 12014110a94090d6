package domain

import "fmt"

// State is where a task is in its life. The gaps leave room; the order is the order of a life, and a task only
// moves forward: its position is (attempt, state), compared in that order, so that a task which is tried again
// is PENDING once more under a higher attempt number.
type State uint8

// States. The last four are terminal.
const (
	Pending   State = 10 // needs a provider
	Submitted State = 20 // offered to one
	Accepted  State = 30 // in its queue
	Running   State = 40
	Completed State = 50 // the program ended by itself, whatever its exit code
	Failed    State = 60
	Cancelled State = 70
	Expired   State = 80 // a clock ran out
)

// States lists them in order.
var States = []State{Pending, Submitted, Accepted, Running, Completed, Failed, Cancelled, Expired}

var stateNames = map[State]string{
	Pending: "PENDING", Submitted: "SUBMITTED", Accepted: "ACCEPTED", Running: "RUNNING",
	Completed: "COMPLETED", Failed: "FAILED", Cancelled: "CANCELLED", Expired: "EXPIRED",
}

func (s State) String() string {
	if n, ok := stateNames[s]; ok {
		return n
	}
	return fmt.Sprintf("STATE_%d", uint8(s))
}

// ParseState reads a state's name.
func ParseState(name string) (State, bool) {
	for s, n := range stateNames {
		if n == name {
			return s, true
		}
	}
	return 0, false
}

// Terminal tells whether nothing changes any more.
func (s State) Terminal() bool { return s >= Completed }

// Move is a step that a task may be asked to take.
type Move uint8

// Moves.
const (
	Place    Move = iota + 1 // a provider was chosen and the submission is in the outbox
	Accept                   // the provider has it in its queue
	Start                    // the program runs
	Retry                    // the attempt has ended without an outcome, and another may be made
	Complete                 // there is a result
	Fail
	Cancel
	Expire
)

// Moves lists them.
var Moves = []Move{Place, Accept, Start, Retry, Complete, Fail, Cancel, Expire}

var moveNames = map[Move]string{Place: "place", Accept: "accept", Start: "start", Retry: "retry",
	Complete: "complete", Fail: "fail", Cancel: "cancel", Expire: "expire"}

func (m Move) String() string { return moveNames[m] }

// MoveError is a move that the table has not. Late says that it would lead backward: what asked for it was late or
// repeated, and is to be ignored. Any other is a mistake of the caller.
type MoveError struct {
	From State
	Move Move
	Late bool
}

func (e *MoveError) Error() string {
	if e.Late {
		return fmt.Sprintf("too late to %s: the task is %s", e.Move, e.From)
	}
	return fmt.Sprintf("illegal move: %s while %s", e.Move, e.From)
}

// transitions is the whole truth. SUBMITTED to COMPLETED skips two states, because a result implies acceptance;
// PENDING to COMPLETED is the result of an earlier attempt that had been given up.
var transitions = map[State]map[Move]State{
	Pending:   {Place: Submitted, Complete: Completed, Fail: Failed, Cancel: Cancelled, Expire: Expired},
	Submitted: {Accept: Accepted, Start: Running, Retry: Pending, Complete: Completed, Fail: Failed, Cancel: Cancelled, Expire: Expired},
	Accepted:  {Start: Running, Retry: Pending, Complete: Completed, Fail: Failed, Cancel: Cancelled, Expire: Expired},
	Running:   {Retry: Pending, Complete: Completed, Fail: Failed, Cancel: Cancelled, Expire: Expired},
}

// late lists moves that something repeated or reordered may ask for in good faith.
var late = map[State]map[Move]bool{
	Submitted: {Place: true},
	Accepted:  {Place: true, Accept: true},
	Running:   {Place: true, Accept: true, Start: true},
}

// Next is the state after a move, or a *MoveError.
func Next(from State, m Move) (State, error) {
	if to, ok := transitions[from][m]; ok {
		return to, nil
	}
	return from, &MoveError{From: from, Move: m, Late: from.Terminal() || late[from][m]}
}
