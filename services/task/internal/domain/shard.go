package domain

import (
	"fmt"
	"slices"
	"time"
)

// ShardState is where one input of a job is. It only moves forward, but that a shard which no provider had yet may wait again.
type ShardState uint8

// States of shards. The last three are terminal.
const (
	ShardWaiting   ShardState = 10
	ShardRunning   ShardState = 20 // a task has been made for it
	ShardCompleted ShardState = 30 // the program ended with 0
	ShardFailed    ShardState = 40
	ShardCancelled ShardState = 50 // with its job
)

// ShardStates lists them in order.
var ShardStates = []ShardState{ShardWaiting, ShardRunning, ShardCompleted, ShardFailed, ShardCancelled}

var shardStateNames = map[ShardState]string{ShardWaiting: "WAITING", ShardRunning: "RUNNING", ShardCompleted: "COMPLETED", ShardFailed: "FAILED", ShardCancelled: "CANCELLED"}

func (s ShardState) String() string {
	if n, ok := shardStateNames[s]; ok {
		return n
	}
	return fmt.Sprintf("SHARD_STATE_%d", uint8(s))
}

// Terminal tells whether nothing changes any more.
func (s ShardState) Terminal() bool { return s >= ShardCompleted }

// ShardRef says for which shard a task was made.
type ShardRef struct {
	Job   string `json:"job"`
	Index uint32 `json:"index"`
	Try   uint32 `json:"try"` // from 0
}

// RequestID is that of the shard's task: made again, it is the same task.
func (r ShardRef) RequestID() string { return fmt.Sprintf("job:%s:%d:%d", r.Job, r.Index, r.Try) }

// JobOf is the job that a task is a shard of; empty for other tasks.
func (t *Task) JobOf() string {
	if t.Shard == nil {
		return ""
	}
	return t.Shard.Job
}

// Shard is one input of a job, and what became of it.
type Shard struct {
	Job    string
	Index  uint32
	Name   string
	Size   int64
	SHA256 Hash

	State    ShardState
	TaskID   string // whose outcome it has, or the newest
	Tries    uint32 // tasks made for it
	Attempts uint32 // runs that may have come to their end
	ExitCode *int32
	Error    *Failure
	Took     time.Duration // from the placement to the end
	Ended    uint64        // its place among those that have ended, given by the store
	Stdout   Part
}

// Judgement is what the state of a task says about its shard.
type Judgement uint8

// Judgements.
const (
	Undecided Judgement = iota // the task goes on
	Decided                    // the program's own end, whatever it is: final
	Again                      // its providers failed it, or none took it
	Withdrawn                  // it was cancelled
)

// Judge tells what a task says about its shard. A result is the program's own, and so is a trap and a limit.
func Judge(t *Task) Judgement {
	switch {
	case !t.State.Terminal():
		return Undecided
	case t.State == Completed:
		return Decided
	case t.State == Cancelled:
		return Withdrawn
	case t.Receipt != nil && t.Receipt.Cause != CauseProvider, t.Error != nil && t.Error.Reason == "PAYLOAD_INVALID":
		return Decided
	}
	return Again
}

// MayHaveRun counts the attempts of a task that may have come to their end: all but those that no provider took.
func (t *Task) MayHaveRun() uint32 {
	n := uint32(0)
	for i := range t.Attempts {
		if e := t.Attempts[i].Ended; e != "REFUSED" && e != "UNREACHABLE" && e != "REJECTED" {
			n++
		}
	}
	return n
}

// Begin records that a task was made for the shard.
func (s *Shard) Begin(t *Task) {
	s.State, s.TaskID = ShardRunning, t.ID
	s.Tries = max(s.Tries, t.Shard.Try+1)
}

// Wait puts a shard back that no provider has.
func (s *Shard) Wait() { s.State = ShardWaiting }

// End makes the end of its task the shard's. earlier is how often it ran in tasks before.
func (s *Shard) End(t *Task, earlier uint32) {
	s.TaskID, s.ExitCode, s.Error = t.ID, t.ExitCode, t.Error
	s.Tries = max(s.Tries, t.Shard.Try+1)
	s.Attempts = earlier + t.MayHaveRun()
	s.Took = t.Took()
	s.Stdout, _, _ = t.Result.Part("stdout")
	s.State = ShardFailed
	if t.State == Completed && t.ExitCode != nil {
		if *t.ExitCode == 0 {
			s.State = ShardCompleted
		} else {
			s.Error = &Failure{Reason: "EXIT_CODE", Message: fmt.Sprintf("the program ended with exit code %d", *t.ExitCode)}
		}
	}
	if s.State == ShardFailed && s.Error == nil {
		s.Error = &Failure{Reason: t.State.String(), Message: "its task ended as " + t.State.String()}
	}
}

// Fail ends a shard that cannot be made a task.
func (s *Shard) Fail(f Failure) { s.State, s.Error = ShardFailed, &f }

// Extra is how many runs there were beyond the first.
func (s *Shard) Extra() uint32 { return max(s.Attempts, 1) - 1 }

// Took is the time from the placement that brought the outcome to the end.
func (t *Task) Took() time.Duration {
	a := t.Current()
	if t.Receipt != nil {
		a = t.Attempt(t.Receipt.Attempt)
	}
	if a == nil || t.FinishedAt.IsZero() {
		return 0
	}
	return max(t.FinishedAt.Sub(a.SubmittedAt), 0)
}

// Times are how long shards took.
type Times struct{ sorted []time.Duration }

// Add adds one.
func (t *Times) Add(d time.Duration) {
	i, _ := slices.BinarySearch(t.sorted, d)
	t.sorted = slices.Insert(t.sorted, i, d)
}

// Straggling is how long a shard may take until it is slower than 95 of 100 of its siblings; false while not more than half of total
// have ended, when little is known of them.
func (t *Times) Straggling(total uint32) (time.Duration, bool) {
	n := len(t.sorted)
	if n == 0 || 2*n <= int(total) {
		return 0, false
	}
	return t.sorted[min(n*95/100, n-1)], true
}
