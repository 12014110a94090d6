package tasks

import (
	"context"
	"errors"
	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
	"io"
)

// API is the task service itself, for calls that are handed on as they are.
func (c *Client) API() taskv1.TaskServiceClient { return c.api }

// Jobs is the task service's service for jobs, whose calls are handed on as they are.
func (c *Client) Jobs() taskv1.JobServiceClient { return c.jobs }

// openPages bounds how many tasks that have not ended are listed, by 1,000 each.
const openPages = 10

// OpenStates lists tasks that have not ended; see app.OpenTasks.
func (c *Client) OpenStates(ctx context.Context) (map[string]string, error) {
	out := map[string]string{}
	in := &taskv1.ListTasksRequest{States: []string{"PENDING", "SUBMITTED", "ACCEPTED", "RUNNING"}, PageSize: 1000}
	for range openPages {
		r, err := c.api.ListTasks(ctx, in)
		if err != nil {
			return nil, err
		}
		for _, t := range r.GetTasks() {
			out[t.GetId()] = t.GetState()
		}
		if in.PageToken = r.GetNextPageToken(); in.PageToken == "" {
			break
		}
	}
	return out, nil
}

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
