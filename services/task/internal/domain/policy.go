package domain

import "time"

// ReportEvery is how often a provider says that it is at work on a task, which renews the lease.
const ReportEvery = 5 * time.Second

// ShortestLease is the shortest lease that a provider which is well does not lose: a report may be some seconds late where a machine or a way is slow.
const ShortestLease = ReportEvery + 3*time.Second

// Policy says where a task may run and how often it is tried.
type Policy struct {
	Redirect    bool     `json:"redirect,omitempty"` // the entry provider may hand the task on
	Only        []string `json:"only,omitempty"`     // only these providers; empty: any
	Exclude     []string `json:"exclude,omitempty"`
	MaxAttempts uint32   `json:"max_attempts"`
	Replicas    uint32   `json:"replicas,omitempty"` // providers that keep the result, the one that made it among them; 0 is 1
}

// Copies is how many providers are to keep the result beside the one that made it.
func (p Policy) Copies() uint32 { return max(p.Replicas, 1) - 1 }

// Bounds of a policy.
const (
	DefaultAttempts = 3
	MaxAttempts     = 16
	// MaxPlacements bounds refusals as well, which do not count as attempts.
	MaxPlacements = 64
)

// Clock is one of the five that bound what a task may wait for.
type Clock uint8

// Clocks in the order of a life.
const (
	ClockPlacement  Clock = iota + 1 // until a provider has accepted
	ClockQueue                       // in the provider's queue
	ClockRun                         // from start to end of a run
	ClockCollection                  // from the end of the run to the decrypted result
	ClockTotal                       // all together
	// ClockCancel is not the user's: how long a cancelled task waits for its provider's word.
	ClockCancel
)

var clockNames = map[Clock][3]string{
	ClockPlacement:  {"placement", "PLACEMENT_CLOCK", "finding a provider that accepts"},
	ClockQueue:      {"queue", "QUEUE_CLOCK", "waiting in the provider's queue"},
	ClockRun:        {"run", "RUN_CLOCK", "the run"},
	ClockCollection: {"collection", "COLLECTION_CLOCK", "fetching the result"},
	ClockTotal:      {"total", "TOTAL_CLOCK", "the whole task"},
	ClockCancel:     {"cancel", "CANCELLED", "cancelling"},
}

func (c Clock) String() string { return clockNames[c][0] }

// Reason is the task's error reason when this clock runs out.
func (c Clock) Reason() string { return clockNames[c][1] }

func (c Clock) what() string { return clockNames[c][2] }

// Clocks are how long each may take. None is zero in a Task.
type Clocks struct {
	Placement  time.Duration `json:"placement"`
	Queue      time.Duration `json:"queue"`
	Run        time.Duration `json:"run"`
	Collection time.Duration `json:"collection"`
	Total      time.Duration `json:"total"`
}

// DefaultClocks are what the contract promises.
var DefaultClocks = Clocks{Placement: 5 * time.Minute, Queue: time.Hour, Run: 24 * time.Hour, Collection: time.Hour, Total: 48 * time.Hour}

// OrDefault fills in what is not set.
func (c Clocks) OrDefault(d Clocks) Clocks {
	set := func(v *time.Duration, d time.Duration) {
		if *v <= 0 {
			*v = d
		}
	}
	set(&c.Placement, d.Placement)
	set(&c.Queue, d.Queue)
	set(&c.Run, d.Run)
	set(&c.Collection, d.Collection)
	set(&c.Total, d.Total)
	return c
}

func (c Clocks) of(k Clock) time.Duration {
	switch k {
	case ClockPlacement:
		return c.Placement
	case ClockQueue:
		return c.Queue
	case ClockRun:
		return c.Run
	case ClockCollection:
		return c.Collection
	default:
		return c.Total
	}
}

// Deadline is when the next clock runs out, and which. A terminal task has none (zero time).
func (t *Task) Deadline() (time.Time, Clock) {
	if t.State.Terminal() {
		return time.Time{}, 0
	}
	at, which := t.CreatedAt.Add(t.Clocks.Total), ClockTotal
	try := func(from time.Time, c Clock) {
		if d := from.Add(t.Clocks.of(c)); d.Before(at) {
			at, which = d, c
		}
	}
	switch {
	case t.Receipt != nil:
		try(t.Receipt.At, ClockCollection)
	case t.State == Pending, t.State == Submitted:
		try(t.WaitingSince, ClockPlacement)
	case t.State == Accepted:
		try(t.AcceptedAt, ClockQueue)
	case t.State == Running:
		try(t.StartedAt, ClockRun)
	}
	if !t.CancelAt.IsZero() && t.CancelAt.Before(at) {
		at, which = t.CancelAt, ClockCancel
	}
	return at, which
}
