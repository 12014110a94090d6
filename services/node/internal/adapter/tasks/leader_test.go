package tasks

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/grpctest"
	"github.com/shallot-net/shallot/kit/rpc"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
)

// replicas is what a client meets that goes round: each call comes to the next one, and the last one leads.
type replicas struct {
	taskv1.UnimplementedTaskServiceServer
	mu     sync.Mutex
	others int // calls that come to others first
	ends   int // watches that end before the task does
	calls  int
}

func (r *replicas) next() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls++
	if r.others > 0 {
		r.others--
		return fault.FailedPrecondition("NOT_LEADING", "another one leads")
	}
	return nil
}

func (r *replicas) Describe(context.Context, *taskv1.DescribeRequest) (*taskv1.DescribeResponse, error) {
	return &taskv1.DescribeResponse{SealingKey: "key"}, r.next()
}

func (r *replicas) WatchTask(_ *taskv1.WatchTaskRequest, s grpc.ServerStreamingServer[taskv1.WatchTaskResponse]) error {
	if err := r.next(); err != nil {
		return err
	}
	say := func(state string, revision uint64) error {
		return s.Send(&taskv1.WatchTaskResponse{Task: &taskv1.Task{State: state, Revision: revision}})
	}
	if err := say("RUNNING", 1); err != nil {
		return err
	}
	r.mu.Lock()
	r.ends--
	ended := r.ends >= 0
	r.mu.Unlock()
	if ended {
		return fault.Unavailable(fault.ReasonShuttingDown, "the stream has stood for as long as one may")
	}
	return say("COMPLETED", 2)
}

func client(t *testing.T, r *replicas) *Client {
	cc := grpctest.Start(t, func(s *rpc.Server) { taskv1.RegisterTaskServiceServer(s, r) })
	return &Client{api: taskv1.NewTaskServiceClient(cc)}
}

func TestCallsComeToTheLeader(t *testing.T) {
	r := &replicas{others: 5}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if d, err := client(t, r).Describe(ctx); err != nil || d.GetSealingKey() != "key" || r.calls != 6 {
		t.Errorf("Describe = %v, %v after %d calls", d, err, r.calls)
	}
	r = &replicas{others: 1 << 30}
	short, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := client(t, r).Describe(short); fault.From(err).Code.String() != "Unavailable" || r.calls < 2 {
		t.Errorf("without a leader: %v after %d calls", err, r.calls)
	}
}

func TestAWatchGoesOnAtAnotherReplica(t *testing.T) {
	r := &replicas{others: 3, ends: 4}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var states []string
	err := client(t, r).Watch(ctx, "task", func(task *taskv1.Task) error {
		states = append(states, task.GetState())
		return nil
	})
	if err != nil || len(states) != 2 || states[0] != "RUNNING" || states[1] != "COMPLETED" || r.calls != 8 {
		t.Errorf("Watch = %v, %v after %d calls", states, err, r.calls)
	}
	gone := errors.New("the user has gone")
	if err := client(t, &replicas{}).Watch(ctx, "task", func(*taskv1.Task) error { return gone }); !errors.Is(err, gone) {
		t.Errorf("Watch for nobody = %v", err)
	}
}
