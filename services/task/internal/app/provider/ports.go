// Package provider is what a provider's task service does: it evaluates submissions, keeps a durable queue, runs
// attempts within limits, and keeps results until their consumers have them.
package provider

import (
	"context"
	"io"
	"time"

	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// Store is the journal. Reads see what was committed; app.ErrNotFound says that there is no such row.
type Store interface {
	app.Committer
	app.OutboxReader
	Entry(ctx context.Context, k domain.EntryKey) (*domain.Entry, error)
	// Entries returns those of a task id, of whatever consumer and attempt, newest first.
	Entries(ctx context.Context, taskID string) ([]*domain.Entry, error)
	// OpenEntries returns entries that are not terminal, in the order in which they were accepted.
	OpenEntries(ctx context.Context) ([]*domain.Entry, error)
	// KeptEntries returns entries with a small result that is not collected yet, with keys above after.
	KeptEntries(ctx context.Context, after domain.EntryKey, limit int) ([]*domain.Entry, error)
	// Replicated returns replicas that are kept or being fetched here, and entries whose results others are to keep, with keys above after.
	Replicated(ctx context.Context, after domain.EntryKey, limit int) ([]*domain.Entry, error)
	// Overdue returns entries whose ForgetAt has passed.
	Overdue(ctx context.Context, now time.Time, limit int) ([]*domain.Entry, error)
	ListEntries(ctx context.Context, f app.TaskFilter) ([]*domain.Entry, error)
	// Material and Result are an entry's payload and its result's ciphertext.
	Material(ctx context.Context, k domain.EntryKey) (app.Material, error)
	Result(ctx context.Context, k domain.EntryKey) ([]byte, error)
}

// Evaluator decides who runs a task.
type Evaluator interface {
	Name() string
	// Wants is how many contenders it needs to hear of.
	Wants() int
	Decide(own domain.Resources, others []domain.Contender) domain.Decision
}

// Parts keeps parts of payloads that came by reference, decrypted, within a bound: what was not used longest goes. Under how many names one content is known,
// there is one copy of it, which counts once. What a name is not known for is not found, whether its content is there or not.
type Parts interface {
	// Find gives the file of a part and keeps it until release, which must be called once. app.ErrNotFound when there is none that is
	// what p says: a file is checked when it is first used after a start.
	Find(name string, p domain.Part) (path string, release func(), err error)
	// Create makes a file for one; its content has been checked when Keep is called.
	Create() (PartFile, error)
}

// PartFile is one being written.
type PartFile interface {
	io.Writer
	// Keep makes the name known for the part, and gives it as Find does. Where there is a copy of the same hash already, that is the one that stays. Drop
	// forgets the file; after Keep it does nothing.
	Keep(name string, p domain.Part) (path string, release func(), err error)
	Drop()
}

// Workspace gives directories for the files of runs.
type Workspace interface {
	// Make gives an empty directory that only this user can enter, and what removes it.
	Make() (dir string, remove func(), err error)
}

// Fleet is the replicas that share one journal, as one of them sees it: they tell each other what they do through the store. Who claims an entry works on it alone until the lease of
// the claim is over, which each Beat makes anew. All methods but Listen block for ten seconds at most.
type Fleet interface {
	// Name is this replica's.
	Name() string
	// Beat says that this replica is there, keeps its lead and its claims of the entries that keep names, and gives the claims of its name back that were made before keep was called and that
	// it does not name. It takes the lead where nobody has it.
	Beat(ctx context.Context, slots int, keep func() []domain.EntryKey, lease time.Duration) (Pulse, error)
	// Claim takes up to limit open entries that nobody works on, and writes down with it what begin makes of each; nil: nothing. What is to be ended is not begun. Where the answer is lost
	// the next Beat gives back what was taken.
	Claim(ctx context.Context, limit int, lease time.Duration, begin func(*domain.Entry) *app.EntryWrite) ([]Claimed, error)
	// Cancel marks an open entry. Where nobody works on it, it is claimed, and given; else who does hears of it.
	Cancel(ctx context.Context, k domain.EntryKey, lease time.Duration) (mine *domain.Entry, err error)
	// Events are the rows of the outbox that tell an entry's consumer of it, in order.
	Events(ctx context.Context, k domain.EntryKey) ([]app.OutboxRow, error)
	// Leave gives back claims and lead.
	Leave(ctx context.Context) error
	// Listen calls heard for what others do, until ctx ends. heard must not block.
	Listen(ctx context.Context, heard func(Note)) error
}

// Pulse is how the fleet stands.
type Pulse struct {
	Slots    int // of all that are there
	Replicas int
	Leads    bool // this one does what one has to do for all
	// Cancelled are entries that this one works on and that are to end, told again at each beat: their note may have been missed, or may have come before the entry was known here.
	Cancelled []domain.EntryKey
}

// Claimed is an entry to work on.
type Claimed struct {
	Entry     *domain.Entry
	Material  app.Material
	Begun     bool // it is written down as running
	Cancelled bool // it is only to be ended
}

// Note is what a replica hears of another.
type Note struct {
	Key     domain.EntryKey
	Waiting bool // something can be claimed
	Left    bool // a replica has left, perhaps the one that led
	Runs    bool // the entry does, now
	Changed bool // the entry has
	Cancel  bool // the entry is to end, wherever it runs
	Missed  bool // any of these may have been missed
}
