// Package tasks is the task service as node calls it: one session for everything that a task costs, and single calls
// for what users ask now and then.
package tasks

import (
	"context"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/shallot-net/shallot/kit/brokerclient"
	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/logging"
	"github.com/shallot-net/shallot/kit/rpc/mux"
	"github.com/shallot-net/shallot/kit/tracing"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
)

// Listener hears what the session says, in order, where the session is read: it must not block.
type Listener interface {
	// Opened is called before anything is heard of a new session.
	Opened()
	Heard(r *taskv1.SessionResponse)
	Lost(err error)
}

// helloSeq is the number of the first command, out of the way of those that the caller counts up.
const helloSeq = math.MaxUint64

// createTimeout bounds a call that came without a deadline.
const createTimeout = 30 * time.Second

// Client calls the task service. Open it before commands are given.
type Client struct {
	api    taskv1.TaskServiceClient
	jobs   taskv1.JobServiceClient
	nodeID string
	log    *slog.Logger

	listener Listener
	caller   *mux.Caller[*command, *taskv1.SessionResponse]

	astray atomic.Bool // the replica that the session is with may lead no more

	mu     sync.Mutex
	cancel context.CancelFunc // of the stream that stands
}

// command is a frame to be sent, with what is to be run when its answer is read.
type command struct {
	msg  *taskv1.SessionRequest
	seen func(*taskv1.SessionResponse)
}

// New makes a client over a connection; nodeID is a random name of this process.
func New(conn grpc.ClientConnInterface, nodeID string, log *slog.Logger) *Client {
	return &Client{api: taskv1.NewTaskServiceClient(conn), jobs: taskv1.NewJobServiceClient(conn), nodeID: nodeID, log: log}
}

// Open starts the session, which is opened again whenever it breaks, until Close.
func (c *Client) Open(l Listener) {
	c.listener = l
	c.caller = mux.NewCaller(c.open,
		func(cmd *command, seq uint64) { cmd.msg.Seq = seq },
		(*taskv1.SessionResponse).GetSeq, nil,
		mux.WithQueue(1024), mux.WithHaste(elsewhere),
		mux.WithOnState(func(up bool, err error) {
			if !up {
				l.Lost(err)
			}
		}))
}

// Close ends the session; commands in flight fail.
func (c *Client) Close() { c.caller.Close() }

// Resync opens a new session in place of the one that stands: everything in the outbox is told again.
func (c *Client) Resync() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cancel != nil {
		c.log.Debug("asking for a new session")
		c.cancel()
	}
}

func (c *Client) open(ctx context.Context) (mux.Stream[*command, *taskv1.SessionResponse], error) {
	ctx, cancel := context.WithCancel(ctx)
	inner, err := c.api.Session(ctx)
	if err != nil {
		cancel()
		return nil, err
	}
	c.mu.Lock()
	c.cancel = cancel
	c.mu.Unlock()
	c.listener.Opened()
	hello := &taskv1.SessionRequest{Seq: helloSeq, Command: &taskv1.SessionRequest_Hello{Hello: &taskv1.Hello{NodeId: c.nodeID}}}
	if err := inner.Send(hello); err != nil {
		cancel()
		return nil, err
	}
	return &stream{inner: inner, listener: c.listener, seen: map[uint64]func(*taskv1.SessionResponse){}}, nil
}

// stream looks at every frame where it is read, so that nothing that the task service says overtakes anything else.
type stream struct {
	inner    grpc.BidiStreamingClient[taskv1.SessionRequest, taskv1.SessionResponse]
	listener Listener
	mu       sync.Mutex
	seen     map[uint64]func(*taskv1.SessionResponse)
}

// Send is for package mux.
func (s *stream) Send(cmd *command) error {
	if cmd.seen != nil {
		s.mu.Lock()
		s.seen[cmd.msg.GetSeq()] = cmd.seen
		s.mu.Unlock()
	}
	return s.inner.Send(cmd.msg)
}

// Recv is for package mux.
func (s *stream) Recv() (*taskv1.SessionResponse, error) {
	r, err := s.inner.Recv()
	if err != nil {
		return nil, err
	}
	if r.GetSeq() == helloSeq && r.GetFault() != nil {
		// Without having been told everything the session is worth nothing.
		return nil, fault.Wrap(brokerclient.FromFault(r.GetFault()), codes.Unavailable, mux.ReasonBroken, "the task service could not begin the session: %s", r.GetFault().GetMessage())
	}
	s.listener.Heard(r)
	if r.GetSeq() == 0 {
		return r, nil
	}
	s.mu.Lock()
	seen := s.seen[r.GetSeq()]
	delete(s.seen, r.GetSeq())
	s.mu.Unlock()
	if seen != nil {
		seen(r)
	}
	return r, nil
}

