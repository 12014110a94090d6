package domain

import (
	"fmt"
	"time"
)

// JobState is where a job is in its life. A job only moves forward, but for RUNNING and PAUSED, between which its user moves it.
type JobState uint8

// States of jobs. The last three are terminal.
const (
	JobOpen      JobState = 10 // shards are being added
	JobRunning   JobState = 20
	JobPaused    JobState = 30 // no more shards are started
	JobCompleted JobState = 40 // every shard has completed
	JobFailed    JobState = 50 // every shard has ended, some failed
	JobCancelled JobState = 60
)

// JobStates lists them in order.
var JobStates = []JobState{JobOpen, JobRunning, JobPaused, JobCompleted, JobFailed, JobCancelled}

var jobStateNames = map[JobState]string{JobOpen: "OPEN", JobRunning: "RUNNING", JobPaused: "PAUSED", JobCompleted: "COMPLETED", JobFailed: "FAILED", JobCancelled: "CANCELLED"}

func (s JobState) String() string {
	if n, ok := jobStateNames[s]; ok {
		return n
	}
	return fmt.Sprintf("JOB_STATE_%d", uint8(s))
}

// Terminal tells whether nothing changes any more.
func (s JobState) Terminal() bool { return s >= JobCompleted }

// JobMove is a step that a job may be asked to take.
type JobMove uint8

// Moves of jobs.
const (
	JobStart JobMove = iota + 1 // all shards are there
	JobPause
	JobResume
	JobComplete
	JobFail
	JobCancel
)

// JobMoves lists them.
var JobMoves = []JobMove{JobStart, JobPause, JobResume, JobComplete, JobFail, JobCancel}

var jobMoveNames = map[JobMove]string{JobStart: "start", JobPause: "pause", JobResume: "resume", JobComplete: "complete", JobFail: "fail", JobCancel: "cancel"}

func (m JobMove) String() string { return jobMoveNames[m] }

// jobTransitions is the whole truth. A paused job may end: its last shards were running.
var jobTransitions = map[JobState]map[JobMove]JobState{
	JobOpen:    {JobStart: JobRunning, JobCancel: JobCancelled},
	JobRunning: {JobPause: JobPaused, JobComplete: JobCompleted, JobFail: JobFailed, JobCancel: JobCancelled},
	JobPaused:  {JobResume: JobRunning, JobComplete: JobCompleted, JobFail: JobFailed, JobCancel: JobCancelled},
}

// JobMoveError is a move that the table has not.
type JobMoveError struct {
	From JobState
	Move JobMove
}

func (e *JobMoveError) Error() string {
	return fmt.Sprintf("cannot %s a job that is %s", e.Move, e.From)
}

// Bounds of jobs.
const (
	MaxShards       = 100_000
	MaxParallel     = 1024
	DefaultParallel = 64
	MaxPersonas     = 64
	// MaxTries is how many tasks are made for one shard whose failures are not its program's own, each with its own attempts.
	MaxTries = 3
)

// Job is one program over many inputs. Its methods are the only writers of its state; whoever shares a Job works on a Clone.
type Job struct {
	ID        string `json:"id"`
	RequestID string `json:"request_id"`
	Name      string `json:"name,omitempty"`
	Total     uint32 `json:"total"`
	Parallel  uint32 `json:"parallel"`
	Hedge     bool   `json:"hedge,omitempty"`
	InputPath string `json:"input_path,omitempty"` // empty: stdin
	Personas  uint32 `json:"personas,omitempty"`   // that its shards leave from at one time, at most; 0: as many as the node is set to

	State      JobState    `json:"state"`
	CreatedAt  time.Time   `json:"created_at"`
	StartedAt  time.Time   `json:"started_at,omitzero"`
	FinishedAt time.Time   `json:"finished_at,omitzero"`
	Detail     string      `json:"detail,omitempty"`
	Final      ShardCounts `json:"final"` // of a terminal job
	Revision   uint64      `json:"revision"`
}

// ShardCounts are how many shards are where.
type ShardCounts struct {
	Waiting   uint32 `json:"waiting,omitempty"`
	Running   uint32 `json:"running,omitempty"`
	Completed uint32 `json:"completed,omitempty"`
	Failed    uint32 `json:"failed,omitempty"`
	Cancelled uint32 `json:"cancelled,omitempty"`
	Extra     uint32 `json:"extra,omitempty"` // runs beyond the first of each shard that may have come to their end
	Bytes     int64  `json:"bytes,omitempty"` // of all inputs
}

// Added is how many there are.
func (c ShardCounts) Added() uint32 { return c.Waiting + c.Running + c.Ended() }

// Ended is how many will not change any more.
func (c ShardCounts) Ended() uint32 { return c.Completed + c.Failed + c.Cancelled }

// Of is the count of a state, to be changed.
func (c *ShardCounts) Of(s ShardState) *uint32 {
	switch s {
	case ShardWaiting:
		return &c.Waiting
	case ShardRunning:
		return &c.Running
	case ShardCompleted:
		return &c.Completed
	case ShardFailed:
		return &c.Failed
	default:
		return &c.Cancelled
	}
}

// NewJob makes an OPEN job.
func NewJob(j Job, now time.Time) *Job {
	j.State, j.CreatedAt = JobOpen, now
	if j.Parallel == 0 {
		j.Parallel = DefaultParallel
	}
	return &j
}

// Clone is a copy whose methods do not touch j.
func (j *Job) Clone() *Job {
	c := *j
	return &c
}

func (j *Job) move(m JobMove) error {
	to, ok := jobTransitions[j.State][m]
	if !ok {
		return &JobMoveError{From: j.State, Move: m}
	}
	j.State = to
	return nil
}

// Start begins to run a job whose shards are all there.
func (j *Job) Start(now time.Time, c ShardCounts) error {
	if c.Added() != j.Total {
		return fmt.Errorf("%d of %d shards are there", c.Added(), j.Total)
	}
	if err := j.move(JobStart); err != nil {
		return err
	}
	j.StartedAt = now
	return nil
}

// Pause lets no more shards start.
func (j *Job) Pause() error { return j.move(JobPause) }

// Resume goes on.
func (j *Job) Resume() error { return j.move(JobResume) }

// Cancel ends it.
func (j *Job) Cancel(now time.Time, c ShardCounts, detail string) error {
	if err := j.move(JobCancel); err != nil {
		return err
	}
	c.Cancelled += c.Waiting + c.Running
	c.Waiting, c.Running = 0, 0
	j.FinishedAt, j.Final, j.Detail = now, c, detail
	return nil
}

// Finish ends a job whose shards have all ended.
func (j *Job) Finish(now time.Time, c ShardCounts) error {
	if c.Ended() != j.Total {
		return fmt.Errorf("%d of %d shards have ended", c.Ended(), j.Total)
	}
	m := JobComplete
	if c.Completed != j.Total {
		m = JobFail
	}
	if err := j.move(m); err != nil {
		return err
	}
	if m == JobFail {
		j.Detail = fmt.Sprintf("%d of %d shards failed", c.Failed+c.Cancelled, j.Total)
	}
	j.FinishedAt, j.Final = now, c
	return nil
}
