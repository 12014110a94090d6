package fake

import (
	"context"
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/shallot-net/shallot/kit/fault"
	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
)

func (t *Task) notFound(id string) error {
	return fault.NotFound("TASK_NOT_FOUND", "there is no task %s", id)
}

// GetTask is of the contract.
func (t *Task) GetTask(_ context.Context, r *taskv1.GetTaskRequest) (*taskv1.GetTaskResponse, error) {
	if _, err := t.alive(); err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	x := t.tasks[r.GetTaskId()]
	if x == nil {
		return nil, t.notFound(r.GetTaskId())
	}
	return &taskv1.GetTaskResponse{Task: proto.CloneOf(x)}, nil
}

// ListTasks is of the contract, without filters.
func (t *Task) ListTasks(context.Context, *taskv1.ListTasksRequest) (*taskv1.ListTasksResponse, error) {
	if _, err := t.alive(); err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	out := &taskv1.ListTasksResponse{}
	for id := range t.tasks {
		out.Tasks = append(out.Tasks, t.viewLocked(id))
	}
	return out, nil
}

// CancelTask is of the contract.
func (t *Task) CancelTask(_ context.Context, r *taskv1.CancelTaskRequest) (*taskv1.CancelTaskResponse, error) {
	t.mu.Lock()
	x := t.tasks[r.GetTaskId()]
	if x == nil {
		t.mu.Unlock()
		return nil, t.notFound(r.GetTaskId())
	}
	delete(t.pending, r.GetTaskId())
	v := t.changeLocked(r.GetTaskId(), "CANCELLED", "CANCELLED", "", "")
	t.mu.Unlock()
	t.push(&taskv1.SessionResponse{Task: v})
	return &taskv1.CancelTaskResponse{Task: v}, nil
}

// WatchTask is of the contract.
func (t *Task) WatchTask(r *taskv1.WatchTaskRequest, out grpc.ServerStreamingServer[taskv1.WatchTaskResponse]) error {
	w := make(chan *taskv1.Task, 64)
	t.mu.Lock()
	if t.tasks[r.GetTaskId()] == nil {
		t.mu.Unlock()
		return t.notFound(r.GetTaskId())
	}
	w <- t.viewLocked(r.GetTaskId())
	t.watchers[w] = r.GetTaskId()
	t.mu.Unlock()
	defer func() {
		t.mu.Lock()
		delete(t.watchers, w)
		t.mu.Unlock()
	}()
	for {
		select {
		case <-out.Context().Done():
			return context.Cause(out.Context())
		case v := <-w:
			if err := out.Send(&taskv1.WatchTaskResponse{Task: v}); err != nil || v.GetState() == "COMPLETED" || v.GetState() == "CANCELLED" {
				return err
			}
		}
	}
}

// GetPlacement is of the contract: each choice that node has told of, as an attempt.
func (t *Task) GetPlacement(_ context.Context, r *taskv1.GetPlacementRequest) (*taskv1.GetPlacementResponse, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.tasks[r.GetTaskId()] == nil {
		return nil, t.notFound(r.GetTaskId())
	}
	m := &taskv1.GetPlacementResponse{}
	for i, c := range t.choices[r.GetTaskId()] {
		a := &taskv1.PlacementAttempt{Attempt: uint32(i) + 1, ChosenBecause: c.GetBecause(), Considered: c.GetConsidered(), Known: c.GetKnown(), Qualified: c.GetQualified()}
		for _, x := range c.GetConsidered() {
			if x.GetVerdict() == "CHOSEN" {
				a.PeerId = x.GetPeerId()
			}
		}
		m.Attempts = append(m.Attempts, a)
	}
	return m, nil
}

// WatchTasks is of the contract, without its filters and its intervals.
func (t *Task) WatchTasks(_ *taskv1.WatchTasksRequest, out grpc.ServerStreamingServer[taskv1.WatchTasksResponse]) error {
	ctx, cancel, err := t.during(out.Context())
	if err != nil {
		return err
	}
	defer cancel()
	w := make(chan *taskv1.Task, 64)
	t.mu.Lock()
	t.watchers[w] = ""
	t.mu.Unlock()
	defer func() {
		t.mu.Lock()
		delete(t.watchers, w)
		t.mu.Unlock()
	}()
	if err := out.Send(&taskv1.WatchTasksResponse{Response: &taskv1.WatchTasksResponse_Missed{Missed: true}}); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case v := <-w:
			if err := out.Send(&taskv1.WatchTasksResponse{Response: &taskv1.WatchTasksResponse_Task{Task: v}}); err != nil {
				return err
			}
		}
	}
}

