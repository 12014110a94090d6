package clitest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/shallot-net/shallot/kit/fault"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
)

// Jobs is a job service in memory. Its programs turn their input into capitals; an input that begins with "exit" ends with 3.
type Jobs struct {
	nodev1.UnimplementedJobServiceServer
	node *Node

	// Held keeps a job from going on after so many of its shards; nil lets it run.
	Held func(job *taskv1.Job, ended int) bool

	jobs []*jobOf
}

type jobOf struct {
	*taskv1.Job
	spec   *taskv1.JobSpec
	shards []*taskv1.Shard
	inputs [][]byte
	stdout map[string][]byte // by task
	ended  []*taskv1.Shard
}

// Specs are what jobs were made from.
func (j *Jobs) Specs() []*taskv1.JobSpec {
	j.node.mu.Lock()
	defer j.node.mu.Unlock()
	var out []*taskv1.JobSpec
	for _, o := range j.jobs {
		out = append(out, o.spec)
	}
	return out
}

func (j *Jobs) find(id string) (*jobOf, error) {
	for _, o := range j.jobs {
		if o.GetId() == id {
			return o, nil
		}
	}
	return nil, fault.NotFound("JOB_NOT_FOUND", "there is no job %s", id)
}

// change runs fn under the lock and wakes who watches.
func (j *Jobs) change(id string, fn func(o *jobOf) error) (*taskv1.Job, error) {
	j.node.mu.Lock()
	defer j.node.mu.Unlock()
	o, err := j.find(id)
	if err == nil {
		err = fn(o)
	}
	if err != nil {
		return nil, err
	}
	j.run(o)
	close(j.node.changed)
	j.node.changed = make(chan struct{})
	return proto.CloneOf(o.Job), nil
}

// run ends shards for as long as the job may go on.
func (j *Jobs) run(o *jobOf) {
	for o.GetState() == "RUNNING" && len(o.ended) < len(o.shards) && (j.Held == nil || !j.Held(o.Job, len(o.ended))) {
		sh := o.shards[len(o.ended)]
		in := o.inputs[len(o.ended)]
		out := bytes.ToUpper(in)
		sum := sha256.Sum256(out)
		code := int32(0)
		sh.State, sh.Ended, sh.TaskId = "COMPLETED", uint64(len(o.ended)+1), fmt.Sprintf("%032x", len(o.ended)+1)
		if bytes.HasPrefix(in, []byte("exit")) {
			code = 3
			sh.State, sh.Error = "FAILED", &taskv1.TaskError{Reason: "EXIT_CODE", Message: "the program ended with exit code 3"}
			o.Counts.Failed++
		} else {
			o.Counts.Completed++
		}
		o.Counts.Waiting--
		sh.ExitCode, sh.StdoutSize, sh.StdoutSha256 = &code, uint64(len(out)), hex.EncodeToString(sum[:])
		o.stdout[sh.GetTaskId()] = out
		o.ended = append(o.ended, sh)
		j.node.tasks = append(j.node.tasks, &task{Task: &taskv1.Task{Id: sh.GetTaskId(), Type: "wasm", State: "COMPLETED", ExitCode: &code, Result: &taskv1.ResultInfo{Available: true}}, stdout: out, cancel: make(chan struct{})})
	}
	if o.GetState() == "RUNNING" && len(o.ended) == len(o.shards) {
		o.State = "COMPLETED"
		if o.Counts.GetFailed() > 0 {
			o.State = "FAILED"
		}
	}
}

// CreateJob implements JobService.
func (j *Jobs) CreateJob(_ context.Context, r *nodev1.CreateJobRequest) (*nodev1.CreateJobResponse, error) {
	if j.node.broken("CreateJob") {
		return nil, errGone
	}
	j.node.mu.Lock()
	defer j.node.mu.Unlock()
	for _, o := range j.jobs {
		if o.GetRequestId() == r.GetRequestId() {
			return &nodev1.CreateJobResponse{Job: proto.CloneOf(o.Job), Existed: true}, nil
		}
	}
	s := r.GetSpec()
	o := &jobOf{spec: s, stdout: map[string][]byte{}, Job: &taskv1.Job{Id: fmt.Sprintf("%032x", 0xabc0+len(j.jobs)), RequestId: r.GetRequestId(), Name: s.GetName(), State: "OPEN", Total: s.GetTotal(),
		Parallel: s.GetParallel(), Hedge: s.GetHedge(), InputPath: s.GetInputPath(), Counts: &taskv1.JobCounts{}}}
	j.jobs = append(j.jobs, o)
	return &nodev1.CreateJobResponse{Job: proto.CloneOf(o.Job)}, nil
}

