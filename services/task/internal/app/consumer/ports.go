// Package consumer is what a consumer's task service does: it keeps task records and keys, follows attempts through
// their events, clocks and leases, tries again, and collects results.
package consumer

import (
	"context"
	"io"
	"time"

	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// Store is where tasks live. Reads see what was committed; app.ErrNotFound says that there is no such row.
type Store interface {
	app.Committer
	app.OutboxReader
	Task(ctx context.Context, id string) (*domain.Task, error)
	TaskByRequest(ctx context.Context, requestID string) (*domain.Task, error)
	// Secret, Payload and Body are a task's key material, inline ciphertext, and small result.
	Secret(ctx context.Context, id string) ([]byte, error)
	Payload(ctx context.Context, id string) ([]byte, error)
	Body(ctx context.Context, id string) ([]byte, error)
	// OpenTasks returns tasks that are not terminal, by id, with ids above after.
	OpenTasks(ctx context.Context, after string, limit int) ([]*domain.Task, error)
	// ListTasks returns tasks, newest first.
	ListTasks(ctx context.Context, f app.TaskFilter) ([]*domain.Task, error)
	// FinishedBefore returns the ids of terminal tasks that ended before t.
	FinishedBefore(ctx context.Context, t time.Time, limit int) ([]string, error)
	Releases(ctx context.Context, limit int) ([]app.ReleaseRow, error)
	Share(ctx context.Context, persona, peer string, sum domain.Hash) (app.ShareRow, error)
	JobStore
}

// JobStore is where jobs live.
type JobStore interface {
	Job(ctx context.Context, id string) (*domain.Job, error)
	JobByRequest(ctx context.Context, requestID string) (*domain.Job, error)
	JobSpec(ctx context.Context, id string) ([]byte, error)
	// OpenJobs returns all that are not terminal.
	OpenJobs(ctx context.Context) ([]*domain.Job, error)
	ListJobs(ctx context.Context, f app.JobFilter) ([]*domain.Job, error)
	// JobsFinishedBefore returns the ids of terminal jobs that ended before t.
	JobsFinishedBefore(ctx context.Context, t time.Time, limit int) ([]string, error)
	// ShardCounts counts a job's shards by state.
	ShardCounts(ctx context.Context, jobID string) (domain.ShardCounts, error)
	Shards(ctx context.Context, jobID string, f app.ShardFilter) ([]*domain.Shard, error)
	// EndedShards returns shards whose Ended is above after, in the order of their ends. Who has seen one has seen all before it.
	EndedShards(ctx context.Context, jobID string, after uint64, limit int) ([]*domain.Shard, error)
	// ShardContent is a small input; ErrNotFound where it is a file, or forgotten.
	ShardContent(ctx context.Context, jobID string, index uint32) ([]byte, error)
}

// Inputs are the large inputs of jobs: files that a job owns, by their hash.
type Inputs interface {
	// Own makes an upload the job's, durably: it is no upload any more. NOT_FOUND when there is none.
	Own(jobID, uploadID string) (app.Part, error)
	// Path is where the job's input with this hash is.
	Path(jobID string, sum domain.Hash) string
	// Remove deletes all of a job's.
	Remove(jobID string)
	// Sweep removes those of jobs that are not to be kept.
	Sweep(keep func(jobID string) bool)
}

// Results are files with the bodies of large results.
type Results interface {
	// Create makes a file for a task's result; a file that is not kept was never there.
	Create(taskID string) (ResultFile, error)
	// Open gives the file's bytes. It must be closed.
	Open(taskID string) (io.ReaderAt, io.Closer, error)
	Remove(taskID string)
	// Sweep removes what a crash left of files that were never kept.
	Sweep()
}

// ResultFile is one being written.
type ResultFile interface {
	io.Writer
	// Keep makes it durable under its name. Drop forgets it; after Keep it does nothing.
	Keep() error
	Drop()
}

// Uploads are bodies that users sent ahead of their tasks.
type Uploads interface {
	// Find returns an upload as a part with Path, Size and SHA256, and keeps it for another while. NOT_FOUND when there is none.
	Find(id string) (app.Part, error)
}

// Logs are the stderr of running tasks: the last MiB of each is kept.
type Logs interface {
	// Append adds a piece that begins at offset; what is there already is ignored, what is missing stays missing.
	Append(taskID string, offset int64, data []byte) error
	// Read fills b from offset, and says how many bytes it gave and where the next ones begin: later than offset+n where what was there is
	// not kept any more. n is 0 at the end.
	Read(taskID string, offset int64, b []byte) (n int, next int64, err error)
	Remove(taskID string)
}

// Validator checks a payload before anything is sent. Its error is a fault with INVALID_ARGUMENT.
type Validator func(ctx context.Context, options []byte, parts []app.Part) error
