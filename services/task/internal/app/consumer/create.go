package consumer

import (
	"context"
	"crypto/sha256"
	"errors"
	"slices"
	"time"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// Create makes a task and, with a candidate, places it in the same commit. It is idempotent by request id.
func (s *Service) Create(ctx context.Context, c app.Create) (app.Reply, error) {
	if err := checkRequestID(c.RequestID); err != nil {
		return app.Reply{}, err
	}
	if hasUploads(c.Spec.Parts) { // what follows would be much work for nothing
		if r, err := s.existing(ctx, c.RequestID); !errors.Is(err, app.ErrNotFound) {
			return r, err
		}
	}
	if err := checkSpec(&c.Spec); err != nil {
		return app.Reply{}, err
	}
	parts, err := s.resolve(c.Spec.Parts)
	if err != nil {
		return app.Reply{}, err
	}
	if err := s.validate(ctx, &c.Spec, parts); err != nil {
		return app.Reply{}, err
	}
	now := time.Now()
	t := s.newTask(&c, parts, now)
	key, err := s.newKey(t)
	if err != nil {
		return app.Reply{}, err
	}
	if c.Candidate != nil && s.payer.due(c.Candidate) != nil {
		c.Candidate = nil // nobody waits here until it is paid for: the task is placed right after
	}
	p, err := s.pack(ctx, t, key, c.Spec.Options, parts, c.Candidate)
	if err != nil {
		return app.Reply{}, err
	}
	p.of(t, s.cfg.Anonymous)
	if c.Spec.Redirect != nil && *c.Spec.Redirect && !t.Policy.Redirect {
		s.drop(t)
		return app.Reply{}, notHandedOn("the task's payload has " + domain.Bytes(p.size+p.referred))
	}

	l := &live{refs: 1, task: t, key: key, payload: p.key}
	l.mu.Lock()
	e := &edit{live: l, now: now, t: t}
	if c.Candidate == nil {
		e.reply.Placement = s.needed(t, now)
	} else if err := s.place(e, *c.Candidate, c.Detail, p.ciphertext); err != nil {
		l.mu.Unlock()
		return app.Reply{}, err
	}
	s.mu.Lock()
	s.live[t.ID] = l
	s.mu.Unlock()
	e.w.Tasks = []app.TaskWrite{{Task: t, Insert: true, Secret: append(append([]byte(nil), p.key...), key.Secret()...), Payload: p.ciphertext}}
	e.w.Outbox = e.sends
	t.Revision = 1
	if err := s.cfg.Store.Commit(ctx, &e.w); err != nil {
		l.task = nil
		s.release(t.ID, l)
		s.drop(t)
		if errors.Is(err, app.ErrExists) {
			return s.existing(ctx, c.RequestID)
		}
		return app.Reply{}, err
	}
	s.committed(e)
	s.release(t.ID, l)
	return e.reply, nil
}

// notHandedOn refuses to let a provider hand on what in anonymous mode is granted to it alone.
func notHandedOn(what string) error {
	return fault.FailedPrecondition("REDIRECT_NOT_POSSIBLE", "%s, which in anonymous mode is content for the one provider that gets the task, and only what fits into the submission (%s) can be handed on: "+
		"leave --redirect out, or make it smaller", what, domain.Bytes(app.SmallLimit))
}

func (s *Service) newTask(c *app.Create, parts []app.Part, now time.Time) *domain.Task {
	t := domain.Task{ID: app.NewID(), RequestID: c.RequestID, Type: c.Spec.Type, Limits: c.Spec.Limits, Policy: c.Spec.Policy,
		Clocks: c.Spec.Clocks.OrDefault(domain.DefaultClocks), Labels: c.Spec.Labels, Keep: s.cfg.Keep,
		ProgramHash: app.ProgramHash(c.Spec.Type, parts)}
	t.Policy.Redirect = s.cfg.Redirect
	if c.Spec.Redirect != nil {
		t.Policy.Redirect = *c.Spec.Redirect
	}
	if t.Policy.MaxAttempts == 0 {
		t.Policy.MaxAttempts = domain.DefaultAttempts
	}
	return domain.NewTask(t, now)
}

// newKey makes a task's key. A key pair is half of a small submission and of its result, which over Tor decides how long they take. It is worth that where
// a provider may open the payload only to hand the task on: that one must not read the result.
func (s *Service) newKey(t *domain.Task) (app.TaskKey, error) {
	if s.cfg.Anonymous && !t.Policy.Redirect {
		return s.cfg.Keys.Shared(), nil
	}
	return s.cfg.Keys.Take()
}

// existing answers a repeated request.
func (s *Service) existing(ctx context.Context, requestID string) (app.Reply, error) {
	t, err := s.cfg.Store.TaskByRequest(ctx, requestID)
	if err != nil {
		return app.Reply{}, err
	}
	v := View(t)
	r := app.Reply{Task: &v, Existed: true}
	if t.State == domain.Pending {
		r.Placement = s.needed(t, time.Now())
	}
	s.addStdout(ctx, t, &r)
	return r, nil
}

// drop lets go what was put away for a task that was not made.
func (s *Service) drop(t *domain.Task) {
	s.unpinLater(t)
}

const payloadKind = "payload:"

func payloadOwner(taskID string) string { return payloadKind + taskID }

// wanted tells whether a payload is kept for a task that goes on.
func (s *Service) wanted(ctx context.Context, taskID, cid string) (bool, error) {
	t, err := s.cfg.Store.Task(ctx, taskID)
	if errors.Is(err, app.ErrNotFound) {
		return false, nil
	}
	return err == nil && !t.State.Terminal() && slices.Contains(t.Content(), cid), err
}

// unpinLater lets go what is kept for a task, beside what its caller does.
func (s *Service) unpinLater(t *domain.Task) {
	var pins []app.Pinned
	for _, cid := range t.Content() {
		pins = append(pins, app.Pinned{CID: cid, Owner: payloadOwner(t.ID)})
	}
	if len(pins) == 0 {
		return
	}
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := s.cfg.Repository.Unpin(ctx, pins...); err != nil {
			s.cfg.Log.Warn("a payload stays pinned until its time is over", "error", err.Error())
		}
	}()
}

func hasUploads(parts []app.PartSource) bool {
	for _, p := range parts {
		if p.Upload != "" {
			return true
		}
	}
	return false
}

// resolve finds uploads and hashes what is inline.
func (s *Service) resolve(sources []app.PartSource) ([]app.Part, error) {
	parts := make([]app.Part, len(sources))
	total := int64(0)
	for i, src := range sources {
		p := app.Part{Name: src.Name, Inline: src.Inline, Size: int64(len(src.Inline))}
		if src.Upload != "" {
			up, err := s.cfg.Uploads.Find(src.Upload)
			if err != nil {
				return nil, err
			}
			p.Path, p.Size, p.SHA256, p.Inline = up.Path, up.Size, up.SHA256, nil
		} else {
			p.SHA256 = sha256.Sum256(src.Inline)
		}
		if total += p.Size; total > s.cfg.MaxPayload {
			return nil, fault.InvalidArgument("PAYLOAD_TOO_LARGE", "the payload has more than %s, and a task may have that at most: send less, or ask for data by content id",
				domain.Bytes(s.cfg.MaxPayload))
		}
		parts[i] = p
	}
	return parts, nil
}

func (s *Service) validate(ctx context.Context, spec *app.Spec, parts []app.Part) error {
	v := s.cfg.Validators[spec.Type]
	if v == nil {
		return nil
	}
	return v(ctx, spec.Options, parts)
}
