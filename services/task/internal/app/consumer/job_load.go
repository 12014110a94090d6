package consumer

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// load reads the jobs that were going on when the process ended, after the tasks.
func (j *jobs) load(ctx context.Context) error {
	rows, err := j.s.cfg.Store.OpenJobs(ctx)
	if err != nil {
		return err
	}
	for _, row := range rows {
		counts, err := j.s.cfg.Store.ShardCounts(ctx, row.ID)
		if err != nil {
			return err
		}
		b := j.add(row, counts)
		if err := j.loadFlights(ctx, b); err != nil {
			return err
		}
		if err := j.loadTimes(ctx, b); err != nil {
			return err
		}
	}
	j.s.cfg.Inputs.Sweep(func(id string) bool { return j.get(id) != nil })
	return nil
}

// loadFlights joins the shards that had tasks with them.
func (j *jobs) loadFlights(ctx context.Context, b *job) error {
	for from := uint32(0); ; {
		shards, err := j.s.cfg.Store.Shards(ctx, b.id, app.ShardFilter{States: []domain.ShardState{domain.ShardRunning}, From: from, Limit: page})
		if err != nil {
			return err
		}
		for _, sh := range shards {
			from = sh.Index + 1
			if err := j.loadFlight(ctx, b, sh); err != nil {
				return err
			}
		}
		if len(shards) < page {
			return nil
		}
	}
}

func (j *jobs) loadFlight(ctx context.Context, b *job, sh *domain.Shard) error {
	f := &flight{shard: *sh, tasks: make(map[string]bool), hedged: sh.Tries > 1}
	var last *domain.Task
	for try := range sh.Tries {
		ref := domain.ShardRef{Job: b.id, Index: sh.Index, Try: try}
		t, err := j.s.cfg.Store.TaskByRequest(ctx, ref.RequestID())
		switch {
		case errors.Is(err, app.ErrNotFound): // pruned
		case err != nil:
			return err
		case t.State.Terminal():
			f.earlier += t.MayHaveRun()
			last = t
		default:
			f.tasks[t.ID], b.tasks[t.ID] = true, ref
			if a := t.Live(); a != nil {
				f.holder = a.Peer
			}
		}
	}
	b.flight[sh.Index] = f
	switch {
	case len(f.tasks) > 0:
	case last != nil:
		j.orphans = append(j.orphans, func() { j.settle(b, f, last) })
	default:
		b.again = append(b.again, sh.Index)
	}
	return nil
}

func (j *jobs) loadTimes(ctx context.Context, b *job) error {
	if !b.job.Hedge {
		return nil
	}
	for after := uint64(0); ; {
		shards, err := j.s.cfg.Store.EndedShards(ctx, b.id, after, page)
		if err != nil {
			return err
		}
		for _, sh := range shards {
			after = sh.Ended
			b.times.Add(sh.Took)
		}
		if len(shards) < page {
			return nil
		}
	}
}

// run fills the jobs, and looks after their alarms, until ctx ends.
func (j *jobs) run(ctx context.Context) error {
	defer j.fill.Stop()
	for _, settle := range j.orphans {
		settle()
	}
	j.orphans = nil
	j.mu.Lock()
	for id, b := range j.open {
		j.fill.Add(id)
		b.mu.Lock()
		j.lookAgain(b)
		b.mu.Unlock()
	}
	j.mu.Unlock()
	return j.alarms.Run(ctx, 4, func(key string) {
		if strings.HasPrefix(key, "job:") {
			j.straggles(key)
		} else {
			j.fill.Add(key)
		}
	})
}

// prune forgets jobs that ended before t, and gives up those that their users have not completed.
func (j *jobs) prune(ctx context.Context, t time.Time) error {
	j.mu.Lock()
	var stale []*job
	for _, b := range j.open {
		if v := b.view(); v.State == domain.JobOpen && time.Since(v.CreatedAt) > app.MaxOpenJob {
			stale = append(stale, b)
		}
	}
	j.mu.Unlock()
	for _, b := range stale {
		if err := j.cancel(ctx, b, "its inputs were not all sent within "+app.MaxOpenJob.String()); err != nil {
			return err
		}
	}
	for !t.IsZero() {
		ids, err := j.s.cfg.Store.JobsFinishedBefore(ctx, t, page)
		if err != nil || len(ids) == 0 {
			return err
		}
		var w app.Writes
		for _, id := range ids {
			w.Jobs = append(w.Jobs, app.JobWrite{Job: &domain.Job{ID: id}, Delete: true})
		}
		if err := j.s.cfg.Store.Commit(ctx, &w); err != nil {
			return err
		}
	}
	return nil
}

// oldest is when the oldest job was made that is not over: the results of its tasks may still be wanted.
func (j *jobs) oldest(t time.Time) time.Time {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, b := range j.open {
		if at := b.view().CreatedAt; at.Before(t) {
			t = at
		}
	}
	return t
}
