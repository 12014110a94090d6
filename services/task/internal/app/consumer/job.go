package consumer

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// jobs runs one program over many inputs. Every shard is a task like any other, whose request id says which shard and which try it is.
// What a task means for its shard is written in the commit that makes or ends the task, so that a crash at any point neither loses nor
// repeats a shard. Locks are taken in this order: a task's, a job's.
type jobs struct {
	s      *Service
	fill   *app.Work   // by job id: makes tasks where there is room
	alarms *app.Alarms // by shard, for stragglers; by job id, to try again what failed here

	orphans []func() // shards to be decided about once the job service runs: found by load, whose tasks ended without an outcome

	mu   sync.Mutex
	open map[string]*job // all that are not terminal
}

// job is one that is not over.
type job struct {
	id      string
	edits   sync.Mutex // one change of the job's own row at a time
	filling sync.Mutex // one that makes tasks at a time

	mu     sync.Mutex
	wrote  *sync.Cond  // on mu: a flight's writing is over
	job    *domain.Job // never changed, only replaced
	spec   *jobSpec    // nil until needed
	counts domain.ShardCounts
	flight map[uint32]*flight
	tasks  map[string]domain.ShardRef // that are not over: they take the places in flight
	cursor uint32                     // waiting shards below it are in ready
	ready  []*domain.Shard
	again  []uint32 // shards in flight that need one more task
	times  domain.Times
	hedges int  // second tasks since the process began
	known  bool // enough have ended to know what is long
}

// flight is a shard that tasks have been made for, and that has not ended.
type flight struct {
	shard   domain.Shard
	tasks   map[string]bool // that are not over; true: a provider has or had it
	writing bool            // a commit that changes the shard is under way: another one waits for it
	earlier uint32          // runs in tasks that are over
	hedged  bool
	hedging bool   // the task to be made is to overtake the one that runs
	back    bool   // its task is withdrawn because the job is paused
	holder  string // the provider that has it
	since   time.Time
}

// jobSpec is a job's stored spec with its parts found.
type jobSpec struct {
	app.JobSpec
	parts []app.Part
}

func newJobs(s *Service) *jobs {
	j := &jobs{s: s, open: make(map[string]*job), alarms: app.NewAlarms()}
	j.fill = app.NewWork(4, j.fillJob)
	return j
}

func (j *jobs) get(id string) *job {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.open[id]
}

