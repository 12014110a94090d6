package rest

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/grpc"

	"github.com/shallot-net/shallot/kit/fault"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
)

// fakeJobs has one job.
type fakeJobs struct {
	nodev1.UnimplementedJobServiceServer
	job    *taskv1.Job
	shards []*taskv1.NewShard
	all    []*taskv1.Shard // in place of those, where a test gives some
}

func (f *fakeJobs) find(id string) (*taskv1.Job, error) {
	if f.job.GetId() != id {
		return nil, fault.NotFound("JOB_NOT_FOUND", "there is no job %s", id)
	}
	return f.job, nil
}

func (f *fakeJobs) CreateJob(_ context.Context, r *nodev1.CreateJobRequest) (*nodev1.CreateJobResponse, error) {
	f.job = &taskv1.Job{Id: strings.Repeat("b", 32), RequestId: r.GetRequestId(), State: "OPEN", Total: r.GetSpec().GetTotal(), Counts: &taskv1.JobCounts{}}
	return &nodev1.CreateJobResponse{Job: f.job}, nil
}

func (f *fakeJobs) AddShards(_ context.Context, r *nodev1.AddShardsRequest) (*nodev1.AddShardsResponse, error) {
	j, err := f.find(r.GetJobId())
	if err == nil {
		f.shards = append(f.shards, r.GetShards()...)
		j.State, j.Counts.Added = "RUNNING", uint32(len(f.shards))
	}
	return &nodev1.AddShardsResponse{Job: j}, err
}

func (f *fakeJobs) GetJob(_ context.Context, r *nodev1.GetJobRequest) (*nodev1.GetJobResponse, error) {
	j, err := f.find(r.GetJobId())
	return &nodev1.GetJobResponse{Job: j}, err
}

func (f *fakeJobs) ListShards(_ context.Context, r *nodev1.ListShardsRequest) (*nodev1.ListShardsResponse, error) {
	out := &nodev1.ListShardsResponse{}
	if f.all != nil {
		from, _ := strconv.Atoi(r.GetPageToken())
		to := min(from+int(r.GetPageSize()), len(f.all))
		for _, s := range f.all[from:to] {
			if slices.Contains(r.GetStates(), s.GetState()) {
				out.Shards = append(out.Shards, s)
			}
		}
		if to < len(f.all) {
			out.NextPageToken = strconv.Itoa(to)
		}
		return out, nil
	}
	for _, s := range f.shards {
		out.Shards = append(out.Shards, &taskv1.Shard{Index: s.GetIndex(), Name: s.GetName(), State: strings.Join(r.GetStates(), "")})
	}
	return out, nil
}

func (f *fakeJobs) PauseJob(_ context.Context, r *nodev1.PauseJobRequest) (*nodev1.PauseJobResponse, error) {
	j, err := f.find(r.GetJobId())
	if err == nil {
		j.State = "PAUSED"
	}
	return &nodev1.PauseJobResponse{Job: j}, err
}

func (f *fakeJobs) WatchJob(r *nodev1.WatchJobRequest, s grpc.ServerStreamingServer[nodev1.WatchJobResponse]) error {
	j, err := f.find(r.GetJobId())
	if err != nil {
		return err
	}
	for i, n := range f.shards {
		e := &taskv1.EndedShard{Shard: &taskv1.Shard{Name: n.GetName(), Ended: uint64(i + 1)}}
		if r.GetStdout() {
			e.Stdout = n.GetContent().GetInline()
		}
		if err := s.Send(&nodev1.WatchJobResponse{Response: &nodev1.WatchJobResponse_Shard{Shard: e}}); err != nil {
			return err
		}
	}
	return s.Send(&nodev1.WatchJobResponse{Response: &nodev1.WatchJobResponse_Job{Job: j}})
}

func TestJobOverREST(t *testing.T) {
	g := start(t)
	status, body, _ := g.do(t, "POST", "/v1/jobs", `{"request_id": "r", "spec": {"total": 2, "task": {"type": "wasm"}}}`)
	var made struct{ Job struct{ ID, State string } }
	if err := json.Unmarshal([]byte(body), &made); err != nil || status != http.StatusOK || made.Job.State != "OPEN" {
		t.Fatalf("%d %s, %v", status, body, err)
	}
	path := "/v1/jobs/" + made.Job.ID
	status, body, _ = g.do(t, "POST", path+"/shards", `{"shards": [{"index": 0, "name": "a", "content": {"inline": "b25l"}}, {"index": 1, "name": "b", "content": {"inline": "dHdv"}}]}`)
	if status != http.StatusOK || !strings.Contains(body, `"RUNNING"`) || len(g.jobs.shards) != 2 || string(g.jobs.shards[1].GetContent().GetInline()) != "two" {
		t.Fatalf("%d %s", status, body)
	}
	if status, body, _ = g.do(t, "GET", path, ""); status != http.StatusOK || !strings.Contains(body, `"added":2`) {
		t.Fatalf("%d %s", status, body)
	}
	if status, body, _ = g.do(t, "GET", path+"/shards?states=FAILED", ""); status != http.StatusOK || strings.Count(body, `"state":"FAILED"`) != 2 {
		t.Fatalf("%d %s", status, body)
	}
	status, body, _ = g.do(t, "GET", path+":watch?stdout=true", "")
	if lines := strings.Split(strings.TrimSpace(body), "\n"); status != http.StatusOK || len(lines) != 3 || !strings.Contains(lines[1], "dHdv") || !strings.Contains(lines[2], `"job"`) {
		t.Fatalf("%d %s", status, body)
	}
	if status, body, _ = g.do(t, "POST", path+":pause", ""); status != http.StatusOK || !strings.Contains(body, "PAUSED") {
		t.Fatalf("%d %s", status, body)
	}
	if status, body, _ = g.do(t, "GET", "/v1/jobs/"+strings.Repeat("c", 32), ""); status != http.StatusNotFound || !strings.Contains(body, "JOB_NOT_FOUND") {
		t.Fatalf("%d %s", status, body)
	}
}
