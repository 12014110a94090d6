package consumer

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

const (
	// readAhead is how many waiting shards are read at once.
	readAhead = 64
	// jobRetry is the pause after something of this node's own failed.
	jobRetry = time.Second
)

// draft is a task that exists in memory alone, until it has a provider: then it, its shard and its submission are one commit. When it is
// lost, its shard still waits.
type draft struct {
	secret, payload []byte
	// pack makes the payload, for the provider that the task is placed at. In open mode it has been made for whoever that is: nil.
	pack func(ctx context.Context, t *domain.Task, c *app.Candidate) (packed, error)
}

// unplaced ends an edit of a task that still has no provider. A draft whose payload is made for its provider has none yet, so it stays in memory.
func (e *edit) unplaced() error {
	if e.draft == nil || e.draft.pack == nil {
		return nil
	}
	e.live.task = e.t
	return errUnchanged
}

// packDraft makes the payload of a draft that is about to be placed.
func (s *Service) packDraft(ctx context.Context, e *edit, c *app.Candidate) error {
	d := e.draft
	if d.pack == nil {
		return nil
	}
	p, err := d.pack(ctx, e.t, c)
	if err != nil {
		return err
	}
	p.of(e.t, s.cfg.Anonymous)
	e.live.payload = p.key
	d.secret, d.payload = append(append([]byte(nil), p.key...), e.key.Secret()...), p.ciphertext
	return nil
}

// fillJob makes tasks until the job has as many in flight as it may have, and ends a job whose shards have ended.
func (j *jobs) fillJob(id string) {
	b := j.get(id)
	if b == nil {
		return
	}
	b.filling.Lock()
	defer b.filling.Unlock()
	ctx := j.s.ctx
	for ctx.Err() == nil {
		sh, try, err := j.next(ctx, b)
		if err == nil && sh == nil {
			j.finish(ctx, b)
			return
		}
		if err == nil {
			err = j.draft(ctx, b, sh, try)
		}
		if err != nil && !j.hopeless(ctx, b, sh, err) {
			if sh != nil {
				b.putBack(sh)
			}
			j.s.cfg.Log.Warn("a shard could not be made a task, and will be tried again", "error", err.Error())
			j.alarms.Set(id, time.Now().Add(jobRetry))
			return
		}
	}
}

// hopeless ends a shard whose input is bad or gone; other errors may pass.
func (j *jobs) hopeless(ctx context.Context, b *job, sh *domain.Shard, err error) bool {
	why := fault.From(err)
	if sh == nil || why.Code != codes.InvalidArgument && why.Code != codes.NotFound && why.Code != codes.FailedPrecondition {
		return false
	}
	b.mu.Lock()
	f := b.flight[sh.Index]
	if f == nil {
		b.mu.Unlock()
		return true
	}
	if len(f.tasks) > 0 || f.writing { // this would have been to overtake what runs
		f.hedging = false
		b.mu.Unlock()
		return true
	}
	f.writing = true
	b.mu.Unlock()
	end := *sh
	end.Fail(domain.Failure{Reason: why.Reason, Message: why.Message})
	return j.write(ctx, b, f, &end) == nil
}

// next chooses the shard that gets a task, where there is room for one.
func (j *jobs) next(ctx context.Context, b *job) (sh *domain.Shard, try uint32, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for b.job.State == domain.JobRunning && len(b.tasks) < int(b.job.Parallel) {
		if n := len(b.again); n > 0 {
			f := b.flight[b.again[0]]
			b.again = b.again[1:]
			if f != nil && (len(f.tasks) == 0 || f.hedging && len(f.tasks) == 1) {
				one := f.shard
				return &one, one.Tries, nil
			}
			continue
		}
		if len(b.ready) == 0 {
			b.ready, err = j.s.cfg.Store.Shards(ctx, b.id, app.ShardFilter{States: []domain.ShardState{domain.ShardWaiting}, From: b.cursor, Limit: readAhead})
			if err != nil || len(b.ready) == 0 {
				return nil, 0, err
			}
			b.cursor = b.ready[len(b.ready)-1].Index + 1
		}
		sh, b.ready = b.ready[0], b.ready[1:]
		if b.flight[sh.Index] == nil { // read before it was started
			b.flight[sh.Index] = &flight{shard: *sh, tasks: make(map[string]bool)}
			return sh, sh.Tries, nil
		}
	}
	return nil, 0, nil
}

// putBack makes a shard that could not get a task wait for it.
func (b *job) putBack(sh *domain.Shard) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f := b.flight[sh.Index]
	switch {
	case f == nil:
	case f.shard.State == domain.ShardWaiting && len(f.tasks) == 0:
		delete(b.flight, sh.Index)
		b.rewind(sh.Index)
	default:
		b.again = append(b.again, sh.Index)
	}
}

// rewind has waiting shards read again from index on.
func (b *job) rewind(index uint32) {
	for _, sh := range b.ready {
		index = min(index, sh.Index)
	}
	b.cursor, b.ready = min(b.cursor, index), nil
}

