package api

import (
	"context"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/shallot-net/shallot/kit/fault"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
	"github.com/shallot-net/shallot/services/node/internal/app"
	"github.com/shallot-net/shallot/services/node/internal/domain"
)

// JobService serves shallot.node.v1's JobService: it hands on to the task service, which owns jobs.
type JobService struct {
	nodev1.UnimplementedJobServiceServer
	jobs taskv1.JobServiceClient
	// MayRedirect is what holds for jobs whose tasks do not say whether their providers may hand them on.
	MayRedirect bool
}

// NewJobs makes one.
func NewJobs(jobs taskv1.JobServiceClient) *JobService {
	return &JobService{jobs: jobs, MayRedirect: true}
}

// Register adds the service to a server.
func (s *JobService) Register(r grpc.ServiceRegistrar) { nodev1.RegisterJobServiceServer(r, s) }

// maxShards is how many inputs one call may bring.
const maxShards = 1000

// CreateJob makes a job.
func (s *JobService) CreateJob(ctx context.Context, in *nodev1.CreateJobRequest) (*nodev1.CreateJobResponse, error) {
	if in.GetRequestId() == "" {
		return nil, fault.InvalidArgument("REQUEST_ID_MISSING", "request_id is empty: make a random one, so that a repeated request returns the same job")
	}
	spec := in.GetSpec()
	if !s.MayRedirect && spec.GetTask() != nil {
		spec = proto.CloneOf(spec)
		spec.Task = app.NoRedirect(spec.GetTask())
	}
	r, err := s.jobs.CreateJob(ctx, &taskv1.CreateJobRequest{RequestId: in.GetRequestId(), Spec: spec})
	return &nodev1.CreateJobResponse{Job: r.GetJob(), Existed: r.GetExisted()}, err
}

// AddShards adds inputs.
func (s *JobService) AddShards(ctx context.Context, in *nodev1.AddShardsRequest) (*nodev1.AddShardsResponse, error) {
	if len(in.GetShards()) > maxShards {
		return nil, fault.InvalidArgument("TOO_MANY_SHARDS", "there are %d shards in one call: send %d at a time", len(in.GetShards()), maxShards)
	}
	if err := s.checkJobID(ctx, in.GetJobId()); err != nil {
		return nil, err
	}
	r, err := s.jobs.AddShards(ctx, &taskv1.AddShardsRequest{JobId: in.GetJobId(), Shards: in.GetShards()})
	return &nodev1.AddShardsResponse{Job: r.GetJob()}, s.jobError(ctx, in.GetJobId(), err)
}

// GetJob returns a job.
func (s *JobService) GetJob(ctx context.Context, in *nodev1.GetJobRequest) (*nodev1.GetJobResponse, error) {
	if err := s.checkJobID(ctx, in.GetJobId()); err != nil {
		return nil, err
	}
	r, err := s.jobs.GetJob(ctx, &taskv1.GetJobRequest{JobId: in.GetJobId()})
	return &nodev1.GetJobResponse{Job: r.GetJob()}, s.jobError(ctx, in.GetJobId(), err)
}

var (
	jobStates   = []string{"OPEN", "RUNNING", "PAUSED", "COMPLETED", "FAILED", "CANCELLED"}
	shardStates = []string{"WAITING", "RUNNING", "COMPLETED", "FAILED", "CANCELLED"}
)

func checkStates(states, known []string) error {
	for i, st := range states {
		if err := oneOf("states", i, st, known); err != nil {
			return err
		}
	}
	return nil
}

// ListJobs returns jobs, newest first.
func (s *JobService) ListJobs(ctx context.Context, in *nodev1.ListJobsRequest) (*nodev1.ListJobsResponse, error) {
	if err := checkPage(in.GetPageSize()); err != nil {
		return nil, err
	}
	if err := checkStates(in.GetStates(), jobStates); err != nil {
		return nil, err
	}
	r, err := s.jobs.ListJobs(ctx, &taskv1.ListJobsRequest{States: in.GetStates(), PageSize: in.GetPageSize(), PageToken: in.GetPageToken()})
	return &nodev1.ListJobsResponse{Jobs: r.GetJobs(), NextPageToken: r.GetNextPageToken()}, err
}