// GetResult is of the contract, for stdout.
func (t *Task) GetResult(r *taskv1.GetResultRequest, out grpc.ServerStreamingServer[taskv1.GetResultResponse]) error {
	t.mu.Lock()
	b, ok := t.stdout[r.GetTaskId()]
	there := t.tasks[r.GetTaskId()] != nil
	t.mu.Unlock()
	if !there {
		return t.notFound(r.GetTaskId())
	}
	if !ok {
		return fault.FailedPrecondition("TASK_NOT_DONE", "the task has no result yet")
	}
	if err := out.Send(&taskv1.GetResultResponse{Response: &taskv1.GetResultResponse_Size{Size: uint64(len(b))}}); err != nil {
		return err
	}
	for part := range slices.Chunk(b[min(int(r.GetOffset()), len(b)):], 32<<10) {
		if err := out.Send(&taskv1.GetResultResponse{Response: &taskv1.GetResultResponse_Data{Data: part}}); err != nil {
			return err
		}
	}
	return nil
}

// GetLogs is of the contract: every task says the same.
func (t *Task) GetLogs(r *taskv1.GetLogsRequest, out grpc.ServerStreamingServer[taskv1.GetLogsResponse]) error {
	t.mu.Lock()
	there := t.tasks[r.GetTaskId()] != nil
	t.mu.Unlock()
	if !there {
		return t.notFound(r.GetTaskId())
	}
	return out.Send(&taskv1.GetLogsResponse{Data: []byte("log of " + r.GetTaskId())})
}

// Upload is of the contract; the id is the size.
func (t *Task) Upload(in grpc.ClientStreamingServer[taskv1.UploadRequest, taskv1.UploadResponse]) error {
	n := 0
	for {
		r, err := in.Recv()
		if err != nil {
			break
		}
		n += len(r.GetData())
	}
	return in.SendAndClose(&taskv1.UploadResponse{UploadId: fmt.Sprint(n), Size: uint64(n)})
}

// Capability of a fake provider.
func Capability(typ string) *eventv1.Capability {
	return &eventv1.Capability{Type: typ, Version: "1", MaxLimits: &eventv1.Limits{Time: durationpb.New(time.Minute), Memory: 1 << 30, Output: 1 << 30}}
}

// Describe is of the contract.
func (t *Task) Describe(context.Context, *taskv1.DescribeRequest) (*taskv1.DescribeResponse, error) {
	if _, err := t.alive(); err != nil {
		return nil, err
	}
	if t.Role != "provider" {
		return &taskv1.DescribeResponse{Role: t.Role}, nil
	}
	return &taskv1.DescribeResponse{Role: t.Role, Capabilities: []*eventv1.Capability{Capability("sum")}, SealingKey: "age1pq1fakefakefakefake", Evaluator: "two-choices", CandidatesWanted: 2}, nil
}

// SetQueue changes the figures that WatchQueue gives.
func (t *Task) SetQueue(q *eventv1.Queue) { t.queue <- q }

// WatchQueue is of the contract.
func (t *Task) WatchQueue(_ *taskv1.WatchQueueRequest, out grpc.ServerStreamingServer[taskv1.WatchQueueResponse]) error {
	ctx, cancel, err := t.during(out.Context())
	if err != nil {
		return err
	}
	defer cancel()
	q := &eventv1.Queue{Slots: 4, Capacity: 100}
	for {
		if err := out.Send(&taskv1.WatchQueueResponse{Queue: q}); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case q = <-t.queue:
		}
	}
}

// Stats are what happened.
type Stats struct {
	Created, Executed, Outbox int
	Online                    []bool
	Delivered                 []*taskv1.DeliverEvent
}

// Stats says what happened.
func (t *Task) Stats() Stats {
	t.mu.Lock()
	defer t.mu.Unlock()
	return Stats{t.created, t.executed, len(t.outbox), slices.Clone(t.online), slices.Clone(t.delivered)}
}

// Find is a task as it is, with its history; nil when there is none.
func (t *Task) Find(id string) *taskv1.Task {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.tasks[id] == nil {
		return nil
	}
	return proto.CloneOf(t.tasks[id])
}
