package sqlite

import (
	"context"
	"database/sql"
	"strings"
	"time"

	"github.com/shallot-net/shallot/services/task/internal/adapter/record"
	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

func (s *Store) job(ctx context.Context, query string, args ...any) (*domain.Job, error) {
	b, err := s.blob(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	return record.ReadJob(b)
}

func (s *Store) jobs(ctx context.Context, query string, args ...any) ([]*domain.Job, error) {
	var out []*domain.Job
	err := s.each(ctx, query, args, func(r *sql.Rows) error {
		var b sql.RawBytes
		if err := r.Scan(&b); err != nil {
			return err
		}
		j, err := record.ReadJob(b)
		out = append(out, j)
		return err
	})
	return out, err
}

// Job implements consumer.Store.
func (s *Store) Job(ctx context.Context, id string) (*domain.Job, error) {
	return s.job(ctx, `SELECT record FROM jobs WHERE id = ?`, id)
}

// JobByRequest implements consumer.Store.
func (s *Store) JobByRequest(ctx context.Context, requestID string) (*domain.Job, error) {
	return s.job(ctx, `SELECT record FROM jobs WHERE request_id = ?`, requestID)
}

// JobSpec implements consumer.Store.
func (s *Store) JobSpec(ctx context.Context, id string) ([]byte, error) {
	return s.blob(ctx, `SELECT spec FROM jobs WHERE id = ?`, id)
}

// OpenJobs implements consumer.Store.
func (s *Store) OpenJobs(ctx context.Context) ([]*domain.Job, error) {
	return s.jobs(ctx, `SELECT record FROM jobs WHERE finished_at = 0 ORDER BY id`)
}

// in is a term for a column that has any of some values.
func in[T ~uint8](column string, values []T) (string, []any) {
	args := make([]any, len(values))
	for i, v := range values {
		args[i] = int64(v)
	}
	return column + ` IN (?` + strings.Repeat(`, ?`, len(values)-1) + `)`, args
}

// ListJobs implements consumer.Store.
func (s *Store) ListJobs(ctx context.Context, f app.JobFilter) ([]*domain.Job, error) {
	where, args := `1 = 1`, []any(nil)
	if len(f.States) > 0 {
		where, args = in(`state`, f.States)
	}
	if !f.After.At.IsZero() {
		where += ` AND (created_at, id) < (?, ?)`
		args = append(args, record.Micros(f.After.At), f.After.ID)
	}
	return s.jobs(ctx, `SELECT record FROM jobs WHERE `+where+` ORDER BY created_at DESC, id DESC LIMIT ?`, append(args, f.Limit)...)
}

// JobsFinishedBefore implements consumer.Store.
func (s *Store) JobsFinishedBefore(ctx context.Context, t time.Time, limit int) ([]string, error) {
	var out []string
	err := s.each(ctx, `SELECT id FROM jobs WHERE finished_at > 0 AND finished_at < ? LIMIT ?`, []any{record.Micros(t), limit}, func(r *sql.Rows) error {
		var id string
		err := r.Scan(&id)
		out = append(out, id)
		return err
	})
	return out, err
}

// ShardCounts implements consumer.Store.
func (s *Store) ShardCounts(ctx context.Context, jobID string) (domain.ShardCounts, error) {
	var c domain.ShardCounts
	err := s.each(ctx, `SELECT state, COUNT(*), SUM(MAX(attempts, 1) - 1), SUM(size) FROM job_shards WHERE job_id = ? GROUP BY state`, []any{jobID}, func(r *sql.Rows) error {
		var state domain.ShardState
		var n, extra uint32
		var size int64
		err := r.Scan(&state, &n, &extra, &size)
		*c.Of(state) = n
		c.Extra += extra
		c.Bytes += size
		return err
	})
	return c, err
}

const shardColumns = `idx, name, size, sha256, state, task_id, tries, attempts, exit_code, reason, message, took, ended, stdout_size, stdout_sha256`

func (s *Store) shards(ctx context.Context, jobID, query string, args ...any) ([]*domain.Shard, error) {
	var out []*domain.Shard
	err := s.each(ctx, query, args, func(r *sql.Rows) error {
		sh := &domain.Shard{Job: jobID, Stdout: domain.Part{Name: "stdout"}}
		var sum, stdout []byte
		var exit sql.NullInt32
		var f domain.Failure
		err := r.Scan(&sh.Index, &sh.Name, &sh.Size, &sum, &sh.State, &sh.TaskID, &sh.Tries, &sh.Attempts, &exit, &f.Reason, &f.Message, &sh.Took, &sh.Ended, &sh.Stdout.Size, &stdout)
		if err != nil {
			return err
		}
		sh.SHA256, _ = domain.HashOf(sum)
		sh.Stdout.SHA256, _ = domain.HashOf(stdout)
		if exit.Valid {
			sh.ExitCode = &exit.Int32
		}
		if f != (domain.Failure{}) {
			sh.Error = &f
		}
		out = append(out, sh)
		return nil
	})
	return out, err
}

// Shards implements consumer.Store.
func (s *Store) Shards(ctx context.Context, jobID string, f app.ShardFilter) ([]*domain.Shard, error) {
	where, args := `job_id = ? AND idx >= ?`, []any{jobID, int64(f.From)}
	if len(f.States) > 0 {
		term, more := in(`state`, f.States)
		where += ` AND ` + term
		args = append(args, more...)
	}
	return s.shards(ctx, jobID, `SELECT `+shardColumns+` FROM job_shards WHERE `+where+` ORDER BY idx LIMIT ?`, append(args, f.Limit)...)
}

// EndedShards implements consumer.Store.
func (s *Store) EndedShards(ctx context.Context, jobID string, after uint64, limit int) ([]*domain.Shard, error) {
	return s.shards(ctx, jobID, `SELECT `+shardColumns+` FROM job_shards WHERE job_id = ? AND ended > ? AND ended > 0 ORDER BY ended LIMIT ?`, jobID, int64(min(after, 1<<62)), limit)
}

// ShardContent implements consumer.Store.
func (s *Store) ShardContent(ctx context.Context, jobID string, index uint32) ([]byte, error) {
	b, err := s.blob(ctx, `SELECT content FROM job_inputs WHERE job_id = ? AND idx = ?`, jobID, int64(index))
	if b == nil && err == nil {
		b = []byte{} // SQLite's empty blob
	}
	return b, err
}