// ListShards returns a job's shards, by index.
func (s *JobService) ListShards(ctx context.Context, in *nodev1.ListShardsRequest) (*nodev1.ListShardsResponse, error) {
	if err := checkPage(in.GetPageSize()); err != nil {
		return nil, err
	}
	if err := checkStates(in.GetStates(), shardStates); err != nil {
		return nil, err
	}
	if err := s.checkJobID(ctx, in.GetJobId()); err != nil {
		return nil, err
	}
	r, err := s.jobs.ListShards(ctx, &taskv1.ListShardsRequest{JobId: in.GetJobId(), States: in.GetStates(), PageSize: in.GetPageSize(), PageToken: in.GetPageToken()})
	return &nodev1.ListShardsResponse{Shards: r.GetShards(), NextPageToken: r.GetNextPageToken()}, s.jobError(ctx, in.GetJobId(), err)
}

// WatchJob streams a job and its shards that have ended.
func (s *JobService) WatchJob(in *nodev1.WatchJobRequest, out grpc.ServerStreamingServer[nodev1.WatchJobResponse]) error {
	ctx, cancel := context.WithCancel(out.Context())
	defer cancel()
	if err := s.checkJobID(ctx, in.GetJobId()); err != nil {
		return err
	}
	from, err := s.jobs.WatchJob(ctx, &taskv1.WatchJobRequest{JobId: in.GetJobId(), After: in.GetAfter(), Stdout: in.GetStdout()})
	if err == nil {
		err = forward(from, func(m *taskv1.WatchJobResponse) error {
			if sh := m.GetShard(); sh != nil {
				return out.Send(&nodev1.WatchJobResponse{Response: &nodev1.WatchJobResponse_Shard{Shard: sh}})
			}
			return out.Send(&nodev1.WatchJobResponse{Response: &nodev1.WatchJobResponse_Job{Job: m.GetJob()}})
		})
	}
	return s.jobError(ctx, in.GetJobId(), err)
}

// PauseJob starts no more shards.
func (s *JobService) PauseJob(ctx context.Context, in *nodev1.PauseJobRequest) (*nodev1.PauseJobResponse, error) {
	if err := s.checkJobID(ctx, in.GetJobId()); err != nil {
		return nil, err
	}
	r, err := s.jobs.PauseJob(ctx, &taskv1.PauseJobRequest{JobId: in.GetJobId()})
	return &nodev1.PauseJobResponse{Job: r.GetJob()}, s.jobError(ctx, in.GetJobId(), err)
}

// ResumeJob goes on with a paused job.
func (s *JobService) ResumeJob(ctx context.Context, in *nodev1.ResumeJobRequest) (*nodev1.ResumeJobResponse, error) {
	if err := s.checkJobID(ctx, in.GetJobId()); err != nil {
		return nil, err
	}
	r, err := s.jobs.ResumeJob(ctx, &taskv1.ResumeJobRequest{JobId: in.GetJobId()})
	return &nodev1.ResumeJobResponse{Job: r.GetJob()}, s.jobError(ctx, in.GetJobId(), err)
}

// CancelJob ends a job.
func (s *JobService) CancelJob(ctx context.Context, in *nodev1.CancelJobRequest) (*nodev1.CancelJobResponse, error) {
	if err := s.checkJobID(ctx, in.GetJobId()); err != nil {
		return nil, err
	}
	r, err := s.jobs.CancelJob(ctx, &taskv1.CancelJobRequest{JobId: in.GetJobId()})
	return &nodev1.CancelJobResponse{Job: r.GetJob()}, s.jobError(ctx, in.GetJobId(), err)
}

// checkJobID refuses what cannot be a job's id.
func (s *JobService) checkJobID(ctx context.Context, id string) error {
	if domain.ValidTaskID(id) { // the same form
		return nil
	}
	if id == "" {
		return fault.InvalidArgument("JOB_ID_MISSING", "job_id is empty")
	}
	return fault.InvalidArgument("JOB_ID_INVALID", "job_id is %q, and a job id has %d lowercase hex digits%s", shown(id), domain.TaskIDLength, near(id, s.jobIDs(ctx)))
}

// jobError adds to NOT_FOUND what may have been meant.
func (s *JobService) jobError(ctx context.Context, id string, err error) error {
	f := fault.From(err)
	if f == nil || f.Code != codes.NotFound || !strings.HasPrefix(f.Reason, "JOB_") {
		return err
	}
	return fault.NotFound("JOB_NOT_FOUND", "there is no job %s on this node%s", shown(id), near(id, s.jobIDs(ctx))).With("job_id", shown(id)).Because(err)
}

func (s *JobService) jobIDs(ctx context.Context) []string {
	r, err := s.jobs.ListJobs(ctx, &taskv1.ListJobsRequest{PageSize: maxPage})
	if err != nil {
		return nil
	}
	ids := make([]string, 0, len(r.GetJobs()))
	for _, j := range r.GetJobs() {
		ids = append(ids, j.GetId())
	}
	return ids
}