// do gives a command and waits for its answer. Every command may be repeated, so one whose session breaks is given
// again in the next, until ctx ends.
func (c *Client) do(ctx context.Context, msg *taskv1.SessionRequest, seen func(*taskv1.SessionResponse)) (*taskv1.SessionResponse, error) {
	msg.TraceParent = tracing.Parent(ctx)
	for {
		r, err := c.caller.Call(ctx, &command{msg, seen})
		if err == nil {
			err = brokerclient.FromFault(r.GetFault())
		}
		if err == nil {
			return r, nil
		}
		f := fault.From(err)
		pause := time.Duration(0)
		switch f.Reason {
		case mux.ReasonBroken: // the next session takes it
		case fault.ReasonShuttingDown: // this session still answers
			pause = 20 * time.Millisecond
		case reasonNoHello: // commands are handled side by side, and this one was faster
			pause = 2 * time.Millisecond
		default:
			return nil, err
		}
		if ctx.Err() != nil {
			return nil, err
		}
		c.log.Debug("a command is given again", logging.Err(err))
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
		}
	}
}

// reasonNoHello is the task service's for a command that came before the Hello.
const reasonNoHello = "NO_HELLO"

// Create makes a task; see app.TaskCreator.
func (c *Client) Create(ctx context.Context, m *taskv1.CreateTask, seen func(t *taskv1.Task, missed bool)) (*taskv1.Task, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, createTimeout)
		defer cancel()
	}
	var hook func(*taskv1.SessionResponse)
	if seen != nil {
		hook = func(r *taskv1.SessionResponse) {
			if r.GetFault() == nil && r.GetTask() != nil {
				// What comes of it next is carried by this process where it comes with the answer: then nothing can have happened since.
				seen(r.GetTask(), len(r.GetOutbox()) == 0 && r.GetPlacement() == nil)
			}
		}
	}
	r, err := c.do(ctx, &taskv1.SessionRequest{Command: &taskv1.SessionRequest_Create{Create: m}}, hook)
	if err != nil {
		return nil, err
	}
	if r.GetTask() == nil {
		return nil, fault.Unavailable("TASK_MISSING", "the task service took the submission and did not say which task it is: repeat it with the same request_id")
	}
	return r.GetTask(), nil
}

// Deliver gives an event from the network to the task service; see app.EventTaker.
func (c *Client) Deliver(ctx context.Context, m *taskv1.DeliverEvent) (*taskv1.Delivered, error) {
	r, err := c.do(ctx, &taskv1.SessionRequest{Command: &taskv1.SessionRequest_Deliver{Deliver: m}}, nil)
	return r.GetDelivered(), err
}

// PlaceTask says where a task goes.
func (c *Client) PlaceTask(ctx context.Context, m *taskv1.PlaceTask) error {
	_, err := c.do(ctx, &taskv1.SessionRequest{Command: &taskv1.SessionRequest_Place{Place: m}}, nil)
	return err
}

// PlacementFailed says why a task goes nowhere yet.
func (c *Client) PlacementFailed(ctx context.Context, m *taskv1.PlacementFailed) error {
	_, err := c.do(ctx, &taskv1.SessionRequest{Command: &taskv1.SessionRequest_PlacementFailed{PlacementFailed: m}}, nil)
	return err
}

// MarkSent says that events were acknowledged.
func (c *Client) MarkSent(ctx context.Context, ids []uint64) error {
	_, err := c.do(ctx, &taskv1.SessionRequest{Command: &taskv1.SessionRequest_Sent{Sent: &taskv1.MarkSent{OutboxIds: ids}}}, nil)
	return err
}

// SendFailed says that an event was given up.
func (c *Client) SendFailed(ctx context.Context, id uint64, reason, message string) error {
	_, err := c.do(ctx, &taskv1.SessionRequest{Command: &taskv1.SessionRequest_SendFailed{
		SendFailed: &taskv1.SendFailed{OutboxId: id, Reason: reason, Message: message}}}, nil)
	return err
}

// PersonasInUse asks which personas are still needed; see app.PersonaUse.
func (c *Client) PersonasInUse(ctx context.Context) ([]*taskv1.PersonaUse, error) {
	r, err := c.do(ctx, &taskv1.SessionRequest{Command: &taskv1.SessionRequest_Personas{Personas: &taskv1.PersonasQuery{}}}, nil)
	return r.GetPersonas(), err
}

// OnlineChanged says whether the network can be reached.
func (c *Client) OnlineChanged(ctx context.Context, online bool) error {
	_, err := c.do(ctx, &taskv1.SessionRequest{Command: &taskv1.SessionRequest_Online{Online: &taskv1.OnlineChanged{Online: online}}}, nil)
	return err
}
