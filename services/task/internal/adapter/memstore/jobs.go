package memstore

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

type jobRow struct {
	job    domain.Job
	spec   []byte
	shards map[uint32]*shardRow
	ended  uint64
}

type shardRow struct {
	shard   domain.Shard
	content []byte
}

func (s *Store) checkJobs(w *app.Writes) error {
	for _, j := range w.Jobs {
		row := s.jobs[j.Job.ID]
		switch {
		case j.Delete:
		case j.Insert && (row != nil || s.jobByRequest(j.Job.RequestID) != nil):
			return app.ErrExists
		case !j.Insert && (row == nil || row.job.Revision != j.Job.Revision-1):
			return app.ErrConflict
		}
	}
	type name struct{ job, name string }
	type index struct {
		job   string
		index uint32
	}
	names, indices := map[name]bool{}, map[index]bool{}
	for _, sh := range w.Shards {
		row := s.jobs[sh.Shard.Job]
		if !sh.Insert {
			continue
		}
		n, i := name{sh.Shard.Job, sh.Shard.Name}, index{sh.Shard.Job, sh.Shard.Index}
		if names[n] || indices[i] || row != nil && row.has(sh.Shard) {
			return app.ErrExists
		}
		names[n], indices[i] = true, true
	}
	return nil
}

func (r *jobRow) has(sh *domain.Shard) bool {
	for i, other := range r.shards {
		if i == sh.Index || other.shard.Name == sh.Name {
			return true
		}
	}
	return false
}

func (s *Store) writeJobs(w *app.Writes) {
	for _, j := range w.Jobs {
		row := s.jobs[j.Job.ID]
		switch {
		case j.Delete:
			delete(s.jobs, j.Job.ID)
			continue
		case row == nil:
			row = &jobRow{spec: slices.Clone(j.Spec), shards: make(map[uint32]*shardRow)}
			s.jobs[j.Job.ID] = row
		}
		row.job = *decode[domain.Job](encode(j.Job))
		for _, sh := range row.shards {
			if j.Drop {
				sh.content = nil
				if !sh.shard.State.Terminal() {
					sh.shard.State = domain.ShardCancelled
				}
			}
		}
	}
	for _, sh := range w.Shards {
		s.writeShard(&sh)
	}
}

func (s *Store) writeShard(w *app.ShardWrite) {
	row := s.jobs[w.Shard.Job]
	if row == nil {
		return
	}
	old := row.shards[w.Shard.Index]
	switch {
	case w.Insert:
		row.shards[w.Shard.Index] = &shardRow{shard: *w.Shard, content: slices.Clone(w.Content)}
	case old == nil || old.shard.State.Terminal():
	default:
		old.shard = *decode[domain.Shard](encode(w.Shard))
		if old.shard.State.Terminal() {
			row.ended++
			old.shard.Ended, old.content = row.ended, nil
		}
	}
}

func (s *Store) jobByRequest(requestID string) *jobRow {
	for _, row := range s.jobs {
		if row.job.RequestID == requestID {
			return row
		}
	}
	return nil
}

func (s *Store) selectJobs(keep func(j *domain.Job) bool) []*domain.Job {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*domain.Job
	for _, row := range s.jobs {
		if keep(&row.job) {
			out = append(out, decode[domain.Job](encode(row.job)))
		}
	}
	return out
}

func onlyJob(found []*domain.Job) (*domain.Job, error) {
	if len(found) == 0 {
		return nil, app.ErrNotFound
	}
	return found[0], nil
}

// Job implements consumer.Store.
func (s *Store) Job(_ context.Context, id string) (*domain.Job, error) {
	return onlyJob(s.selectJobs(func(j *domain.Job) bool { return j.ID == id }))
}

// JobByRequest implements consumer.Store.
func (s *Store) JobByRequest(_ context.Context, requestID string) (*domain.Job, error) {
	return onlyJob(s.selectJobs(func(j *domain.Job) bool { return j.RequestID == requestID }))
}

// JobSpec implements consumer.Store.
func (s *Store) JobSpec(_ context.Context, id string) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if row := s.jobs[id]; row != nil {
		return row.spec, nil
	}
	return nil, app.ErrNotFound
}

// OpenJobs implements consumer.Store.
func (s *Store) OpenJobs(context.Context) ([]*domain.Job, error) {
	return s.selectJobs(func(j *domain.Job) bool { return !j.State.Terminal() }), nil
}

// ListJobs implements consumer.Store.
func (s *Store) ListJobs(_ context.Context, f app.JobFilter) ([]*domain.Job, error) {
	out := s.selectJobs(func(j *domain.Job) bool {
		return (len(f.States) == 0 || slices.Contains(f.States, j.State)) && (f.After.At.IsZero() || newest(f.After.At, j.CreatedAt, f.After.ID, j.ID) < 0)
	})
	slices.SortFunc(out, func(a, b *domain.Job) int { return newest(a.CreatedAt, b.CreatedAt, a.ID, b.ID) })
	return first(out, f.Limit), nil
}

// JobsFinishedBefore implements consumer.Store.
func (s *Store) JobsFinishedBefore(_ context.Context, t time.Time, limit int) ([]string, error) {
	var ids []string
	for _, j := range s.selectJobs(func(j *domain.Job) bool { return j.State.Terminal() && j.FinishedAt.Before(t) }) {
		ids = append(ids, j.ID)
	}
	return first(ids, limit), nil
}

// ShardCounts implements consumer.Store.
func (s *Store) ShardCounts(ctx context.Context, jobID string) (domain.ShardCounts, error) {
	var c domain.ShardCounts
	for _, sh := range s.selectShards(jobID, func(*domain.Shard) bool { return true }) {
		*c.Of(sh.State)++
		c.Extra += sh.Extra()
		c.Bytes += sh.Size
	}
	return c, nil
}

func (s *Store) selectShards(jobID string, keep func(sh *domain.Shard) bool) []*domain.Shard {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*domain.Shard
	if row := s.jobs[jobID]; row != nil {
		for _, sh := range row.shards {
			if keep(&sh.shard) {
				out = append(out, decode[domain.Shard](encode(sh.shard)))
			}
		}
	}
	slices.SortFunc(out, func(a, b *domain.Shard) int { return cmp.Compare(a.Index, b.Index) })
	return out
}

// Shards implements consumer.Store.
func (s *Store) Shards(_ context.Context, jobID string, f app.ShardFilter) ([]*domain.Shard, error) {
	return first(s.selectShards(jobID, func(sh *domain.Shard) bool {
		return sh.Index >= f.From && (len(f.States) == 0 || slices.Contains(f.States, sh.State))
	}), f.Limit), nil
}

// EndedShards implements consumer.Store.
func (s *Store) EndedShards(_ context.Context, jobID string, after uint64, limit int) ([]*domain.Shard, error) {
	out := s.selectShards(jobID, func(sh *domain.Shard) bool { return sh.Ended > after })
	slices.SortFunc(out, func(a, b *domain.Shard) int { return cmp.Compare(a.Ended, b.Ended) })
	return first(out, limit), nil
}

// ShardContent implements consumer.Store.
func (s *Store) ShardContent(_ context.Context, jobID string, index uint32) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if row := s.jobs[jobID]; row != nil && row.shards[index] != nil && row.shards[index].content != nil {
		return row.shards[index].content, nil
	}
	return nil, app.ErrNotFound
}
