package app

import (
	"context"

	"github.com/shallot-net/shallot/kit/fault"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
	"github.com/shallot-net/shallot/services/node/internal/domain"
)

// TaskReader asks the task service for a task as it is. NOT_FOUND when there is none of that id.
type TaskReader interface {
	GetTask(ctx context.Context, id string) (*taskv1.Task, error)
}

// TaskUpdate is a task after a change, with its stdout where that came along.
type TaskUpdate struct {
	Task      *taskv1.Task
	Stdout    []byte
	HasStdout bool
}

// Watches tells those who wait for tasks what the session with the task service says, in memory. After a broken session it
// makes them ask the task service itself, so that they miss nothing.
type Watches struct {
	hub   *domain.Hub[TaskUpdate]
	tasks TaskReader
}

// maxWatches bounds the watchers of a node.
const maxWatches = 4096

// NewWatches makes one.
func NewWatches(tasks TaskReader) *Watches {
	return &Watches{hub: domain.NewHub[TaskUpdate](maxWatches), tasks: tasks}
}

// Terminal tells whether a state is a last one.
func Terminal(state string) bool {
	switch state {
	case "COMPLETED", "FAILED", "CANCELLED", "EXPIRED":
		return true
	}
	return false
}

// update also drops the history, which grows with the task and which only GetTask is to carry. Nobody else has the
// task yet.
func update(u TaskUpdate) domain.Update[TaskUpdate] {
	if len(u.Task.GetHistory()) > 0 {
		u.Task.History = nil
	}
	return domain.Update[TaskUpdate]{ID: u.Task.GetId(), Revision: u.Task.GetRevision(), Terminal: Terminal(u.Task.GetState()), Value: u}
}

// Publish tells the watchers of a task. It does not block.
func (w *Watches) Publish(u TaskUpdate) { w.hub.Publish(update(u)) }

// Resync makes every watcher ask for its task's state.
func (w *Watches) Resync() { w.hub.Resync() }

// Count is how many watchers there are.
func (w *Watches) Count() int { return w.hub.Count() }

func (w *Watches) watch(id string) (*domain.Watch[TaskUpdate], error) {
	watch := w.hub.Watch(id)
	if watch == nil {
		return nil, fault.ResourceExhausted("TOO_MANY_WATCHES", "%d tasks are being watched already, and no more can be: end some of the watches, or list tasks instead", maxWatches)
	}
	return watch, nil
}

// follow gives emit the watch's states until one is terminal, ctx ends or emit fails.
func (w *Watches) follow(ctx context.Context, watch *domain.Watch[TaskUpdate], id string, emit func(TaskUpdate) error) error {
	for {
		select {
		case <-ctx.Done():
			return fault.From(context.Cause(ctx))
		case <-watch.Changed():
		}
		u, fresh, resync := watch.Next()
		if fresh {
			if err := emit(u.Value); err != nil {
				return err
			}
			if u.Terminal {
				return nil
			}
		}
		if resync {
			if err := w.refresh(ctx, watch, id); err != nil {
				return err
			}
		}
	}
}

func (w *Watches) refresh(ctx context.Context, watch *domain.Watch[TaskUpdate], id string) error {
	t, err := w.tasks.GetTask(ctx, id)
	if err == nil {
		watch.Offer(update(TaskUpdate{Task: t}))
		return nil
	}
	if f := fault.From(err); f.Code.String() == "Unavailable" && ctx.Err() == nil {
		return nil // gone again: the next session says so again
	}
	return err
}

// Watch gives emit a task now and after every change, the newest state where there were several, and returns after a terminal one.
func (w *Watches) Watch(ctx context.Context, id string, emit func(*taskv1.Task) error) error {
	watch, err := w.watch(id)
	if err != nil {
		return err
	}
	defer watch.Close()
	t, err := w.tasks.GetTask(ctx, id)
	if err != nil {
		return err
	}
	watch.Offer(update(TaskUpdate{Task: t}))
	return w.follow(ctx, watch, id, func(u TaskUpdate) error { return emit(u.Task) })
}
