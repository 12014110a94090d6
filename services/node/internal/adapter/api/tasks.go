package api

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"

	"github.com/shallot-net/shallot/kit/fault"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
)

// Upload keeps a body for a later task.
func (s *Service) Upload(in grpc.ClientStreamingServer[nodev1.UploadRequest, nodev1.UploadResponse]) error {
	ctx, cancel := context.WithCancel(in.Context())
	defer cancel() // a caller that goes away leaves nothing behind
	out, err := s.cfg.Tasks.Upload(ctx)
	if err != nil {
		return err
	}
	for {
		m, err := in.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if err := checkPiece(m.GetData()); err != nil {
			return err
		}
		if err := out.Send(&taskv1.UploadRequest{Data: m.GetData()}); err != nil {
			break // the answer says why
		}
	}
	r, err := out.CloseAndRecv()
	if err != nil {
		return err
	}
	return in.SendAndClose(&nodev1.UploadResponse{UploadId: r.GetUploadId(), Size: r.GetSize(), Sha256: r.GetSha256()})
}

// SubmitTask makes a task.
func (s *Service) SubmitTask(ctx context.Context, in *nodev1.SubmitTaskRequest) (*nodev1.SubmitTaskResponse, error) {
	t, err := s.cfg.Submitter.Submit(ctx, in.GetRequestId(), in.GetSpec())
	if err != nil {
		return nil, err
	}
	return &nodev1.SubmitTaskResponse{Task: t}, nil
}

// RunTask makes a task, follows it, and ends with its stdout.
func (s *Service) RunTask(in *nodev1.RunTaskRequest, out grpc.ServerStreamingServer[nodev1.RunTaskResponse]) error {
	return s.cfg.Submitter.Run(out.Context(), in.GetRequestId(), in.GetSpec(),
		func(t *taskv1.Task) error {
			return out.Send(&nodev1.RunTaskResponse{Response: &nodev1.RunTaskResponse_Task{Task: t}})
		},
		func(b []byte) error {
			return out.Send(&nodev1.RunTaskResponse{Response: &nodev1.RunTaskResponse_Stdout{Stdout: b}})
		})
}

// GetTask returns a task with its history.
func (s *Service) GetTask(ctx context.Context, in *nodev1.GetTaskRequest) (*nodev1.GetTaskResponse, error) {
	if err := s.checkTaskID(ctx, in.GetTaskId()); err != nil {
		return nil, err
	}
	r, err := s.cfg.Tasks.GetTask(ctx, &taskv1.GetTaskRequest{TaskId: in.GetTaskId()})
	if err != nil {
		return nil, s.taskError(ctx, in.GetTaskId(), err)
	}
	return &nodev1.GetTaskResponse{Task: r.GetTask()}, nil
}

// GetPlacement says why a task is where it is.
func (s *Service) GetPlacement(ctx context.Context, in *nodev1.GetPlacementRequest) (*nodev1.GetPlacementResponse, error) {
	if err := s.checkTaskID(ctx, in.GetTaskId()); err != nil {
		return nil, err
	}
	r, err := s.cfg.Tasks.GetPlacement(ctx, &taskv1.GetPlacementRequest{TaskId: in.GetTaskId()})
	if err != nil {
		return nil, s.taskError(ctx, in.GetTaskId(), err)
	}
	return &nodev1.GetPlacementResponse{Attempts: r.GetAttempts()}, nil
}

var taskStates = []string{"PENDING", "SUBMITTED", "ACCEPTED", "RUNNING", "COMPLETED", "FAILED", "CANCELLED", "EXPIRED"}

// ListTasks returns tasks, newest first.
func (s *Service) ListTasks(ctx context.Context, in *nodev1.ListTasksRequest) (*nodev1.ListTasksResponse, error) {
	if err := checkPage(in.GetPageSize()); err != nil {
		return nil, err
	}
	for i, st := range in.GetStates() {
		if err := oneOf("states", i, st, taskStates); err != nil {
			return nil, err
		}
	}
	r, err := s.cfg.Tasks.ListTasks(ctx, &taskv1.ListTasksRequest{States: in.GetStates(), Type: in.GetType(), CreatedAfter: in.GetCreatedAfter(),
		CreatedBefore: in.GetCreatedBefore(), Text: in.GetText(), PageSize: in.GetPageSize(), PageToken: in.GetPageToken()})
	if err != nil {
		return nil, err
	}
	return &nodev1.ListTasksResponse{Tasks: r.GetTasks(), NextPageToken: r.GetNextPageToken()}, nil
}

