package grpcserver

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc"

	"github.com/shallot-net/shallot/kit/fault"
	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
	"github.com/shallot-net/shallot/services/task/internal/adapter/wire"
	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// Describe implements shallot.task.v1.
func (s *Service) Describe(context.Context, *taskv1.DescribeRequest) (*taskv1.DescribeResponse, error) {
	if s.cfg.Provider == nil {
		return &taskv1.DescribeResponse{Role: "consumer"}, nil
	}
	if err := s.leading(); err != nil { // what strangers pay, and the queue, only that one knows
		return nil, err
	}
	caps, key, evaluator, wants := s.cfg.Provider.Describe()
	m := &taskv1.DescribeResponse{Role: "provider", SealingKey: key, Evaluator: evaluator, CandidatesWanted: uint32(wants), Queue: toQueue(s.cfg.Provider.Queue()),
		Puzzle: wire.Puzzle(s.cfg.Provider.Puzzle())}
	for _, c := range caps {
		m.Capabilities = append(m.Capabilities, &eventv1.Capability{Type: c.Type, Version: c.Version, Attributes: c.Attributes, MaxLimits: wire.Limits(domain.Limits(c.MaxLimits))})
	}
	return m, nil
}

func toQueue(q domain.Queue) *eventv1.Queue {
	return &eventv1.Queue{Pending: uint32(q.Pending), Running: uint32(q.Running), Slots: uint32(q.Slots), Capacity: uint32(q.Capacity)}
}

// queueInterval keeps WatchQueue at ten answers a second.
const queueInterval = 100 * time.Millisecond

