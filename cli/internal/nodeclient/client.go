package nodeclient

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/cenkalti/backoff/v5"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/mtls"
	"github.com/shallot-net/shallot/kit/rpc"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
)

// How long a node that stops answering is waited for: longer than a restart of any of its processes takes.
const (
	callTimeout = 10 * time.Second
	// submitTimeout is longer: the node checks a whole module before it takes a task.
	submitTimeout = 30 * time.Second
	patience      = time.Minute
	firstRetry    = 50 * time.Millisecond
	longestRetry  = 2 * time.Second
	// troubled is how long it is not worth a word: longer than most restarts take.
	troubled = 3 * time.Second
)

// Client is a node service and the connection to it.
type Client struct {
	nodev1.NodeServiceClient
	nodev1.JobServiceClient
	cc *grpc.ClientConn
	// Trouble, where it is set, is told once of each time that the node has not answered for a while.
	Trouble func(err error)
	// patience is how long a stream that broke is tried again without a sign of life.
	patience time.Duration
}

// Dial connects on the first call.
func Dial(t Target) (*Client, error) {
	creds, err := mtls.Open(t.Cert, mtls.Options{})
	if err != nil {
		return nil, err
	}
	cc, err := rpc.Dial(t.Endpoint, rpc.ClientConfig{Service: "the node", Peer: "node", TLS: creds, Timeout: callTimeout})
	if err != nil {
		return nil, err
	}
	return New(cc), nil
}

// New wraps a connection.
func New(cc *grpc.ClientConn) *Client {
	return &Client{NodeServiceClient: nodev1.NewNodeServiceClient(cc), JobServiceClient: nodev1.NewJobServiceClient(cc), cc: cc, patience: patience}
}

// Close ends the connection.
func (c *Client) Close() { _ = c.cc.Close() }

// transient tells errors that the next try may not meet: the service is down, restarting or draining. It is only asked
// while the caller's own context lives, so a call that was cancelled was cancelled by the other side.
func transient(err error) bool {
	var f *fault.Error
	if !errors.As(err, &f) {
		return false
	}
	switch f.Code {
	case codes.Unavailable, codes.Aborted, codes.Canceled, codes.DeadlineExceeded:
		return true
	}
	return f.Reason == fault.ReasonShuttingDown
}

// persist calls try until it succeeds, fails for good, or nothing has moved for the client's patience. try says with
// moved that the node is alive.
func (c *Client) persist(ctx context.Context, try func(moved func()) error) error {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval, b.MaxInterval = firstRetry, longestRetry
	b.Reset()
	last, told := time.Now(), false
	moved := func() {
		last, told = time.Now(), false
		b.Reset()
	}
	for {
		err := try(moved)
		if err == nil || ctx.Err() != nil || !transient(err) {
			return err
		}
		if time.Since(last) > c.patience {
			return fault.Unavailable("NODE_LOST", "the node has not answered for %s", c.patience).Because(err)
		}
		if !told && c.Trouble != nil && time.Since(last) > troubled {
			told = true
			c.Trouble(err)
		}
		wait := time.NewTimer(b.NextBackOff())
		select {
		case <-ctx.Done():
			wait.Stop()
			return ctx.Err()
		case <-wait.C:
		}
	}
}

// chunk is one response of a stream of bytes: its data, or the size of the whole.
type chunk interface {
	GetData() []byte
}

// copyStream writes a stream of bytes and counts what was written, so that a broken one goes on where it ended.
func copyStream[C chunk](w io.Writer, written *uint64, recv func() (C, error), moved func()) error {
	for {
		c, err := recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		moved()
		n, err := w.Write(c.GetData())
		*written += uint64(n)
		if err != nil {
			return &WriteError{err}
		}
	}
}

// WriteError is a failure to write what was received: it has nothing to do with the node.
type WriteError struct{ err error }

func (e *WriteError) Error() string { return "cannot write the output: " + e.err.Error() }

// Unwrap gives the cause.
func (e *WriteError) Unwrap() error { return e.err }

// Submit makes a task and returns it. The request id makes it repeatable.
func (c *Client) Submit(ctx context.Context, requestID string, spec *taskv1.TaskSpec) (*taskv1.Task, error) {
	var t *taskv1.Task
	err := c.persist(ctx, func(func()) error {
		resp, err := c.SubmitTask(ctx, &nodev1.SubmitTaskRequest{RequestId: requestID, Spec: spec}, rpc.Timeout(submitTimeout))
		t = resp.GetTask()
		return err
	})
	return t, err
}

// Cancel asks for the end of a task.
func (c *Client) Cancel(ctx context.Context, id string) (*taskv1.Task, error) {
	var t *taskv1.Task
	err := c.persist(ctx, func(func()) error {
		resp, err := c.CancelTask(ctx, &nodev1.CancelTaskRequest{TaskId: id})
		t = resp.GetTask()
		return err
	})
	return t, err
}