func oneOf(field string, i int, v string, known []string) error {
	for _, k := range known {
		if v == k {
			return nil
		}
	}
	return fault.InvalidArgument("VALUE_UNKNOWN", "%s[%d] is %q, which is none of %v%s", field, i, shown(v), known, near(v, known))
}

// WatchTask streams a task now and after every change, until a terminal state.
func (s *Service) WatchTask(in *nodev1.WatchTaskRequest, out grpc.ServerStreamingServer[nodev1.WatchTaskResponse]) error {
	ctx := out.Context()
	if err := s.checkTaskID(ctx, in.GetTaskId()); err != nil {
		return err
	}
	err := s.cfg.Watcher.Watch(ctx, in.GetTaskId(), func(t *taskv1.Task) error { return out.Send(&nodev1.WatchTaskResponse{Task: t}) })
	return s.taskError(ctx, in.GetTaskId(), err)
}

// WatchTasks streams every task that changes.
func (s *Service) WatchTasks(in *nodev1.WatchTasksRequest, out grpc.ServerStreamingServer[nodev1.WatchTasksResponse]) error {
	return s.cfg.Feed.WatchTasks(out.Context(), &taskv1.WatchTasksRequest{Type: in.GetType(), Text: in.GetText()}, func(m *taskv1.WatchTasksResponse) error {
		r := &nodev1.WatchTasksResponse{}
		switch x := m.GetResponse().(type) {
		case *taskv1.WatchTasksResponse_Task:
			r.Response = &nodev1.WatchTasksResponse_Task{Task: x.Task}
		case *taskv1.WatchTasksResponse_Missed:
			r.Response = &nodev1.WatchTasksResponse_Missed{Missed: x.Missed}
		default: // of a newer release
			return nil
		}
		return out.Send(r)
	})
}

// CancelTask asks for the end of a task.
func (s *Service) CancelTask(ctx context.Context, in *nodev1.CancelTaskRequest) (*nodev1.CancelTaskResponse, error) {
	if err := s.checkTaskID(ctx, in.GetTaskId()); err != nil {
		return nil, err
	}
	r, err := s.cfg.Tasks.CancelTask(ctx, &taskv1.CancelTaskRequest{TaskId: in.GetTaskId()})
	if err != nil {
		return nil, s.taskError(ctx, in.GetTaskId(), err)
	}
	return &nodev1.CancelTaskResponse{Task: r.GetTask()}, nil
}

// GetResult streams one body of a result.
func (s *Service) GetResult(in *nodev1.GetResultRequest, out grpc.ServerStreamingServer[nodev1.GetResultResponse]) error {
	ctx := out.Context()
	if err := s.checkTaskID(ctx, in.GetTaskId()); err != nil {
		return err
	}
	err := s.cfg.Bodies.ReadResult(ctx, in.GetTaskId(), in.GetBody(), in.GetOffset(),
		func(n uint64) error {
			return out.Send(&nodev1.GetResultResponse{Response: &nodev1.GetResultResponse_Size{Size: n}})
		},
		func(b []byte) error {
			return out.Send(&nodev1.GetResultResponse{Response: &nodev1.GetResultResponse_Data{Data: b}})
		})
	return s.bodyError(ctx, in.GetTaskId(), err)
}

// bodyError: a task that is there may lack the body that was named.
func (s *Service) bodyError(ctx context.Context, id string, err error) error {
	if f := fault.From(err); f != nil && f.Reason != "TASK_NOT_FOUND" && f.Reason != "NOT_FOUND" {
		return err
	}
	return s.taskError(ctx, id, err)
}

// GetLogs streams stderr.
func (s *Service) GetLogs(in *nodev1.GetLogsRequest, out grpc.ServerStreamingServer[nodev1.GetLogsResponse]) error {
	if err := s.checkTaskID(out.Context(), in.GetTaskId()); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(out.Context())
	defer cancel()
	from, err := s.cfg.Tasks.GetLogs(ctx, &taskv1.GetLogsRequest{TaskId: in.GetTaskId(), Follow: in.GetFollow(), Offset: in.GetOffset()})
	if err == nil {
		err = forward(from, func(m *taskv1.GetLogsResponse) error { return out.Send(&nodev1.GetLogsResponse{Data: m.GetData()}) })
	}
	return s.bodyError(ctx, in.GetTaskId(), err)
}