// AddShards implements JobService.
func (j *Jobs) AddShards(_ context.Context, r *nodev1.AddShardsRequest) (*nodev1.AddShardsResponse, error) {
	if j.node.broken("AddShards") {
		return nil, errGone
	}
	job, err := j.change(r.GetJobId(), func(o *jobOf) error {
		for _, n := range r.GetShards() {
			if int(n.GetIndex()) != len(o.shards) {
				return fault.InvalidArgument("SPEC_INVALID", "shard %d comes after %d others", n.GetIndex(), len(o.shards))
			}
			in := n.GetContent().GetInline()
			if id := n.GetContent().GetUploadId(); id != "" {
				in = j.node.uploads[id]
			}
			o.shards = append(o.shards, &taskv1.Shard{Index: n.GetIndex(), Name: n.GetName(), State: "WAITING"})
			o.inputs = append(o.inputs, in)
			o.Counts.Added++
			o.Counts.Waiting++
		}
		if len(o.shards) == int(o.GetTotal()) {
			o.State = "RUNNING"
		}
		return nil
	})
	return &nodev1.AddShardsResponse{Job: job}, err
}

// GetJob implements JobService.
func (j *Jobs) GetJob(_ context.Context, r *nodev1.GetJobRequest) (*nodev1.GetJobResponse, error) {
	job, err := j.change(r.GetJobId(), func(*jobOf) error { return nil })
	return &nodev1.GetJobResponse{Job: job}, err
}

// ListJobs implements JobService.
func (j *Jobs) ListJobs(_ context.Context, r *nodev1.ListJobsRequest) (*nodev1.ListJobsResponse, error) {
	j.node.mu.Lock()
	defer j.node.mu.Unlock()
	out := &nodev1.ListJobsResponse{}
	for _, o := range j.jobs {
		if len(r.GetStates()) == 0 || r.GetStates()[0] == o.GetState() {
			out.Jobs = append(out.Jobs, proto.CloneOf(o.Job))
		}
	}
	return out, nil
}

// ListShards implements JobService.
func (j *Jobs) ListShards(_ context.Context, r *nodev1.ListShardsRequest) (*nodev1.ListShardsResponse, error) {
	out := &nodev1.ListShardsResponse{}
	_, err := j.change(r.GetJobId(), func(o *jobOf) error {
		for _, sh := range o.shards {
			if len(r.GetStates()) == 0 || r.GetStates()[0] == sh.GetState() {
				out.Shards = append(out.Shards, proto.CloneOf(sh))
			}
		}
		return nil
	})
	return out, err
}

// WatchJob implements JobService. Large output is not sent along, so that it has to be fetched.
func (j *Jobs) WatchJob(r *nodev1.WatchJobRequest, s grpc.ServerStreamingServer[nodev1.WatchJobResponse]) error {
	breaks := j.node.broken("WatchJob")
	after := r.GetAfter()
	for {
		j.node.mu.Lock()
		wait := j.node.changed
		o, err := j.find(r.GetJobId())
		if err != nil {
			j.node.mu.Unlock()
			return err
		}
		job := proto.CloneOf(o.Job)
		var news []*taskv1.EndedShard
		for _, sh := range o.ended[min(int(after), len(o.ended)):] {
			e := &taskv1.EndedShard{Shard: proto.CloneOf(sh)}
			if out := o.stdout[sh.GetTaskId()]; r.GetStdout() && len(out) <= 100 {
				e.Stdout = append([]byte{}, out...)
			}
			news = append(news, e)
		}
		j.node.mu.Unlock()
		for i, e := range news {
			if breaks && i == len(news)/2 {
				return errGone
			}
			if err := s.Send(&nodev1.WatchJobResponse{Response: &nodev1.WatchJobResponse_Shard{Shard: e}}); err != nil {
				return err
			}
			after = e.GetShard().GetEnded()
		}
		if err := s.Send(&nodev1.WatchJobResponse{Response: &nodev1.WatchJobResponse_Job{Job: job}}); err != nil {
			return err
		}
		switch job.GetState() {
		case "COMPLETED", "FAILED", "CANCELLED":
			return nil
		}
		select {
		case <-wait:
		case <-s.Context().Done():
			return s.Context().Err()
		}
	}
}

// PauseJob implements JobService.
func (j *Jobs) PauseJob(_ context.Context, r *nodev1.PauseJobRequest) (*nodev1.PauseJobResponse, error) {
	job, err := j.change(r.GetJobId(), func(o *jobOf) error { return o.to("PAUSED", "RUNNING", "PAUSED") })
	return &nodev1.PauseJobResponse{Job: job}, err
}

// ResumeJob implements JobService.
func (j *Jobs) ResumeJob(_ context.Context, r *nodev1.ResumeJobRequest) (*nodev1.ResumeJobResponse, error) {
	job, err := j.change(r.GetJobId(), func(o *jobOf) error { return o.to("RUNNING", "RUNNING", "PAUSED") })
	return &nodev1.ResumeJobResponse{Job: job}, err
}

// CancelJob implements JobService.
func (j *Jobs) CancelJob(_ context.Context, r *nodev1.CancelJobRequest) (*nodev1.CancelJobResponse, error) {
	job, err := j.change(r.GetJobId(), func(o *jobOf) error { return o.to("CANCELLED", "OPEN", "RUNNING", "PAUSED", "CANCELLED") })
	return &nodev1.CancelJobResponse{Job: job}, err
}

func (o *jobOf) to(state string, from ...string) error {
	for _, f := range from {
		if o.GetState() == f {
			o.State = state
			return nil
		}
	}
	return fault.FailedPrecondition("JOB_OVER", "job %s is %s", o.GetId(), o.GetState())
}
