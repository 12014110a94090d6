package consumer

import (
	"context"
	"errors"
	"io"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// Get returns a task as it is now.
func (s *Service) Get(ctx context.Context, id string) (app.TaskView, error) {
	var v *app.TaskView
	s.peek(id, func(l *live) {
		view := View(l.task)
		if l.task.State == domain.Running && l.progressAttempt == view.Attempts {
			view.Progress = l.progress
		}
		if l.task.State == domain.Pending {
			view.Progress = l.paying
		}
		v = &view
	})
	if v != nil {
		return *v, nil
	}
	t, err := s.cfg.Store.Task(ctx, id)
	if err != nil {
		return app.TaskView{}, notFound(err, id)
	}
	return View(t), nil
}

// Placement is how each attempt's provider was chosen; at last, where there is none, why not.
func (s *Service) Placement(ctx context.Context, id string) ([]app.PlacementView, error) {
	var t *domain.Task
	s.peek(id, func(l *live) { t = l.task.Clone() })
	if t == nil {
		stored, err := s.cfg.Store.Task(ctx, id)
		if err != nil {
			return nil, notFound(err, id)
		}
		t = stored
	}
	var out []app.PlacementView
	for i := range t.Attempts {
		a := &t.Attempts[i]
		v := app.PlacementView{Attempt: a.Number, Chosen: a.Peer, Peer: a.Peer, At: a.SubmittedAt, Ended: a.Ended, Choice: a.Choice}
		if len(a.Trail) > 0 {
			v.Chosen = a.Trail[0]
		}
		out = append(out, v)
	}
	if t.Unplaced != nil {
		out = append(out, app.PlacementView{Attempt: uint32(len(t.Attempts)) + 1, At: t.UnplacedAt, Choice: t.Unplaced})
	}
	return out, nil
}

// List returns tasks, newest first.
func (s *Service) List(ctx context.Context, f app.TaskFilter) ([]app.TaskView, error) {
	tasks, err := s.cfg.Store.ListTasks(ctx, f)
	if err != nil {
		return nil, err
	}
	out := make([]app.TaskView, len(tasks))
	for i, t := range tasks {
		out[i] = View(t)
	}
	return out, nil
}

// Watch wakes the caller after each change of a task.
func (s *Service) Watch(id string) (<-chan struct{}, func()) { return s.watch.Watch(id) }

// Feed collects all tasks that change; see app.Watchers.
func (s *Service) Feed(most int) *app.Feed { return s.watch.Feed(most) }

// Result opens one body of a terminal task's result: "stdout", "stderr" or "output:PATH".
func (s *Service) Result(ctx context.Context, id, name string) (*app.Body, error) {
	t, err := s.cfg.Store.Task(ctx, id)
	if err != nil {
		return nil, notFound(err, id)
	}
	if !t.State.Terminal() {
		return nil, fault.FailedPrecondition("TASK_NOT_FINISHED", "task %s is %s: its result is there when it has ended", id, t.State).With("state", t.State.String())
	}
	p, offset, ok := t.Result.Part(name)
	if !ok {
		return nil, s.noBody(t, name)
	}
	return s.open(ctx, t, p, offset)
}

func (s *Service) open(ctx context.Context, t *domain.Task, p domain.Part, offset int64) (*app.Body, error) {
	if !t.Result.InFile {
		b, err := s.cfg.Store.Body(ctx, t.ID)
		if err != nil {
			return nil, err
		}
		if offset+p.Size > int64(len(b)) {
			return nil, errors.New("the stored result is shorter than its index")
		}
		return app.BytesBody(b[offset : offset+p.Size]), nil
	}
	f, closer, err := s.cfg.Results.Open(t.ID)
	if err != nil {
		return nil, err
	}
	return &app.Body{Size: p.Size, ReadSeeker: io.NewSectionReader(f, offset, p.Size), Closer: closer}, nil
}

func (s *Service) noBody(t *domain.Task, name string) error {
	if t.Result == nil {
		return fault.NotFound("RESULT_EMPTY", "task %s is %s and has no result", t.ID, t.State).With("state", t.State.String())
	}
	known := make([]string, len(t.Result.Parts))
	for i, p := range t.Result.Parts {
		known[i] = p.Name
	}
	msg := "the result of task %s has no body %q"
	if hint := fault.Suggest(name, known); hint != "" {
		msg += ": " + hint
	}
	return fault.NotFound("BODY_NOT_FOUND", msg, t.ID, clip(name, 256)).With("body", clip(name, 256))
}

// smallStdout is how much stdout comes with a reply.
const smallStdout = 64 << 10

// addStdout puts a completed task's small stdout into the reply. What cannot be read is left out: GetResult will say why.
func (s *Service) addStdout(ctx context.Context, t *domain.Task, r *app.Reply) {
	p, offset, ok := t.Result.Part("stdout")
	if !ok || t.State != domain.Completed || p.Size > smallStdout {
		return
	}
	b, err := s.open(ctx, t, p, offset)
	if err != nil {
		return
	}
	defer b.Close()
	data := make([]byte, p.Size)
	if _, err := io.ReadFull(b, data); err == nil {
		r.Stdout, r.HasStdout = data, true
	}
}

// ReadLog fills b with stderr from offset, and says where the next piece begins and whether the task has ended. While a
// task runs its pieces are what its provider has sent; afterwards they are those of the result.
func (s *Service) ReadLog(ctx context.Context, id string, offset int64, b []byte) (n int, next int64, ended bool, err error) {
	v, err := s.Get(ctx, id)
	if err != nil {
		return 0, offset, false, err
	}
	if v.State.Terminal() && v.Result != nil {
		body, err := s.Result(ctx, id, "stderr")
		if err != nil {
			if errors.Is(err, fault.NotFound("BODY_NOT_FOUND", "")) {
				err = nil
			}
			return 0, offset, true, err
		}
		defer body.Close()
		if offset >= body.Size {
			return 0, offset, true, nil
		}
		if _, err := body.Seek(offset, io.SeekStart); err != nil {
			return 0, offset, true, err
		}
		n, err := io.ReadFull(body, b)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			err = nil
		}
		return n, offset + int64(n), true, err
	}
	n, next, err = s.cfg.Logs.Read(logName(id, max(v.Attempts, 1)), offset, b)
	return n, next, v.State.Terminal(), err
}
