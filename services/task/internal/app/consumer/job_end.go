package consumer

import (
	"context"
	"time"

	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// record adds to a task's commit what it means for the task's shard. It is errUnchanged for a draft that nobody wants any more.
func (j *jobs) record(e *edit) error {
	b := j.get(e.t.Shard.Job)
	var f *flight
	if b != nil { // else the job is over
		b.mu.Lock()
		defer b.mu.Unlock()
		f = b.claim(e.t.Shard.Index, e.t.ID)
	}
	if f == nil {
		if e.draft != nil {
			return errUnchanged
		}
		return nil
	}
	sh := f.shard
	if e.draft != nil {
		sh.Begin(e.t)
	}
	if decide(&sh, f, e.t) || e.draft != nil {
		f.writing = true
		e.shard, e.writes = &sh, func() { b.done(f) }
		e.w.Shards = append(e.w.Shards, app.ShardWrite{Shard: &sh})
	}
	return nil
}

// claim returns the flight that a task belongs to once nobody else is writing its shard: two tasks of one shard may end together. nil when
// its shard has ended. The caller holds b.mu.
func (b *job) claim(index uint32, task string) *flight {
	for {
		f := b.flight[index]
		if f == nil {
			return nil
		}
		if _, mine := f.tasks[task]; !mine {
			return nil
		}
		if !f.writing {
			return f
		}
		b.wrote.Wait()
	}
}

// done lets others write the flight's shard.
func (b *job) done(f *flight) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f.writing = false
	b.wrote.Broadcast()
}

// decide applies to a shard what the end of one of its tasks means. It says false where that is nothing: the task goes on, or others do,
// or there is to be another.
func decide(sh *domain.Shard, f *flight, t *domain.Task) bool {
	switch what := domain.Judge(t); {
	case what == domain.Decided:
	case what == domain.Undecided, f.goesOn(t.ID), what == domain.Again && sh.Tries < domain.MaxTries:
		return false
	case what == domain.Withdrawn && f.back:
		sh.Wait()
		return true
	}
	sh.End(t, f.earlier+f.others(t.ID))
	return true
}

// others is how many runs beside this task's the shard has now: each may come to its end before it hears that it lost.
func (f *flight) others(id string) uint32 {
	n := uint32(0)
	for other, placed := range f.tasks {
		if placed && other != id {
			n++
		}
	}
	return n
}

// goesOn tells whether the shard has another task.
func (f *flight) goesOn(id string) bool {
	for other := range f.tasks {
		if other != id {
			return true
		}
	}
	return false
}

// recorded follows a task's commit, under the task's lock. What it leads to is done after that.
func (j *jobs) recorded(e *edit) {
	b := j.get(e.t.Shard.Job)
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	over := e.t.State.Terminal()
	f := b.flight[e.t.Shard.Index]
	if over {
		delete(b.tasks, e.t.ID)
		e.after = append(e.after, func() { j.fill.Add(b.id) })
	}
	if f == nil {
		return
	}
	if _, mine := f.tasks[e.t.ID]; !mine {
		return
	}
	if e.draft != nil {
		f.tasks[e.t.ID] = true
	}
	if sh := e.shard; sh != nil {
		*b.counts.Of(f.shard.State)--
		*b.counts.Of(sh.State)++
		f.shard = *sh
	}
	if a := e.t.Live(); a != nil {
		j.watchOver(b, f, a)
	}
	if !over {
		if e.shard != nil {
			j.s.watch.Tell(watchKey(b.id))
		}
		return
	}
	delete(f.tasks, e.t.ID)
	switch {
	case e.shard != nil && f.shard.State.Terminal():
		j.ended(e, b, f)
		return
	case e.shard != nil && f.shard.State == domain.ShardWaiting:
		delete(b.flight, f.shard.Index)
		b.rewind(f.shard.Index)
		j.s.watch.Tell(watchKey(b.id))
		return
	}
	f.earlier += e.t.MayHaveRun()
	f.hedging = false
	if len(f.tasks) == 0 {
		t := e.t
		e.after = append(e.after, func() { j.settle(b, f, t) })
	}
}