// draft makes a task for a shard and asks for a provider.
func (j *jobs) draft(ctx context.Context, b *job, sh *domain.Shard, try uint32) error {
	t, l, err := j.makeTask(ctx, b, sh, try)
	if err != nil {
		return err
	}
	l.refs = 1
	l.mu.Lock() // nobody gets at the task before the job knows of it
	j.s.mu.Lock()
	j.s.live[t.ID] = l
	j.s.mu.Unlock()
	b.mu.Lock()
	f := b.flight[sh.Index]
	known := f != nil && b.job.State == domain.JobRunning // not paused or ended meanwhile
	if known {
		f.tasks[t.ID], b.tasks[t.ID] = false, *t.Shard
	}
	b.mu.Unlock()
	if !known {
		l.task, l.draft = nil, nil
	}
	j.s.release(t.ID, l)
	if !known {
		j.s.drop(t)
		b.putBack(sh)
		return nil
	}
	j.s.cfg.Pusher.Push(ctx, app.Reply{Placement: j.s.needed(t, time.Now())})
	return nil
}

func (j *jobs) makeTask(ctx context.Context, b *job, sh *domain.Shard, try uint32) (*domain.Task, *live, error) {
	spec, err := j.spec(ctx, b)
	if err != nil {
		return nil, nil, err
	}
	in, err := j.input(ctx, b, sh)
	if err != nil {
		return nil, nil, err
	}
	ref := domain.ShardRef{Job: b.id, Index: sh.Index, Try: try}
	labels := maps.Clone(spec.Labels)
	if labels == nil {
		labels = make(map[string]string, jobLabels)
	}
	labels["job"], labels["shard"] = b.id, sh.Name
	policy := spec.Policy
	if holder := b.holder(sh.Index); holder != "" {
		policy.Exclude = append(policy.Exclude[:len(policy.Exclude):len(policy.Exclude)], holder)
	}
	parts := append(spec.parts[:len(spec.parts):len(spec.parts)], in)
	t := j.s.newTask(&app.Create{RequestID: ref.RequestID(), Spec: app.Spec{Type: spec.Type, Limits: spec.Limits, Redirect: spec.Redirect, Policy: policy, Clocks: spec.Clocks, Labels: labels}},
		parts, time.Now())
	t.Shard = &ref
	key, err := j.s.newKey(t)
	if err != nil {
		return nil, nil, err
	}
	if j.s.cfg.Anonymous {
		options := spec.Options
		return t, &live{task: t, key: key, draft: &draft{pack: func(ctx context.Context, t *domain.Task, c *app.Candidate) (packed, error) {
			return j.s.pack(ctx, t, key, options, parts, c)
		}}}, nil
	}
	p, err := j.s.pack(ctx, t, key, spec.Options, parts, nil)
	if err != nil {
		return nil, nil, err
	}
	p.of(t, false)
	return t, &live{task: t, key: key, payload: p.key, draft: &draft{secret: append(append([]byte(nil), p.key...), key.Secret()...), payload: p.ciphertext}}, nil
}

// holder is the provider that another task for the shard is to avoid.
func (b *job) holder(index uint32) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if f := b.flight[index]; f != nil && f.hedging {
		return f.holder
	}
	return ""
}

func (j *jobs) spec(ctx context.Context, b *job) (*jobSpec, error) {
	b.mu.Lock()
	have := b.spec
	b.mu.Unlock()
	if have != nil {
		return have, nil
	}
	raw, err := j.s.cfg.Store.JobSpec(ctx, b.id)
	if err != nil {
		return nil, err
	}
	spec := &jobSpec{}
	if err := json.Unmarshal(raw, &spec.JobSpec); err != nil {
		return nil, err
	}
	for _, p := range spec.Parts {
		part := app.Part{Name: p.Name, Inline: p.Inline, Size: p.Size, SHA256: p.SHA256}
		if p.InFile {
			part.Path = j.s.cfg.Inputs.Path(b.id, p.SHA256)
		}
		spec.parts = append(spec.parts, part)
	}
	b.mu.Lock()
	b.spec = spec
	b.mu.Unlock()
	return spec, nil
}

func (j *jobs) input(ctx context.Context, b *job, sh *domain.Shard) (app.Part, error) {
	b.mu.Lock()
	part := app.Part{Name: inputPart(b.job.InputPath), Size: sh.Size, SHA256: sh.SHA256}
	b.mu.Unlock()
	content, err := j.s.cfg.Store.ShardContent(ctx, b.id, sh.Index)
	if errors.Is(err, app.ErrNotFound) {
		part.Path = j.s.cfg.Inputs.Path(b.id, sh.SHA256)
		return part, nil
	}
	part.Inline = content
	return part, err
}

// dropDraft forgets a task that has no provider yet, and tells whether it was one.
func (s *Service) dropDraft(id string) bool {
	dropped := false
	s.peek(id, func(l *live) {
		if l.draft == nil {
			return
		}
		s.drop(l.task)
		l.task, l.draft, dropped = nil, nil, true
	})
	return dropped
}
