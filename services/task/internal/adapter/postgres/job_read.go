package postgres

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

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
	return each(ctx, s, query, args, func(r pgx.Rows) (*domain.Job, error) {
		var b pgtype.DriverBytes
		if err := r.Scan(&b); err != nil {
			return nil, err
		}
		return record.ReadJob(b)
	})
}

// Job implements consumer.Store.
func (s *Store) Job(ctx context.Context, id string) (*domain.Job, error) {
	return s.job(ctx, `SELECT record FROM jobs WHERE id = $1`, txt(id))
}

// JobByRequest implements consumer.Store.
func (s *Store) JobByRequest(ctx context.Context, requestID string) (*domain.Job, error) {
	return s.job(ctx, `SELECT record FROM jobs WHERE request_id = $1`, []byte(requestID))
}

// JobSpec implements consumer.Store.
func (s *Store) JobSpec(ctx context.Context, id string) ([]byte, error) {
	return s.blob(ctx, `SELECT spec FROM jobs WHERE id = $1`, txt(id))
}

// OpenJobs implements consumer.Store.
func (s *Store) OpenJobs(ctx context.Context) ([]*domain.Job, error) {
	return s.jobs(ctx, `SELECT record FROM jobs WHERE finished_at = 0 ORDER BY id`)
}

// ListJobs implements consumer.Store.
func (s *Store) ListJobs(ctx context.Context, f app.JobFilter) ([]*domain.Job, error) {
	var c conditions
	if len(f.States) > 0 {
		c.add(`state = ANY(?)`, numbers(f.States))
	}
	if !f.After.At.IsZero() {
		c.add(`(created_at, id) < (?, ?)`, record.Micros(f.After.At), txt(f.After.ID))
	}
	return s.jobs(ctx, `SELECT record FROM jobs`+c.where()+` ORDER BY created_at DESC, id DESC`+c.limit(f.Limit), c.args...)
}

// JobsFinishedBefore implements consumer.Store.
func (s *Store) JobsFinishedBefore(ctx context.Context, t time.Time, limit int) ([]string, error) {
	return s.ids(ctx, `SELECT id FROM jobs WHERE finished_at > 0 AND finished_at < $1 LIMIT $2`, record.Micros(t), limit)
}

// ShardCounts implements consumer.Store.
func (s *Store) ShardCounts(ctx context.Context, jobID string) (domain.ShardCounts, error) {
	type row struct {
		state          domain.ShardState
		n, extra, size int64
	}
	rows, err := each(ctx, s, `SELECT state, COUNT(*), SUM(GREATEST(attempts, 1) - 1)::bigint, SUM(size)::bigint FROM job_shards WHERE job_id = $1 GROUP BY state`, []any{txt(jobID)}, func(r pgx.Rows) (v row, err error) {
		return v, r.Scan(&v.state, &v.n, &v.extra, &v.size)
	})
	var c domain.ShardCounts
	for _, r := range rows {
		*c.Of(r.state) = uint32(r.n)
		c.Extra += uint32(r.extra)
		c.Bytes += r.size
	}
	return c, err
}

const shardColumns = `idx, name, size, sha256, state, task_id, tries, attempts, exit_code, reason, message, took, ended, stdout_size, stdout_sha256`

func (s *Store) shards(ctx context.Context, jobID, query string, args ...any) ([]*domain.Shard, error) {
	return each(ctx, s, query, args, func(r pgx.Rows) (*domain.Shard, error) {
		sh := &domain.Shard{Job: jobID, Stdout: domain.Part{Name: "stdout"}}
		var name, sum, stdout, reason, message []byte
		var took int64
		err := r.Scan(&sh.Index, &name, &sh.Size, &sum, &sh.State, &sh.TaskID, &sh.Tries, &sh.Attempts, &sh.ExitCode, &reason, &message, &took, &sh.Ended, &sh.Stdout.Size, &stdout)
		if err != nil {
			return nil, err
		}
		sh.Name, sh.Took = string(name), time.Duration(took)
		sh.SHA256, _ = domain.HashOf(sum)
		sh.Stdout.SHA256, _ = domain.HashOf(stdout)
		if len(reason)+len(message) > 0 {
			sh.Error = &domain.Failure{Reason: string(reason), Message: string(message)}
		}
		return sh, nil
	})
}

// Shards implements consumer.Store.
func (s *Store) Shards(ctx context.Context, jobID string, f app.ShardFilter) ([]*domain.Shard, error) {
	var c conditions
	c.add(`job_id = ?`, txt(jobID))
	c.add(`idx >= ?`, int64(f.From))
	if len(f.States) > 0 {
		c.add(`state = ANY(?)`, numbers(f.States))
	}
	return s.shards(ctx, jobID, `SELECT `+shardColumns+` FROM job_shards`+c.where()+` ORDER BY idx`+c.limit(f.Limit), c.args...)
}

// EndedShards implements consumer.Store.
func (s *Store) EndedShards(ctx context.Context, jobID string, after uint64, limit int) ([]*domain.Shard, error) {
	return s.shards(ctx, jobID, `SELECT `+shardColumns+` FROM job_shards WHERE job_id = $1 AND ended > $2 AND ended > 0 ORDER BY ended LIMIT $3`, txt(jobID), int64(min(after, 1<<62)), limit)
}

// ShardContent implements consumer.Store.
func (s *Store) ShardContent(ctx context.Context, jobID string, index uint32) ([]byte, error) {
	return s.blob(ctx, `SELECT content FROM job_inputs WHERE job_id = $1 AND idx = $2`, txt(jobID), int64(index))
}
