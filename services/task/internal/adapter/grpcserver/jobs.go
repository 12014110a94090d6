package grpcserver

import (
	"context"
	"io"
	"time"

	"google.golang.org/grpc"

	"github.com/shallot-net/shallot/kit/fault"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
	"github.com/shallot-net/shallot/services/task/internal/adapter/wire"
	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// Jobs is what a consumer does with jobs.
type Jobs interface {
	CreateJob(ctx context.Context, n app.NewJob) (v app.JobView, existed bool, err error)
	AddShards(ctx context.Context, id string, shards []app.NewShard) (app.JobView, error)
	GetJob(ctx context.Context, id string) (app.JobView, error)
	ListJobs(ctx context.Context, f app.JobFilter) ([]app.JobView, error)
	ListShards(ctx context.Context, id string, f app.ShardFilter) ([]*domain.Shard, error)
	EndedShards(ctx context.Context, id string, after uint64, limit int) ([]*domain.Shard, error)
	WatchJob(id string) (<-chan struct{}, func())
	PauseJob(ctx context.Context, id string) (app.JobView, error)
	ResumeJob(ctx context.Context, id string) (app.JobView, error)
	CancelJob(ctx context.Context, id string) (app.JobView, error)
	Result(ctx context.Context, id, name string) (*app.Body, error)
}

// JobService implements shallot.task.v1's JobService.
type JobService struct {
	taskv1.UnimplementedJobServiceServer
	jobs   Jobs // nil on a provider
	tokens tokens
}

// NewJobs makes one; jobs is nil on a provider. pageKey is as in Config.
func NewJobs(jobs Jobs, pageKey []byte) *JobService {
	return &JobService{jobs: jobs, tokens: newTokens(pageKey)}
}

// Register serves it.
func (s *JobService) Register(r grpc.ServiceRegistrar) { taskv1.RegisterJobServiceServer(r, s) }

// CreateJob implements shallot.task.v1.
func (s *JobService) CreateJob(ctx context.Context, r *taskv1.CreateJobRequest) (*taskv1.CreateJobResponse, error) {
	if s.jobs == nil {
		return nil, onlyAt("consumer")
	}
	in := r.GetSpec()
	spec, err := fromSpec(in.GetTask())
	if err != nil {
		return nil, err
	}
	v, existed, err := s.jobs.CreateJob(ctx, app.NewJob{RequestID: r.GetRequestId(), Name: in.GetName(), Spec: spec, InputPath: in.GetInputPath(), Total: in.GetTotal(),
		Parallel: in.GetParallel(), Hedge: in.GetHedge(), Personas: in.GetPersonas()})
	if err != nil {
		return nil, err
	}
	return &taskv1.CreateJobResponse{Job: toJob(&v), Existed: existed}, nil
}

// AddShards implements shallot.task.v1.
func (s *JobService) AddShards(ctx context.Context, r *taskv1.AddShardsRequest) (*taskv1.AddShardsResponse, error) {
	shards := make([]app.NewShard, len(r.GetShards()))
	for i, n := range r.GetShards() {
		shards[i] = app.NewShard{Index: n.GetIndex(), Name: n.GetName(), Content: part("", n.GetContent())}
	}
	j, err := s.answer(r.GetJobId(), func() (app.JobView, error) { return s.jobs.AddShards(ctx, r.GetJobId(), shards) })
	return &taskv1.AddShardsResponse{Job: j}, err
}

// GetJob implements shallot.task.v1.
func (s *JobService) GetJob(ctx context.Context, r *taskv1.GetJobRequest) (*taskv1.GetJobResponse, error) {
	j, err := s.answer(r.GetJobId(), func() (app.JobView, error) { return s.jobs.GetJob(ctx, r.GetJobId()) })
	return &taskv1.GetJobResponse{Job: j}, err
}

// PauseJob implements shallot.task.v1.
func (s *JobService) PauseJob(ctx context.Context, r *taskv1.PauseJobRequest) (*taskv1.PauseJobResponse, error) {
	j, err := s.answer(r.GetJobId(), func() (app.JobView, error) { return s.jobs.PauseJob(ctx, r.GetJobId()) })
	return &taskv1.PauseJobResponse{Job: j}, err
}

// ResumeJob implements shallot.task.v1.
func (s *JobService) ResumeJob(ctx context.Context, r *taskv1.ResumeJobRequest) (*taskv1.ResumeJobResponse, error) {
	j, err := s.answer(r.GetJobId(), func() (app.JobView, error) { return s.jobs.ResumeJob(ctx, r.GetJobId()) })
	return &taskv1.ResumeJobResponse{Job: j}, err
}

// CancelJob implements shallot.task.v1.
func (s *JobService) CancelJob(ctx context.Context, r *taskv1.CancelJobRequest) (*taskv1.CancelJobResponse, error) {
	j, err := s.answer(r.GetJobId(), func() (app.JobView, error) { return s.jobs.CancelJob(ctx, r.GetJobId()) })
	return &taskv1.CancelJobResponse{Job: j}, err
}

func (s *JobService) check(id string) error {
	if s.jobs == nil {
		return onlyAt("consumer")
	}
	if !domain.ValidID(id) {
		return fault.NotFound("JOB_NOT_FOUND", "there is no job %q: a job id has 32 lowercase hex digits", cut(id)).With("job_id", cut(id))
	}
	return nil
}

func (s *JobService) answer(id string, do func() (app.JobView, error)) (*taskv1.Job, error) {
	if err := s.check(id); err != nil {
		return nil, err
	}
	v, err := do()
	if err != nil {
		return nil, err
	}
	return toJob(&v), nil
}

// ListJobs implements shallot.task.v1.
func (s *JobService) ListJobs(ctx context.Context, r *taskv1.ListJobsRequest) (*taskv1.ListJobsResponse, error) {
	if s.jobs == nil {
		return nil, onlyAt("consumer")
	}
	states, err := statesOf(r.GetStates(), domain.JobStates)
	if err != nil {
		return nil, err
	}
	limit := pageSize(r.GetPageSize())
	f := app.JobFilter{States: states, Limit: limit + 1}
	if f.After, err = s.tokens.cursor(r.GetStates(), r.GetPageToken()); err != nil {
		return nil, err
	}
	views, err := s.jobs.ListJobs(ctx, f)
	if err != nil {
		return nil, err
	}
	m := &taskv1.ListJobsResponse{}
	if len(views) > limit {
		views = views[:limit]
		m.NextPageToken = s.tokens.make(r.GetStates(), app.Cursor{At: views[limit-1].CreatedAt, ID: views[limit-1].ID})
	}
	for i := range views {
		m.Jobs = append(m.Jobs, toJob(&views[i]))
	}
	return m, nil
}

// ListShards implements shallot.task.v1.
func (s *JobService) ListShards(ctx context.Context, r *taskv1.ListShardsRequest) (*taskv1.ListShardsResponse, error) {
	if _, err := s.answer(r.GetJobId(), func() (app.JobView, error) { return s.jobs.GetJob(ctx, r.GetJobId()) }); err != nil {
		return nil, err
	}
	states, err := statesOf(r.GetStates(), domain.ShardStates)
	if err != nil {
		return nil, err
	}
	limit := pageSize(r.GetPageSize())
	f := app.ShardFilter{States: states, Limit: limit + 1}
	filters := append([]string{r.GetJobId()}, r.GetStates()...)
	c, err := s.tokens.cursor(filters, r.GetPageToken())
	if err != nil {
		return nil, err
	}
	if !c.At.IsZero() {
		f.From = uint32(c.At.UnixMicro())
	}
	shards, err := s.jobs.ListShards(ctx, r.GetJobId(), f)
	if err != nil {
		return nil, err
	}
	m := &taskv1.ListShardsResponse{}
	if len(shards) > limit {
		m.NextPageToken = s.tokens.make(filters, app.Cursor{At: time.UnixMicro(int64(shards[limit].Index))})
		shards = shards[:limit]
	}
	for _, sh := range shards {
		m.Shards = append(m.Shards, toShard(sh))
	}
	return m, nil
}

// watchInterval keeps WatchJob at ten rounds a second, so that a job of many short shards is told in handfuls.
const watchInterval = 100 * time.Millisecond

// WatchJob implements shallot.task.v1.
func (s *JobService) WatchJob(r *taskv1.WatchJobRequest, stream grpc.ServerStreamingServer[taskv1.WatchJobResponse]) error {
	if err := s.check(r.GetJobId()); err != nil {
		return err
	}
	ctx := stream.Context()
	news, stop := s.jobs.WatchJob(r.GetJobId())
	defer stop()
	pause := time.NewTicker(watchInterval)
	defer pause.Stop()
	after := r.GetAfter()
	var last app.JobView
	for {
		v, err := s.jobs.GetJob(ctx, r.GetJobId()) // before its shards: when it is over, so are they
		if err != nil {
			return err
		}
		if after, err = s.tellEnded(stream, r, after); err != nil {
			return err
		}
		if v != last {
			last = v
			if err := stream.Send(&taskv1.WatchJobResponse{Response: &taskv1.WatchJobResponse_Job{Job: toJob(&v)}}); err != nil {
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
		select {
		case <-pause.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// tellEnded sends the shards that have ended meanwhile, and returns the place of the last.
func (s *JobService) tellEnded(stream grpc.ServerStreamingServer[taskv1.WatchJobResponse], r *taskv1.WatchJobRequest, after uint64) (uint64, error) {
	const page = 256
	for {
		shards, err := s.jobs.EndedShards(stream.Context(), r.GetJobId(), after, page)
		if err != nil {
			return after, err
		}
		for _, sh := range shards {
			m := &taskv1.EndedShard{Shard: toShard(sh)}
			if r.GetStdout() && sh.State == domain.ShardCompleted && sh.Stdout.Size <= chunk {
				m.Stdout = s.stdout(stream.Context(), sh)
			}
			if err := stream.Send(&taskv1.WatchJobResponse{Response: &taskv1.WatchJobResponse_Shard{Shard: m}}); err != nil {
				return after, err
			}
			after = sh.Ended
		}
		if len(shards) < page {
			return after, nil
		}
	}
}

// stdout is nil where it cannot be read: GetResult says why.
func (s *JobService) stdout(ctx context.Context, sh *domain.Shard) []byte {
	body, err := s.jobs.Result(ctx, sh.TaskID, "stdout")
	if err != nil {
		return nil
	}
	defer body.Close()
	b := make([]byte, sh.Stdout.Size)
	if _, err := io.ReadFull(body, b); err != nil {
		return nil
	}
	return b
}

func toJob(v *app.JobView) *taskv1.Job {
	c := v.Counts
	return &taskv1.Job{Id: v.ID, RequestId: v.RequestID, Name: v.Name, State: v.State.String(), Total: v.Total, Parallel: v.Parallel, Hedge: v.Hedge, InputPath: v.InputPath,
		Counts:    &taskv1.JobCounts{Added: c.Added(), Waiting: c.Waiting, Running: c.Running, Completed: c.Completed, Failed: c.Failed, Cancelled: c.Cancelled, Extra: c.Extra},
		CreatedAt: timestamp(v.CreatedAt), StartedAt: timestamp(v.StartedAt), FinishedAt: timestamp(v.FinishedAt), Detail: v.Detail, Personas: v.Personas}
}

func toShard(sh *domain.Shard) *taskv1.Shard {
	m := &taskv1.Shard{Index: sh.Index, Name: sh.Name, Size: uint64(sh.Size), Sha256: sh.SHA256.String(), State: sh.State.String(), TaskId: sh.TaskID, Tries: sh.Tries,
		Attempts: sh.Attempts, ExitCode: sh.ExitCode, Ended: sh.Ended}
	if sh.Error != nil {
		m.Error = &taskv1.TaskError{Reason: sh.Error.Reason, Message: sh.Error.Message}
	}
	if sh.State.Terminal() {
		m.Took = wire.Duration(sh.Took)
	}
	if !sh.Stdout.SHA256.IsZero() {
		m.StdoutSize, m.StdoutSha256 = uint64(sh.Stdout.Size), sh.Stdout.SHA256.String()
	}
	return m
}
