package api

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"google.golang.org/grpc"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/grpctest"
	"github.com/shallot-net/shallot/kit/rpc"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
)

// taskJobs is a task service with one job.
type taskJobs struct {
	taskv1.UnimplementedJobServiceServer
	job *taskv1.Job
	add *taskv1.AddShardsRequest
}

func (f *taskJobs) CreateJob(_ context.Context, r *taskv1.CreateJobRequest) (*taskv1.CreateJobResponse, error) {
	f.job.RequestId, f.job.Total = r.GetRequestId(), r.GetSpec().GetTotal()
	return &taskv1.CreateJobResponse{Job: f.job, Existed: true}, nil
}

func (f *taskJobs) AddShards(_ context.Context, r *taskv1.AddShardsRequest) (*taskv1.AddShardsResponse, error) {
	f.add = r
	return &taskv1.AddShardsResponse{Job: f.job}, nil
}

func (f *taskJobs) GetJob(_ context.Context, r *taskv1.GetJobRequest) (*taskv1.GetJobResponse, error) {
	if r.GetJobId() != f.job.GetId() {
		return nil, fault.NotFound("JOB_NOT_FOUND", "there is none")
	}
	return &taskv1.GetJobResponse{Job: f.job}, nil
}

func (f *taskJobs) ListJobs(context.Context, *taskv1.ListJobsRequest) (*taskv1.ListJobsResponse, error) {
	return &taskv1.ListJobsResponse{Jobs: []*taskv1.Job{f.job}, NextPageToken: "next"}, nil
}

func (f *taskJobs) PauseJob(context.Context, *taskv1.PauseJobRequest) (*taskv1.PauseJobResponse, error) {
	return nil, fault.FailedPrecondition("JOB_STATE", "it is over")
}

func (f *taskJobs) WatchJob(r *taskv1.WatchJobRequest, s grpc.ServerStreamingServer[taskv1.WatchJobResponse]) error {
	for i := r.GetAfter(); i < 3; i++ {
		if err := s.Send(&taskv1.WatchJobResponse{Response: &taskv1.WatchJobResponse_Shard{Shard: &taskv1.EndedShard{Shard: &taskv1.Shard{Ended: i + 1}}}}); err != nil {
			return err
		}
	}
	return s.Send(&taskv1.WatchJobResponse{Response: &taskv1.WatchJobResponse_Job{Job: f.job}})
}

func TestJobsAreHandedOn(t *testing.T) {
	t.Parallel()
	id := "0123456789abcdef0123456789abcdef"
	f := &taskJobs{job: &taskv1.Job{Id: id, State: "OPEN"}}
	task := grpctest.Start(t, func(s *rpc.Server) { taskv1.RegisterJobServiceServer(s, f) })
	node := nodev1.NewJobServiceClient(grpctest.Start(t, func(s *rpc.Server) { NewJobs(taskv1.NewJobServiceClient(task)).Register(s) }))
	ctx := t.Context()
	made, err := node.CreateJob(ctx, &nodev1.CreateJobRequest{RequestId: "r", Spec: &taskv1.JobSpec{Total: 7}})
	if err != nil || !made.GetExisted() || made.GetJob().GetTotal() != 7 || made.GetJob().GetRequestId() != "r" {
		t.Fatalf("%v, %v", made, err)
	}
	if _, err := node.AddShards(ctx, &nodev1.AddShardsRequest{JobId: id, Shards: []*taskv1.NewShard{{Name: "a"}}}); err != nil || f.add.GetShards()[0].GetName() != "a" || f.add.GetJobId() != id {
		t.Fatalf("%v, %v", f.add, err)
	}
	if r, err := node.ListJobs(ctx, &nodev1.ListJobsRequest{States: []string{"OPEN"}}); err != nil || len(r.GetJobs()) != 1 || r.GetNextPageToken() != "next" {
		t.Fatalf("%v, %v", r, err)
	}
	stream, err := node.WatchJob(ctx, &nodev1.WatchJobRequest{JobId: id, After: 1})
	if err != nil {
		t.Fatal(err)
	}
	var ends []uint64
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		ends = append(ends, m.GetShard().GetShard().GetEnded())
	}
	if len(ends) != 3 || ends[0] != 2 || ends[1] != 3 || ends[2] != 0 {
		t.Fatalf("the watch told %v", ends)
	}
	for says, call := range map[string]func() error{
		"request_id is empty":     func() error { _, err := node.CreateJob(ctx, &nodev1.CreateJobRequest{}); return err },
		"job_id is empty":         func() error { _, err := node.GetJob(ctx, &nodev1.GetJobRequest{}); return err },
		"32 lowercase hex digits": func() error { _, err := node.CancelJob(ctx, &nodev1.CancelJobRequest{JobId: "x"}); return err },
		"did you mean":            func() error { _, err := node.GetJob(ctx, &nodev1.GetJobRequest{JobId: id[:31] + "e"}); return err },
		"it is over":              func() error { _, err := node.PauseJob(ctx, &nodev1.PauseJobRequest{JobId: id}); return err },
		"none of": func() error {
			_, err := node.ListShards(ctx, &nodev1.ListShardsRequest{JobId: id, States: []string{"OPEN"}})
			return err
		},
		"may be 1000": func() error { _, err := node.ListJobs(ctx, &nodev1.ListJobsRequest{PageSize: 1001}); return err },
		"send 1000 at a time": func() error {
			_, err := node.AddShards(ctx, &nodev1.AddShardsRequest{JobId: id, Shards: make([]*taskv1.NewShard, 1001)})
			return err
		},
	} {
		if err := call(); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%v lacks %q", err, says)
		}
	}
}
