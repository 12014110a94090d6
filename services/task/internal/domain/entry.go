package domain

import (
	"slices"
	"time"
)

// EntryKey names one attempt in a provider's journal. The consumer is part of it: a task id is the consumer's choice, and
// nobody may touch another's task by choosing the same.
type EntryKey struct {
	Consumer string
	TaskID   string
	Attempt  uint32
}

// Entry is one attempt in a provider's journal. Its states are those of a task from ACCEPTED on; one that was handed on
// or refused is FAILED with What set, kept so that a repeated submission is recognised.
type Entry struct {
	TaskID    string     `json:"task_id"`
	Consumer  string     `json:"consumer"`
	Persona   string     `json:"persona,omitempty"` // ours, that the submission came to
	Sub       Submission `json:"submission"`
	Limits    Limits     `json:"limits"` // granted: none is zero
	Path      []string   `json:"path,omitempty"`
	State     State      `json:"state"`
	What      string     `json:"what,omitempty"` // REDIRECTED, REFUSED or REPLICA; else empty
	Runs      uint32     `json:"runs,omitempty"` // how often it was started: more than once after a crash
	CreatedAt time.Time  `json:"created_at"`
	StartedAt time.Time  `json:"started_at,omitzero"`
	EndedAt   time.Time  `json:"ended_at,omitzero"`
	Outcome   *Outcome   `json:"outcome,omitempty"`
	// Collected: the consumer has the result, or its time is over; what is left is a tombstone until ForgetAt.
	Collected bool `json:"collected,omitempty"`
	// Replicas are those that were named to keep the result; Reported says that its consumer was told who does. Replaced, never changed.
	Replicas []Replica `json:"replicas,omitempty"`
	Reported bool      `json:"reported,omitempty"`
	// Signed is the consumer's submission while others may be asked to keep the result, and of a replica the request that it came with.
	Signed   *Signed   `json:"signed,omitempty"`
	Runner   string    `json:"runner,omitempty"` // of a replica: who made the result
	ForgetAt time.Time `json:"forget_at,omitzero"`
	Revision uint64    `json:"revision"`
}

// Outcome is how a provider's attempt ended.
type Outcome struct {
	Cause      Cause  `json:"cause,omitempty"` // 0 for a result
	ExitCode   int32  `json:"exit_code,omitempty"`
	Reason     string `json:"reason,omitempty"`
	Message    string `json:"message,omitempty"`
	Usage      Usage  `json:"usage"`
	Program    Hash   `json:"program"`
	ResultHash Hash   `json:"result_hash"`
	ResultSize int64  `json:"result_size"`
	ResultCID  string `json:"result_cid,omitempty"`
}

// Key names the entry.
func (e *Entry) Key() EntryKey {
	return EntryKey{Consumer: e.Consumer, TaskID: e.TaskID, Attempt: e.Sub.Attempt}
}

// Clone is a copy whose methods do not touch e.
func (e *Entry) Clone() *Entry {
	c := *e
	c.Replicas = slices.Clone(e.Replicas)
	return &c
}

// MaxRuns is how often an attempt is started at most: one that takes the provider down with it must not do so for ever.
const MaxRuns = 3

// Start records that the program is about to run. It may be called again after a crash.
func (e *Entry) Start(now time.Time) error {
	if e.State == Running {
		e.Runs++
		return nil
	}
	to, err := Next(e.State, Start)
	if err != nil {
		return err
	}
	e.State, e.StartedAt = to, now
	e.Runs++
	return nil
}

// End records the outcome. What was collected is kept until now+keep. The recipient, half of an entry's bytes, has had its use.
func (e *Entry) End(now time.Time, o Outcome) error {
	m := Complete
	switch o.Cause {
	case 0:
	case CauseCancelled:
		m = Cancel
	default:
		m = Fail
	}
	to, err := Next(e.State, m)
	if err != nil {
		return err
	}
	e.State, e.EndedAt, e.Outcome = to, now, &o
	e.ForgetAt = now.Add(e.Sub.Keep)
	e.Sub.Recipient = ""
	return nil
}

// Collect lets the result go and leaves a tombstone.
func (e *Entry) Collect(now time.Time, tombstone time.Duration) bool {
	if !e.State.Terminal() || e.Collected {
		return false
	}
	e.Collected, e.ForgetAt = true, now.Add(tombstone)
	e.Signed = nil
	return true
}

// LimitsPolicy is what a provider grants.
type LimitsPolicy struct {
	Default Limits // for what a request leaves open
	Max     Limits
}

// Grant gives the limits that will hold, or says which is too high, with both figures in its units.
func (p LimitsPolicy) Grant(want Limits) (Limits, *LimitError) {
	got := want
	if got.Time <= 0 {
		got.Time = min(p.Default.Time, p.Max.Time)
	}
	if got.Memory <= 0 {
		got.Memory = min(p.Default.Memory, p.Max.Memory)
	}
	if got.Output <= 0 {
		got.Output = min(p.Default.Output, p.Max.Output)
	}
	switch {
	case got.Time > p.Max.Time:
		return got, &LimitError{What: "time", Want: got.Time.String(), Max: p.Max.Time.String()}
	case got.Memory > p.Max.Memory:
		return got, &LimitError{What: "memory", Want: Bytes(got.Memory), Max: Bytes(p.Max.Memory)}
	case got.Output > p.Max.Output:
		return got, &LimitError{What: "output", Want: Bytes(got.Output), Max: Bytes(p.Max.Output)}
	}
	return got, nil
}

// Capped is the policy with a stricter maximum where m has one.
func (p LimitsPolicy) Capped(m Limits) LimitsPolicy {
	if m.Time > 0 {
		p.Max.Time = min(p.Max.Time, m.Time)
	}
	if m.Memory > 0 {
		p.Max.Memory = min(p.Max.Memory, m.Memory)
	}
	if m.Output > 0 {
		p.Max.Output = min(p.Max.Output, m.Output)
	}
	return p
}

// LimitError says which limit was asked for beyond the maximum.
type LimitError struct{ What, Want, Max string }

func (e *LimitError) Error() string {
	return "the limit of " + e.What + " is " + e.Want + ", and this provider grants at most " + e.Max + ": ask for less"
}