// ended follows the end of a shard: whatever else was made for it is in vain.
func (j *jobs) ended(e *edit, b *job, f *flight) {
	delete(b.flight, f.shard.Index)
	b.counts.Extra += f.shard.Extra()
	if b.job.Hedge {
		b.times.Add(f.shard.Took)
		j.alarms.Set(alarmKey(b.id, f.shard.Index), time.Time{})
	}
	j.s.watch.Tell(watchKey(b.id))
	for id := range f.tasks {
		e.after = append(e.after, func() { j.stop(b, id) })
	}
	if b.job.Hedge {
		j.lookAgain(b)
	}
}

// stop ends a task whose result nobody wants.
func (j *jobs) stop(b *job, id string) {
	if !j.s.dropDraft(id) {
		if r, err := j.s.Cancel(j.s.ctx, id); err == nil {
			j.s.cfg.Pusher.Push(j.s.ctx, r)
			return
		}
	}
	b.mu.Lock()
	delete(b.tasks, id)
	b.mu.Unlock()
	j.fill.Add(b.id)
}

// settle decides about a shard whose tasks have all ended without an outcome: t was the last.
func (j *jobs) settle(b *job, f *flight, t *domain.Task) {
	b.mu.Lock()
	sh := f.shard
	if b.flight[sh.Index] != f || len(f.tasks) > 0 || f.writing {
		b.mu.Unlock()
		return
	}
	earlier := *f
	earlier.earlier -= min(earlier.earlier, t.MayHaveRun())
	if !decide(&sh, &earlier, t) {
		b.again = append(b.again, sh.Index)
		b.mu.Unlock()
		j.fill.Add(b.id)
		return
	}
	f.writing = true
	b.mu.Unlock()
	if err := j.write(j.s.ctx, b, f, &sh); err != nil && j.s.ctx.Err() == nil {
		j.s.cfg.Log.Warn("the end of a shard could not be written, and will be tried again", "error", err.Error())
		time.AfterFunc(jobRetry, func() { j.settle(b, f, t) })
	}
}

// write commits a shard whose change no task's commit brings about. f.writing is set, and is not any more when it returns.
func (j *jobs) write(ctx context.Context, b *job, f *flight, sh *domain.Shard) error {
	err := j.s.cfg.Store.Commit(ctx, &app.Writes{Shards: []app.ShardWrite{{Shard: sh}}})
	defer b.done(f)
	if err != nil {
		return err
	}
	b.mu.Lock()
	*b.counts.Of(f.shard.State)--
	*b.counts.Of(sh.State)++
	f.shard = *sh
	delete(b.flight, sh.Index)
	if sh.State == domain.ShardWaiting {
		b.rewind(sh.Index)
	} else {
		b.counts.Extra += sh.Extra()
	}
	var vain []string
	for id := range f.tasks { // begun meanwhile
		vain = append(vain, id)
	}
	b.mu.Unlock()
	for _, id := range vain {
		j.stop(b, id)
	}
	j.s.watch.Tell(watchKey(b.id))
	j.fill.Add(b.id)
	return nil
}

// finish ends a job whose shards have all ended.
func (j *jobs) finish(ctx context.Context, b *job) {
	err := j.edit(ctx, b, false, func(next *domain.Job, c domain.ShardCounts) (bool, error) {
		if c.Ended() != next.Total || next.State != domain.JobRunning && next.State != domain.JobPaused {
			return false, nil
		}
		return true, next.Finish(time.Now(), c)
	})
	if err != nil && ctx.Err() == nil {
		j.s.cfg.Log.Warn("the end of a job could not be written, and will be tried again", "error", err.Error())
		j.alarms.Set(b.id, time.Now().Add(jobRetry))
	}
}

