package tasks

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/shallot-net/shallot/kit/fault"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
)

// Watch follows one task by the task service's own stream, from one replica to the next: a state that was told is not told again. UNAVAILABLE: it cannot be followed for
// watchTimeout.
func (c *Client) Watch(ctx context.Context, id string, emit func(*taskv1.Task) error) error {
	var last *taskv1.Task
	return keep(ctx, func(ctx context.Context) (grpc.ServerStreamingClient[taskv1.WatchTaskResponse], error) {
		return c.api.WatchTask(ctx, &taskv1.WatchTaskRequest{TaskId: id})
	}, func(r *taskv1.WatchTaskResponse) error {
		t := r.GetTask()
		if last != nil && t.GetRevision() == last.GetRevision() && t.GetState() == last.GetState() {
			return nil
		}
		last = t
		return emit(t)
	}, false)
}

// WatchTasks follows all tasks, from one replica to the next: whatever was missed meanwhile, the stream says so at its beginning. UNAVAILABLE as of Watch.
func (c *Client) WatchTasks(ctx context.Context, in *taskv1.WatchTasksRequest, emit func(*taskv1.WatchTasksResponse) error) error {
	return keep(ctx, func(ctx context.Context) (grpc.ServerStreamingClient[taskv1.WatchTasksResponse], error) {
		return c.api.WatchTasks(ctx, in)
	}, emit, true)
}

// watchTimeout is how long a replica that can be followed is looked for.
const watchTimeout = 20 * time.Second

// keep reads a stream until it ends in order, ctx ends or emit fails; one that breaks after it has said something, or that another replica may have, is opened again. patient: also one
// that has said nothing.
func keep[M any](ctx context.Context, open func(context.Context) (grpc.ServerStreamingClient[M], error), emit func(*M) error, patient bool) error {
	var broken error // why emit failed
	ever, heard := false, false
	tell := func(m *M) error {
		ever, heard = true, true
		broken = emit(m)
		return broken
	}
	lost := time.Now()
	for n := 1; ; n++ {
		heard = false
		err := read(ctx, open, tell)
		if err == nil || broken != nil || ctx.Err() != nil {
			return err
		}
		if heard {
			lost, n = time.Now(), 1
		}
		switch f := fault.From(err); {
		case time.Since(lost) > watchTimeout:
			return fault.Wrap(err, codes.Unavailable, f.Reason, "the task service cannot be followed now: try again")
		case elsewhere(err), (ever || patient) && f.Code == codes.Unavailable:
		default:
			return err
		}
		sleep(ctx, nextLeader.After(n, nil))
	}
}

func read[M any](ctx context.Context, open func(context.Context) (grpc.ServerStreamingClient[M], error), tell func(*M) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := open(ctx)
	if err != nil {
		return err
	}
	for {
		r, err := s.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		if err := tell(r); err != nil {
			return err
		}
	}
}