// WatchQueue implements shallot.task.v1.
func (s *Service) WatchQueue(_ *taskv1.WatchQueueRequest, stream grpc.ServerStreamingServer[taskv1.WatchQueueResponse]) error {
	if s.cfg.Provider == nil {
		return onlyAt("provider")
	}
	if err := s.leading(); err != nil {
		return err
	}
	news, stop := s.cfg.Provider.WatchQueue()
	defer stop()
	ctx := stream.Context()
	pause := time.NewTimer(0)
	defer pause.Stop()
	<-pause.C
	last, described := domain.Queue{Slots: -1}, uint64(0)
	for {
		if err := s.leading(); err != nil { // it does not any more: the caller finds who does
			return err
		}
		if q, d := s.cfg.Provider.Queue(), s.cfg.Provider.Description(); q != last || d != described {
			last, described = q, d
			if err := stream.Send(&taskv1.WatchQueueResponse{Queue: toQueue(q), Description: d}); err != nil {
				return err
			}
			pause.Reset(queueInterval)
			select {
			case <-pause.C:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		select {
		case <-news:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// GetTask implements shallot.task.v1.
func (s *Service) GetTask(ctx context.Context, r *taskv1.GetTaskRequest) (*taskv1.GetTaskResponse, error) {
	v, err := s.get(ctx, r.GetTaskId())
	if err != nil {
		return nil, err
	}
	return &taskv1.GetTaskResponse{Task: toTask(&v, true)}, nil
}

func (s *Service) get(ctx context.Context, id string) (app.TaskView, error) {
	if !domain.ValidID(id) {
		return app.TaskView{}, fault.NotFound("TASK_NOT_FOUND", "there is no task %q: a task id has 32 lowercase hex digits", cut(id)).With("task_id", cut(id))
	}
	return s.cfg.Reader.Get(ctx, id)
}

// WatchTask implements shallot.task.v1.
func (s *Service) WatchTask(r *taskv1.WatchTaskRequest, stream grpc.ServerStreamingServer[taskv1.WatchTaskResponse]) error {
	if err := s.leading(); err != nil { // it hears of every change
		return err
	}
	ctx := stream.Context()
	news, stop := s.cfg.Reader.Watch(r.GetTaskId())
	defer stop()
	for first, last := true, uint64(0); ; first = false {
		v, err := s.get(ctx, r.GetTaskId())
		if err != nil {
			return err
		}
		if first || v.Revision != last {
			last = v.Revision
			if err := stream.Send(&taskv1.WatchTaskResponse{Task: toTask(&v, false)}); err != nil {
				return err
			}
		}
		if v.State.Terminal() {
			return nil
		}
		select {
		case <-news:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Bounds of lists.
const (
	defaultPage = 50
	maxPage     = 1000
	maxText     = 256
)

// ListTasks implements shallot.task.v1.
func (s *Service) ListTasks(ctx context.Context, r *taskv1.ListTasksRequest) (*taskv1.ListTasksResponse, error) {
	f, err := s.filter(r)
	if err != nil {
		return nil, err
	}
	limit := f.Limit
	f.Limit++ // one more tells whether there is another page
	views, err := s.cfg.Reader.List(ctx, f)
	if err != nil {
		return nil, err
	}
	m := &taskv1.ListTasksResponse{}
	if len(views) > limit {
		views = views[:limit]
		last := views[limit-1]
		m.NextPageToken = s.tokens.make(filters(r), app.Cursor{At: last.CreatedAt, ID: last.ID})
	}
	for i := range views {
		m.Tasks = append(m.Tasks, toTask(&views[i], false))
	}
	return m, nil
}

func (s *Service) filter(r *taskv1.ListTasksRequest) (app.TaskFilter, error) {
	f := app.TaskFilter{Type: r.GetType(), CreatedAfter: fromTimestamp(r.GetCreatedAfter()), CreatedBefore: fromTimestamp(r.GetCreatedBefore()), Text: r.GetText()}
	var err error
	if f.States, err = statesOf(r.GetStates(), domain.States); err != nil {
		return f, err
	}
	if len(f.Text) > maxText {
		return f, fault.InvalidArgument("FILTER_INVALID", "text has %d bytes: it may have %d", len(f.Text), maxText)
	}
	f.Limit = pageSize(r.GetPageSize())
	f.After, err = s.tokens.cursor(filters(r), r.GetPageToken())
	return f, err
}

// filters are what a page token belongs to.
func filters(r *taskv1.ListTasksRequest) []string {
	return append([]string{r.GetType(), r.GetText(), r.GetCreatedAfter().String(), r.GetCreatedBefore().String()}, r.GetStates()...)
}

// CancelTask implements shallot.task.v1.
func (s *Service) CancelTask(ctx context.Context, r *taskv1.CancelTaskRequest) (*taskv1.CancelTaskResponse, error) {
	if s.cfg.Consumer == nil {
		return nil, onlyAt("consumer")
	}
	if _, err := s.get(ctx, r.GetTaskId()); err != nil {
		return nil, err
	}
	reply, err := s.cfg.Consumer.Cancel(ctx, r.GetTaskId())
	if err != nil {
		return nil, err
	}
	s.sessions.Push(ctx, reply)
	return &taskv1.CancelTaskResponse{Task: toTask(reply.Task, false)}, nil
}

// chunk is how much of a body one message carries, in bytes.
const chunk = 64 << 10

// GetResult implements shallot.task.v1.
func (s *Service) GetResult(r *taskv1.GetResultRequest, stream grpc.ServerStreamingServer[taskv1.GetResultResponse]) error {
	if s.cfg.Consumer == nil {
		return onlyAt("consumer")
	}
	name := r.GetBody()
	if name == "" {
		name = "stdout"
	}
	if _, err := s.get(stream.Context(), r.GetTaskId()); err != nil {
		return err
	}
	body, err := s.cfg.Consumer.Result(stream.Context(), r.GetTaskId(), name)
	if err != nil {
		return err
	}
	defer body.Close()
	if r.GetOffset() > uint64(body.Size) {
		return fault.InvalidArgument("OFFSET_INVALID", "offset is %d and %s has %d bytes", r.GetOffset(), cut(name), body.Size)
	}
	if _, err := body.Seek(int64(r.GetOffset()), io.SeekStart); err != nil {
		return err
	}
	if err := stream.Send(&taskv1.GetResultResponse{Response: &taskv1.GetResultResponse_Size{Size: uint64(body.Size)}}); err != nil {
		return err
	}
	for left := body.Size - int64(r.GetOffset()); left > 0; {
		b := make([]byte, min(left, chunk)) // its own for each message: gRPC may still read it
		if _, err := io.ReadFull(body, b); err != nil {
			return err
		}
		left -= int64(len(b))
		if err := stream.Send(&taskv1.GetResultResponse{Response: &taskv1.GetResultResponse_Data{Data: b}}); err != nil {
			return err
		}
	}
	return nil
}

// GetLogs implements shallot.task.v1.
func (s *Service) GetLogs(r *taskv1.GetLogsRequest, stream grpc.ServerStreamingServer[taskv1.GetLogsResponse]) error {
	if s.cfg.Consumer == nil {
		return onlyAt("consumer")
	}
	ctx := stream.Context()
	if _, err := s.get(ctx, r.GetTaskId()); err != nil {
		return err
	}
	news, stop := s.cfg.Reader.Watch(r.GetTaskId())
	defer stop()
	offset := int64(min(r.GetOffset(), 1<<62))
	for {
		b := make([]byte, chunk)
		n, next, ended, err := s.cfg.Consumer.ReadLog(ctx, r.GetTaskId(), offset, b)
		if err != nil {
			return err
		}
		if offset = next; n > 0 {
			if err := stream.Send(&taskv1.GetLogsResponse{Data: b[:n]}); err != nil {
				return err
			}
			continue
		}
		if ended || !r.GetFollow() {
			return nil
		}
		select {
		case <-news:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// maxUpload is how much of one upload is taken, in bytes.
const maxUpload = 4 << 30

// Upload implements shallot.task.v1.
func (s *Service) Upload(stream grpc.ClientStreamingServer[taskv1.UploadRequest, taskv1.UploadResponse]) error {
	if s.cfg.Uploads == nil {
		return onlyAt("consumer")
	}
	up, err := s.cfg.Uploads.Create()
	if err != nil {
		return err
	}
	defer up.Drop()
	total := int64(0)
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if len(m.GetData()) > 1<<20 {
			return fault.InvalidArgument("CHUNK_TOO_LARGE", "a message carries %d bytes: 1 MiB is possible", len(m.GetData()))
		}
		if total += int64(len(m.GetData())); total > maxUpload {
			return fault.ResourceExhausted("UPLOAD_TOO_LARGE", "the upload has more than %s", domain.Bytes(maxUpload))
		}
		if _, err := up.Write(m.GetData()); err != nil {
			return err
		}
	}
	id, size, sum, err := up.Keep()
	if err != nil {
		return err
	}
	return stream.SendAndClose(&taskv1.UploadResponse{UploadId: id, Size: uint64(size), Sha256: domain.Hash(sum).String()})
}
