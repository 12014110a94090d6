package nodeclient

import (
	"context"
	"errors"
	"io"
	"sync"

	"github.com/shallot-net/shallot/kit/fault"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
)

// Run is one task from its submission to its end, across restarts of the node.
type Run struct {
	Client    *Client
	RequestID string
	Spec      *taskv1.TaskSpec
	Stdout    io.Writer
	// Changed is told of the task once it is stored and after each change. It must not block.
	Changed func(*taskv1.Task)

	written uint64
	mu      sync.Mutex
	last    *taskv1.Task
	known   chan struct{}
	once    sync.Once
}

// NewRun prepares a run.
func NewRun(c *Client, requestID string, spec *taskv1.TaskSpec, stdout io.Writer, changed func(*taskv1.Task)) *Run {
	return &Run{Client: c, RequestID: requestID, Spec: spec, Stdout: stdout, Changed: changed, known: make(chan struct{})}
}

// Known is closed once the task is stored.
func (r *Run) Known() <-chan struct{} { return r.known }

// Task is the task as it was heard of last; nil before it is known.
func (r *Run) Task() *taskv1.Task {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last
}

func (r *Run) heard(t *taskv1.Task) {
	r.mu.Lock()
	if r.last != nil && t.GetRevision() < r.last.GetRevision() {
		r.mu.Unlock()
		return // told before the connection broke
	}
	r.last = t
	r.mu.Unlock()
	r.once.Do(func() { close(r.known) })
	r.Changed(t)
}

// Follow submits the task, waits for its end and writes its stdout. It returns the ended task.
func (r *Run) Follow(ctx context.Context) (*taskv1.Task, error) {
	err := r.Client.persist(ctx, func(moved func()) error {
		if r.Task() == nil {
			return r.first(ctx, moved)
		}
		return r.resume(ctx, moved)
	})
	return r.Task(), err
}

// first is the whole run in one call. The request id makes it repeatable: a node that had stored the task before the
// connection broke returns that one.
func (r *Run) first(ctx context.Context, moved func()) error {
	s, err := r.Client.RunTask(ctx, &nodev1.RunTaskRequest{RequestId: r.RequestID, Spec: r.Spec})
	if err != nil {
		return err
	}
	for {
		m, err := s.Recv()
		if errors.Is(err, io.EOF) {
			if t := r.Task(); t == nil || !Terminal(t.GetState()) {
				return fault.Unavailable("STREAM_SHORT", "the node ended the call before the task")
			}
			return nil
		}
		if err != nil {
			return err
		}
		moved()
		if t := m.GetTask(); t != nil {
			r.heard(t)
		}
		n, err := r.Stdout.Write(m.GetStdout())
		r.written += uint64(n)
		if err != nil {
			return &WriteError{err}
		}
	}
}

func (r *Run) resume(ctx context.Context, moved func()) error {
	id := r.Task().GetId()
	if err := r.Client.Watch(ctx, id, func(t *taskv1.Task) error {
		moved()
		r.heard(t)
		return nil
	}); err != nil {
		return err
	}
	t := r.Task()
	if t.GetState() != "COMPLETED" && !t.GetResult().GetAvailable() {
		return nil // nothing was kept
	}
	s, err := r.Client.GetResult(ctx, &nodev1.GetResultRequest{TaskId: id, Offset: r.written})
	if err != nil {
		return err
	}
	return copyStream(r.Stdout, &r.written, s.Recv, moved)
}

// ended is how a watch that ends too early is told from one that failed.
func ended(err error) error {
	if errors.Is(err, io.EOF) {
		return fault.Unavailable("STREAM_SHORT", "the node ended the call before the task")
	}
	return err
}