// personas is how many the shards of a job leave from at one time, at most; 0 where node decides.
func (j *jobs) personas(id string) uint32 {
	b := j.get(id)
	if b == nil {
		return 0
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.job.Personas
}

func (j *jobs) add(row *domain.Job, counts domain.ShardCounts) *job {
	b := &job{id: row.ID, job: row, counts: counts, flight: make(map[uint32]*flight), tasks: make(map[string]domain.ShardRef)}
	b.wrote = sync.NewCond(&b.mu)
	j.mu.Lock()
	defer j.mu.Unlock()
	if old := j.open[row.ID]; old != nil {
		return old
	}
	j.open[row.ID] = b
	return b
}

func watchKey(jobID string) string { return "job:" + jobID }

func (b *job) view() app.JobView {
	b.mu.Lock()
	defer b.mu.Unlock()
	return app.JobView{Job: *b.job, Counts: b.counts}
}

// CreateJob makes an OPEN job. It is idempotent by request id.
func (s *Service) CreateJob(ctx context.Context, n app.NewJob) (v app.JobView, existed bool, err error) {
	if err := checkRequestID(n.RequestID); err != nil {
		return v, false, err
	}
	if v, err := s.jobByRequest(ctx, n.RequestID); !errors.Is(err, app.ErrNotFound) {
		return v, true, err
	}
	if err := checkJob(&n); err != nil {
		return v, false, err
	}
	if n.Personas > 0 && !s.cfg.Anonymous {
		return v, false, fault.FailedPrecondition("NOT_ANONYMOUS", "the job asks for %d personas, and this node is in open mode, where all tasks leave from its one identity: leave it out", n.Personas)
	}
	row := domain.NewJob(domain.Job{ID: app.NewID(), RequestID: n.RequestID, Name: n.Name, Total: n.Total, Parallel: n.Parallel, Hedge: n.Hedge, InputPath: n.InputPath, Personas: n.Personas}, time.Now())
	row.Revision = 1
	spec, err := s.jobs.ownParts(ctx, row.ID, &n)
	if err == nil {
		err = s.cfg.Store.Commit(ctx, &app.Writes{Jobs: []app.JobWrite{{Job: row, Insert: true, Spec: spec}}})
	}
	if err != nil {
		s.cfg.Inputs.Remove(row.ID)
		if errors.Is(err, app.ErrExists) {
			v, err = s.jobByRequest(ctx, n.RequestID)
			return v, true, err
		}
		return v, false, err
	}
	return s.jobs.add(row, domain.ShardCounts{}).view(), false, nil
}

func (s *Service) jobByRequest(ctx context.Context, requestID string) (app.JobView, error) {
	row, err := s.cfg.Store.JobByRequest(ctx, requestID)
	if err != nil {
		return app.JobView{}, err
	}
	return s.GetJob(ctx, row.ID)
}

// ownParts checks what all tasks of a job have in common, keeps its uploads, and returns the spec to be stored.
func (j *jobs) ownParts(ctx context.Context, id string, n *app.NewJob) ([]byte, error) {
	parts, err := j.s.resolve(n.Spec.Parts)
	if err != nil {
		return nil, err
	}
	if err := j.s.validate(ctx, &n.Spec, parts); err != nil {
		return nil, err
	}
	if j.s.cfg.Anonymous && n.Spec.Redirect != nil && *n.Spec.Redirect {
		for i := range parts { // a shard's input is looked at when it is added
			if parts[i].Size >= shareFrom {
				return nil, notHandedOn(parts[i].Name + " has " + domain.Bytes(parts[i].Size))
			}
		}
	}
	spec := app.JobSpec{Type: n.Spec.Type, Options: n.Spec.Options, Limits: n.Spec.Limits, Redirect: n.Spec.Redirect, Policy: n.Spec.Policy, Clocks: n.Spec.Clocks, Labels: n.Spec.Labels}
	for i, src := range n.Spec.Parts {
		p := app.JobPart{Name: src.Name, Inline: src.Inline, Size: parts[i].Size, SHA256: parts[i].SHA256}
		if src.Upload != "" {
			if _, err := j.s.cfg.Inputs.Own(id, src.Upload); err != nil {
				return nil, err
			}
			p.Inline, p.InFile = nil, true
		}
		spec.Parts = append(spec.Parts, p)
	}
	return json.Marshal(spec)
}

// GetJob returns a job as it is now.
func (s *Service) GetJob(ctx context.Context, id string) (app.JobView, error) {
	if b := s.jobs.get(id); b != nil {
		return b.view(), nil
	}
	row, err := s.cfg.Store.Job(ctx, id)
	if errors.Is(err, app.ErrNotFound) {
		return app.JobView{}, fault.NotFound("JOB_NOT_FOUND", "there is no job %q on this node", clip(id, 64)).With("job_id", clip(id, 64))
	}
	if err != nil {
		return app.JobView{}, err
	}
	return app.JobView{Job: *row, Counts: row.Final}, nil
}

// ListJobs returns jobs, newest first.
func (s *Service) ListJobs(ctx context.Context, f app.JobFilter) ([]app.JobView, error) {
	rows, err := s.cfg.Store.ListJobs(ctx, f)
	if err != nil {
		return nil, err
	}
	out := make([]app.JobView, len(rows))
	for i, row := range rows {
		out[i] = app.JobView{Job: *row, Counts: row.Final}
		if b := s.jobs.get(row.ID); b != nil {
			out[i] = b.view()
		}
	}
	return out, nil
}

// ListShards returns a job's shards, by index.
func (s *Service) ListShards(ctx context.Context, id string, f app.ShardFilter) ([]*domain.Shard, error) {
	return s.cfg.Store.Shards(ctx, id, f)
}

// EndedShards returns shards in the order of their ends.
func (s *Service) EndedShards(ctx context.Context, id string, after uint64, limit int) ([]*domain.Shard, error) {
	return s.cfg.Store.EndedShards(ctx, id, after, limit)
}

// WatchJob wakes the caller after each change of a job.
func (s *Service) WatchJob(id string) (<-chan struct{}, func()) { return s.watch.Watch(watchKey(id)) }

// AddShards adds inputs to an OPEN job, and starts it with the last one.
func (s *Service) AddShards(ctx context.Context, id string, shards []app.NewShard) (app.JobView, error) {
	b, err := s.jobs.find(ctx, id)
	if err != nil {
		return app.JobView{}, err
	}
	b.edits.Lock()
	defer b.edits.Unlock()
	v := b.view()
	if err := checkShards(&v.Job, shards); err != nil {
		return v, err
	}
	shards, err = s.jobs.newOnes(ctx, b, shards)
	if err != nil || len(shards) == 0 && (v.State != domain.JobOpen || v.Counts.Added() < v.Total) {
		return v, err
	}
	if v.State != domain.JobOpen {
		return v, fault.FailedPrecondition("JOB_NOT_OPEN", "job %s is %s: shards are added while it is OPEN", id, v.State)
	}
	var w app.Writes
	counts := v.Counts
	for _, n := range shards {
		sw, err := s.jobs.ownShard(id, n, s.cfg.MaxPayload)
		if err != nil {
			return v, err
		}
		if err := s.jobs.mayGoOn(ctx, b, sw.Shard); err != nil {
			return v, err
		}
		w.Shards = append(w.Shards, sw)
		counts.Waiting++
		if counts.Bytes += sw.Shard.Size; counts.Bytes > maxJobInput {
			return v, fault.ResourceExhausted("JOB_TOO_LARGE", "the inputs of job %s have more than %s together, which is all that a job may have: split it", id, domain.Bytes(maxJobInput))
		}
	}
	next := v.Job.Clone()
	if counts.Added() == next.Total {
		if err := next.Start(time.Now(), counts); err != nil {
			return v, err
		}
		next.Revision++
		w.Jobs = []app.JobWrite{{Job: next}}
	}
	if err := s.cfg.Store.Commit(ctx, &w); err != nil {
		return v, err
	}
	s.jobs.changed(b, next, func() { b.counts = counts })
	return b.view(), nil
}

// newOnes leaves out shards that are there already.
func (j *jobs) newOnes(ctx context.Context, b *job, shards []app.NewShard) ([]app.NewShard, error) {
	if len(shards) == 0 {
		return nil, nil
	}
	low, high := shards[0].Index, shards[0].Index
	for _, n := range shards {
		low, high = min(low, n.Index), max(high, n.Index)
	}
	known, err := j.s.cfg.Store.Shards(ctx, b.id, app.ShardFilter{From: low, Limit: int(high-low) + 1})
	if err != nil {
		return nil, err
	}
	by := make(map[uint32]*domain.Shard, len(known))
	for _, sh := range known {
		by[sh.Index] = sh
	}
	var out []app.NewShard
	for _, n := range shards {
		old := by[n.Index]
		switch {
		case old == nil:
			out = append(out, n)
		case old.Name != n.Name || n.Content.Upload == "" && (int64(len(n.Content.Inline)) != old.Size || sum(n.Content.Inline) != old.SHA256):
			return nil, fault.AlreadyExists("SHARD_EXISTS", "shard %d of job %s is there with another name or content", n.Index, b.id)
		}
	}
	return out, nil
}

// ownShard makes an input the job's.
func (j *jobs) ownShard(id string, n app.NewShard, most int64) (app.ShardWrite, error) {
	sh := &domain.Shard{Job: id, Index: n.Index, Name: n.Name, State: domain.ShardWaiting, Size: int64(len(n.Content.Inline))}
	w := app.ShardWrite{Shard: sh, Insert: true}
	if n.Content.Upload == "" {
		sh.SHA256 = sum(n.Content.Inline)
		w.Content = append([]byte{}, n.Content.Inline...) // not nil where it is empty
		return w, nil
	}
	p, err := j.s.cfg.Inputs.Own(id, n.Content.Upload)
	if err != nil {
		return w, err
	}
	if p.Size > most {
		return w, fault.InvalidArgument("PAYLOAD_TOO_LARGE", "the input %s has %s, and a task may have %s", n.Name, domain.Bytes(p.Size), domain.Bytes(most))
	}
	sh.Size, sh.SHA256 = p.Size, p.SHA256
	return w, nil
}

// mayGoOn refuses an input that is too large for what was asked for: that providers may hand its task on.
func (j *jobs) mayGoOn(ctx context.Context, b *job, sh *domain.Shard) error {
	if !j.s.cfg.Anonymous || sh.Size < shareFrom {
		return nil
	}
	spec, err := j.spec(ctx, b)
	if err != nil || spec.Redirect == nil || !*spec.Redirect {
		return err
	}
	return notHandedOn("the input " + sh.Name + " has " + domain.Bytes(sh.Size))
}

// find returns a job that is not over; one that is over is a fault.
func (j *jobs) find(ctx context.Context, id string) (*job, error) {
	if b := j.get(id); b != nil {
		return b, nil
	}
	v, err := j.s.GetJob(ctx, id)
	if err != nil {
		return nil, err
	}
	return nil, fault.FailedPrecondition("JOB_OVER", "job %s is %s: nothing about it changes any more", id, v.State).With("state", v.State.String())
}

// changed makes a committed row what everybody sees.
func (j *jobs) changed(b *job, next *domain.Job, more func()) {
	b.mu.Lock()
	b.job = next
	if more != nil {
		more()
	}
	b.mu.Unlock()
	j.s.watch.Tell(watchKey(b.id))
	j.fill.Add(b.id)
}

// edit changes a job's row. change says false when there is nothing to do.
func (j *jobs) edit(ctx context.Context, b *job, drop bool, change func(next *domain.Job, c domain.ShardCounts) (bool, error)) error {
	b.edits.Lock()
	defer b.edits.Unlock()
	v := b.view()
	next := v.Job.Clone()
	ok, err := change(next, v.Counts)
	if err != nil || !ok {
		return err
	}
	next.Revision++
	if err := j.s.cfg.Store.Commit(ctx, &app.Writes{Jobs: []app.JobWrite{{Job: next, Drop: drop}}}); err != nil {
		return err
	}
	if next.State.Terminal() {
		j.mu.Lock()
		delete(j.open, b.id)
		j.mu.Unlock()
		j.alarms.Set(b.id, time.Time{})
	}
	j.changed(b, next, nil)
	if next.State.Terminal() {
		j.s.cfg.Inputs.Remove(b.id)
	}
	return nil
}

// moveFault says what was wrong with a move.
func moveFault(id string, err error) error {
	var m *domain.JobMoveError
	if errors.As(err, &m) {
		return fault.FailedPrecondition("JOB_STATE", "job %s: %s", id, m.Error()).With("state", m.From.String())
	}
	return err
}
