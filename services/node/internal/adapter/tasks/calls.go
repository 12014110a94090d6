package tasks

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/shallot-net/shallot/kit/fault"
	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
)

// API is the task service itself, for calls that are handed on as they are.
func (c *Client) API() taskv1.TaskServiceClient { return c.api }

// Jobs is the task service's service for jobs, whose calls are handed on as they are.
func (c *Client) Jobs() taskv1.JobServiceClient { return c.jobs }

// GetTask asks for a task with its history.
func (c *Client) GetTask(ctx context.Context, id string) (*taskv1.Task, error) {
	r, err := c.api.GetTask(ctx, &taskv1.GetTaskRequest{TaskId: id})
	if err != nil {
		return nil, err
	}
	return r.GetTask(), nil
}

// ReadResult reads a body of a result; see app.BodyReader.
func (c *Client) ReadResult(ctx context.Context, task, body string, offset uint64, size func(uint64) error, data func([]byte) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := c.api.GetResult(ctx, &taskv1.GetResultRequest{TaskId: task, Body: body, Offset: offset})
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
		switch x := r.GetResponse().(type) {
		case *taskv1.GetResultResponse_Size:
			err = size(x.Size)
		case *taskv1.GetResultResponse_Data:
			err = data(x.Data)
		}
		if err != nil {
			return err
		}
	}
}

// Watch follows one task by the task service's own stream, from one replica to the next: a state that was told is not told again. UNAVAILABLE: it cannot be followed for
// watchTimeout.
func (c *Client) Watch(ctx context.Context, id string, emit func(*taskv1.Task) error) error {
	var last *taskv1.Task
	var broken error // why emit failed
	heard := false
	tell := func(t *taskv1.Task) error {
		heard = true
		if last != nil && t.GetRevision() == last.GetRevision() && t.GetState() == last.GetState() {
			return nil
		}
		last, broken = t, emit(t)
		return broken
	}
	lost := time.Now()
	for n := 1; ; n++ {
		heard = false
		err := c.watch(ctx, id, tell)
		if err == nil || broken != nil || ctx.Err() != nil {
			return err
		}
		if heard {
			lost, n = time.Now(), 1
		}
		switch f := fault.From(err); {
		case time.Since(lost) > watchTimeout:
			return fault.Wrap(err, codes.Unavailable, f.Reason, "the task cannot be followed now: try again")
		case elsewhere(err), last != nil && f.Code == codes.Unavailable:
		default:
			return err
		}
		sleep(ctx, nextLeader.After(n, nil))
	}
}

// watchTimeout is how long a replica that can be followed is looked for.
const watchTimeout = 20 * time.Second

func (c *Client) watch(ctx context.Context, id string, tell func(*taskv1.Task) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := c.api.WatchTask(ctx, &taskv1.WatchTaskRequest{TaskId: id})
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
		if err := tell(r.GetTask()); err != nil {
			return err
		}
	}
}

// Describe asks what the task service is.
func (c *Client) Describe(ctx context.Context) (d *taskv1.DescribeResponse, err error) {
	err = atLeader(ctx, func() error {
		d, err = c.api.Describe(ctx, &taskv1.DescribeRequest{})
		return err
	})
	return d, err
}

// WatchQueue follows the queue's figures and the description; see app.TaskDescriber. When the replica that it is at leads no more, the next one that does is looked for, and the session is
// taken there: a replica that is cut off from its store keeps the sessions that it has, because nobody may lead.
func (c *Client) WatchQueue(ctx context.Context, news func(q *eventv1.Queue, description uint64)) error {
	return atLeader(ctx, func() error { return c.watchQueue(ctx, news) })
}

func (c *Client) watchQueue(ctx context.Context, news func(q *eventv1.Queue, description uint64)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := c.api.WatchQueue(ctx, &taskv1.WatchQueueRequest{})
	if err != nil {
		return err
	}
	for first := true; ; first = false {
		r, err := s.Recv()
		switch {
		case err != nil:
			if !first && elsewhere(err) {
				c.astray.Store(true)
			}
			return err
		case first && c.astray.Swap(false):
			c.Resync()
		}
		news(r.GetQueue(), r.GetDescription())
	}
}
