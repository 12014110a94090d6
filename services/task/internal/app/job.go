package app

import (
	"time"

	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// NewJob is what a user wants done to many inputs.
type NewJob struct {
	RequestID string
	Name      string
	Spec      Spec
	InputPath string // empty: stdin
	Total     uint32
	Parallel  uint32
	Hedge     bool
	Personas  uint32
}

// NewShard is one input.
type NewShard struct {
	Index   uint32
	Name    string
	Content PartSource
}

// JobView is a job as its user sees it.
type JobView struct {
	domain.Job
	Counts domain.ShardCounts
}

// JobWrite inserts a job, or replaces one whose stored revision is one less than Job.Revision.
type JobWrite struct {
	Job    *domain.Job
	Insert bool
	Spec   []byte // written at insertion
	// Drop ends every shard that has not ended as CANCELLED, and forgets all inputs.
	Drop   bool
	Delete bool // with its shards
}

// ShardWrite inserts a shard, or replaces one that has not ended. One that has stays as it is, and that is no error.
type ShardWrite struct {
	Shard   *domain.Shard
	Insert  bool   // ErrExists when its index or its name is there
	Content []byte // a small input; written at insertion, forgotten when the shard ends
}

// JobFilter chooses jobs for a list, newest first.
type JobFilter struct {
	States []domain.JobState
	Limit  int
	After  Cursor
}

// ShardFilter chooses shards of a job, by index.
type ShardFilter struct {
	States []domain.ShardState
	From   uint32 // the first index
	Limit  int
}

// JobSpec is what the tasks of a job have in common, as it is stored.
type JobSpec struct {
	Type     string            `json:"type"`
	Options  []byte            `json:"options,omitempty"`
	Parts    []JobPart         `json:"parts,omitempty"`
	Limits   domain.Limits     `json:"limits"`
	Redirect *bool             `json:"redirect,omitempty"`
	Policy   domain.Policy     `json:"policy"`
	Clocks   domain.Clocks     `json:"clocks"`
	Labels   map[string]string `json:"labels,omitempty"`
}

// JobPart is a part that every task of a job has: its bytes, or the hash of one of the job's input files.
type JobPart struct {
	Name   string      `json:"name"`
	Inline []byte      `json:"inline,omitempty"`
	Size   int64       `json:"size"`
	SHA256 domain.Hash `json:"sha256"`
	InFile bool        `json:"in_file,omitempty"`
}

// MaxOpenJob is how long an OPEN job waits for its shards.
const MaxOpenJob = 24 * time.Hour