// PauseJob starts no more shards. Those at a provider run to their end: their work is paid for, and there is no way to keep half of it.
// Those that no provider has taken yet wait again.
func (s *Service) PauseJob(ctx context.Context, id string) (app.JobView, error) {
	b, err := s.jobs.find(ctx, id)
	if err != nil {
		return app.JobView{}, err
	}
	err = s.jobs.edit(ctx, b, false, func(next *domain.Job, _ domain.ShardCounts) (bool, error) {
		if next.State == domain.JobPaused {
			return false, nil
		}
		return true, next.Pause()
	})
	if err != nil {
		return app.JobView{}, moveFault(id, err)
	}
	s.jobs.withdraw(b)
	return b.view(), nil
}

// withdraw takes back the tasks of a paused job that no provider has.
func (j *jobs) withdraw(b *job) {
	for id, ref := range b.inFlight() {
		if j.s.dropDraft(id) {
			b.undraft(id, ref)
			continue
		}
		r, err := j.s.change(j.s.ctx, id, func(e *edit) error {
			if e.t.State != domain.Pending || e.t.Receipt != nil {
				return errUnchanged
			}
			b.mu.Lock()
			if f := b.flight[ref.Index]; f != nil {
				f.back = true
			}
			b.mu.Unlock()
			if _, err := e.t.RequestCancel(e.now, j.s.cfg.CancelGrace); err != nil {
				return err
			}
			j.s.withdraw(e)
			j.s.letGo(e)
			return nil
		})
		if err == nil {
			j.s.cfg.Pusher.Push(j.s.ctx, r)
		}
	}
}

func (b *job) inFlight() map[string]domain.ShardRef {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make(map[string]domain.ShardRef, len(b.tasks))
	for id, ref := range b.tasks {
		out[id] = ref
	}
	return out
}

// undraft makes a shard wait whose draft was dropped.
func (b *job) undraft(id string, ref domain.ShardRef) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.tasks, id)
	f := b.flight[ref.Index]
	if f == nil {
		return
	}
	delete(f.tasks, id)
	f.hedging, f.hedged = false, false
	switch {
	case len(f.tasks) > 0: // the one that it was to overtake
	case f.shard.State == domain.ShardWaiting:
		delete(b.flight, ref.Index)
		b.rewind(ref.Index)
	default:
		b.again = append(b.again, ref.Index)
	}
}

// ResumeJob goes on with a paused job.
func (s *Service) ResumeJob(ctx context.Context, id string) (app.JobView, error) {
	b, err := s.jobs.find(ctx, id)
	if err != nil {
		return app.JobView{}, err
	}
	err = s.jobs.edit(ctx, b, false, func(next *domain.Job, _ domain.ShardCounts) (bool, error) {
		if next.State == domain.JobRunning {
			return false, nil
		}
		return true, next.Resume()
	})
	return b.view(), moveFault(id, err)
}

// CancelJob ends a job and its tasks; a terminal one stays as it is.
func (s *Service) CancelJob(ctx context.Context, id string) (app.JobView, error) {
	b := s.jobs.get(id)
	if b == nil {
		return s.GetJob(ctx, id)
	}
	return b.viewAfter(s.jobs.cancel(ctx, b, "it was cancelled by its user"))
}

func (b *job) viewAfter(err error) (app.JobView, error) { return b.view(), err }

func (j *jobs) cancel(ctx context.Context, b *job, why string) error {
	done := false
	err := j.edit(ctx, b, true, func(next *domain.Job, c domain.ShardCounts) (bool, error) {
		if done = next.State.Terminal(); done {
			return false, nil
		}
		return true, next.Cancel(time.Now(), c, why)
	})
	if err != nil || done {
		return err
	}
	b.mu.Lock()
	b.counts = b.job.Final
	b.mu.Unlock()
	for id := range b.inFlight() {
		j.stop(b, id)
	}
	return nil
}
