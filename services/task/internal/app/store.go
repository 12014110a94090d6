package app

import (
	"context"
	"errors"
	"time"

	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// What a Committer says beside faults of the store itself.
var (
	// ErrRepeated: an inbox id is known; the event was applied before.
	ErrRepeated = errors.New("the event was applied before")
	// ErrConflict: somebody else changed the row, or it is gone; read it again.
	ErrConflict = errors.New("the row has changed meanwhile")
	// ErrExists: a row with this key (or request id) exists.
	ErrExists = errors.New("the row exists")
	// ErrNotFound: there is no such row.
	ErrNotFound = errors.New("no such row")
)

// Committer writes. Both methods are safe for concurrent use.
type Committer interface {
	// Commit writes all of w or nothing, and returns when it is durable. It blocks for a sync of the disk; commits of several
	// callers share one. On an error nothing was written: ErrRepeated, ErrConflict, ErrExists, or the store's fault, after
	// which the same may be tried again. w is not touched after Commit returns.
	Commit(ctx context.Context, w *Writes) error
	// Later writes w with the next commit, or soon. Nobody waits, conflicts drop it, and a crash may lose it. Writes of one
	// caller are applied in order, those of Commit included.
	Later(w *Writes)
}

// InboxID recognises a repeated event: a hash of its sender and its id, so that nobody uses up another's ids.
type InboxID [16]byte

// Writes is one transaction. Empty fields write nothing.
type Writes struct {
	Inbox    []InboxID // ErrRepeated when one is there
	Tasks    []TaskWrite
	Entries  []EntryWrite
	Outbox   []OutboxRow
	Sent     []uint64     // outbox rows to delete; absent ones are no error
	Releases []ReleaseRow // results to let go
	Released []ReleaseRow // rows of Releases to delete; absent ones are no error
	Shares   []ShareRow   // replace those of the same persona, peer and hash
	// ShareEnd, where set, deletes shares whose pins have ended by then.
	ShareEnd time.Time
	Jobs     []JobWrite
	Shards   []ShardWrite
}

// TaskWrite inserts a task, or replaces one whose stored revision is one less than Task.Revision.
type TaskWrite struct {
	Task    *domain.Task
	Insert  bool
	Secret  []byte // key material; written at insertion
	Payload []byte // the inline ciphertext; written at insertion
	Body    []byte // a small result's plaintext; nil leaves it
	Forget  bool   // delete Secret and Payload: the task is over
	Delete  bool   // delete the task and all that belongs to it
}

// EntryWrite inserts a journal entry, or replaces one whose stored revision is one less than Entry.Revision.
type EntryWrite struct {
	Entry      *domain.Entry
	Insert     bool
	Material   *Material // written at insertion
	Result     []byte    // the result's ciphertext; nil leaves it
	Forget     bool      // delete the material: it will not run again
	DropResult bool
	Delete     bool

	// Of a store that replicas share. Holder works on a new entry, for Lease from now on where it says no more; empty: whoever claims it. Told is the replica that has
	// the others told of the write; empty: they need not hear of it.
	Holder string
	Lease  time.Duration
	Told   string
}

// Material is what a provider needs to run an attempt.
type Material struct {
	SealedKey  []byte
	Ciphertext []byte // empty where the payload is content
}

// Attach says what an outbox row's event carries besides its payload. It is put together when the event is told, so
// that no ciphertext is stored twice.
type Attach uint8

// Kinds of attachment.
const (
	AttachNone    Attach = iota
	AttachPayload        // a SealedPayload: the row's Sealed and the task's inline payload (consumer)
	AttachResult         // the entry's result (provider)
	AttachBytes          // the row's Sealed as it is
)

// OutboxRow is an event that this node has to send to one peer, until it is acknowledged there.
type OutboxRow struct {
	ID        uint64 // made by the app, grows; the order of telling
	TaskID    string
	Attempt   uint32
	Persona   string
	Peer      string
	Addresses []string
	EventID   string
	Type      domain.EventType
	Payload   []byte
	Sign      bool
	Timeout   time.Duration // 0: until withdrawn
	Attach    Attach
	Sealed    []byte
}

// ReleaseRow is a result that its provider may let go, but has not been told so yet.
type ReleaseRow struct {
	TaskID    string
	Attempt   uint32
	Persona   string
	Peer      string
	Addresses []string
}

// ShareRow is a part of payloads that was made content of its own, for the tasks of one persona; in anonymous mode for those that go to one provider, so that two of them
// cannot tell by its name that they were sent the same.
type ShareRow struct {
	Persona string
	Peer    string      // the provider, in anonymous mode
	SHA256  domain.Hash // of the part
	Ref     domain.Reference
	Until   time.Time // when its pin ends
}

// OutboxReader reads the outbox.
type OutboxReader interface {
	// Outbox returns rows with an id above after, in order.
	Outbox(ctx context.Context, after uint64, limit int) ([]OutboxRow, error)
}

// TaskFilter chooses tasks and entries for a list.
type TaskFilter struct {
	States        []domain.State
	Type          string
	CreatedAfter  time.Time // exclusive
	CreatedBefore time.Time // exclusive
	Text          string    // in the id, the labels or the error
	Limit         int
	// After is the last row of the page before: its time of creation and id. Zero for the first page.
	After Cursor
}

// Cursor is a place in a list, newest first.
type Cursor struct {
	At time.Time
	ID string
}

// StoreFailed tells whether a commit failed by the store's own fault, and not because of what was to be written, or because nobody waits for it any more.
func StoreFailed(ctx context.Context, err error) bool {
	return err != nil && ctx.Err() == nil && !errors.Is(err, ErrRepeated) && !errors.Is(err, ErrConflict) && !errors.Is(err, ErrExists) && !errors.Is(err, ErrNotFound)
}
