package component_test

import (
	"bytes"
	"errors"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shallot-net/shallot/kit/fault"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/app/consumer"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

func TestJobRunsEveryShardOnce(t *testing.T) {
	t.Parallel()
	n, p := newNetwork(t), newProgram()
	a, b, c := n.addProvider(p.at("a", 4)), n.addProvider(p.at("b", 4)), n.addConsumer(nil)
	c.useProviders(a, b)
	texts := numbered(100)
	texts[7] = "" // an empty input is one
	id := c.startJob(jobSpec(0), texts...)
	job, ended := c.watchJob(id, 0)
	if k := job.GetCounts(); job.GetState() != "COMPLETED" || k.GetCompleted() != 100 || k.GetExtra() != 0 || k.GetRunning()+k.GetWaiting() != 0 || job.GetFinishedAt() == nil {
		t.Fatalf("the job is %v", job)
	}
	checkAll(t, ended, texts)
	if done, began := p.runs(); done != 100 || began != 100 {
		t.Fatalf("%d of %d runs for 100 shards", done, began)
	}
	if _, rest := c.watchJob(id, 90); len(rest) != 10 { // a watch goes on where it ended
		t.Fatalf("%d shards ended after the 90th", len(rest))
	}
	task := c.get(ended[0].GetShard().GetTaskId())
	if task.GetLabels()["job"] != id || task.GetState() != "COMPLETED" {
		t.Fatalf("the shard's task is %v", task)
	}
}

// TestJobFailuresAreFinalOrRetried: a program's exit code is its shard's end; what a provider fails is done elsewhere.
func TestJobFailuresAreFinalOrRetried(t *testing.T) {
	t.Parallel()
	n, p := newNetwork(t), newProgram()
	p.die["fragile"], p.die["broken"] = 1, 100
	a, b, c := n.addProvider(p.at("a", 2)), n.addProvider(p.at("b", 2)), n.addConsumer(nil)
	c.useProviders(a, b)
	spec := jobSpec(0)
	spec.Task.Placement = &taskv1.PlacementPolicy{MaxAttempts: 2}
	job, ended := c.watchJob(c.startJob(spec, "good", "exit 3", "fragile", "broken"), 0)
	if k := job.GetCounts(); job.GetState() != "FAILED" || k.GetCompleted() != 2 || k.GetFailed() != 2 || job.GetDetail() != "2 of 4 shards failed" {
		t.Fatalf("the job is %v", job)
	}
	by := map[string]*taskv1.Shard{}
	for _, e := range ended {
		by[e.GetShard().GetName()] = e.GetShard()
	}
	if s := by["in-1"]; s.GetError().GetReason() != "EXIT_CODE" || s.GetExitCode() != 3 || s.GetTries() != 1 || s.GetAttempts() != 1 {
		t.Fatalf("a program's own failure: %v", s)
	}
	if s := by["in-2"]; s.GetState() != "COMPLETED" || s.GetAttempts() != 2 || s.GetTries() != 1 {
		t.Fatalf("what one provider failed: %v", s)
	}
	if s := by["in-3"]; s.GetError().GetReason() != "ATTEMPTS_EXHAUSTED" || s.GetTries() != domain.MaxTries || s.GetAttempts() != 2*domain.MaxTries {
		t.Fatalf("what every provider failed: %v", s)
	}
	if job.GetCounts().GetExtra() != 1+2*domain.MaxTries-1 {
		t.Fatalf("extra runs: %v", job.GetCounts())
	}
	list := must[*taskv1.ListShardsResponse](t)(c.jobs.ListShards(c.ctx, &taskv1.ListShardsRequest{JobId: job.GetId(), States: []string{"FAILED"}, PageSize: 1}))
	if len(list.GetShards()) != 1 || list.GetShards()[0].GetIndex() != 1 {
		t.Fatalf("the first failure: %v", list)
	}
	list = must[*taskv1.ListShardsResponse](t)(c.jobs.ListShards(c.ctx, &taskv1.ListShardsRequest{JobId: job.GetId(), States: []string{"FAILED"}, PageSize: 1, PageToken: list.GetNextPageToken()}))
	if len(list.GetShards()) != 1 || list.GetShards()[0].GetIndex() != 3 || list.GetNextPageToken() != "" {
		t.Fatalf("the second: %v", list)
	}
}

// TestPlacementTellsOfTheJob: node has the shards of a job share what a task by itself has alone.
func TestPlacementTellsOfTheJob(t *testing.T) {
	t.Parallel()
	n, p := newNetwork(t), newProgram()
	a, c := n.addProvider(p.at("a", 2)), n.addConsumer(nil)
	var mu sync.Mutex
	asked := map[string]int{}
	c.mu.Lock()
	c.candidates = func(p *taskv1.PlacementNeeded) *taskv1.Candidate {
		mu.Lock()
		defer mu.Unlock()
		asked[p.GetJobId()]++
		return a.candidate()
	}
	c.mu.Unlock()
	id := c.startJob(jobSpec(0), numbered(3)...)
	c.watchJob(id, 0)
	c.submit(jobSpec(0).GetTask(), nil)
	until(t, "a placement of the task", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return asked[""] > 0
	})
	mu.Lock()
	defer mu.Unlock()
	if len(asked) != 2 || asked[id] < 3 {
		t.Errorf("placements were asked for by jobs %v, and there is %s", asked, id)
	}
}

// TestJobPausesAndResumes: what runs ends, what nobody has waits, and nothing is done twice.
func TestJobPausesAndResumes(t *testing.T) {
	t.Parallel()
	n, p := newNetwork(t), newProgram()
	p.hold = func(string, string) bool { return true }
	a, c := n.addProvider(p.at("a", 2)), n.addConsumer(nil)
	var mu sync.Mutex
	taken := 0
	c.mu.Lock()
	c.candidates = func(*taskv1.PlacementNeeded) *taskv1.Candidate { // four are placed, the others find nobody
		mu.Lock()
		defer mu.Unlock()
		if taken++; taken > 4 {
			return nil
		}
		return a.candidate()
	}
	c.mu.Unlock()
	texts := numbered(20)
	id := c.startJob(jobSpec(0), texts...)
	until(t, "tasks in flight", func() bool {
		r := must[*taskv1.GetJobResponse](t)(c.jobs.GetJob(c.ctx, &taskv1.GetJobRequest{JobId: id}))
		_, began := p.runs()
		return r.GetJob().GetCounts().GetRunning() == 8 && began == 2
	})
	paused := must[*taskv1.PauseJobResponse](t)(c.jobs.PauseJob(c.ctx, &taskv1.PauseJobRequest{JobId: id})).GetJob()
	if k := paused.GetCounts(); paused.GetState() != "PAUSED" || k.GetRunning() != 4 || k.GetWaiting() != 16 {
		t.Fatalf("the paused job is %v", paused)
	}
	must[*taskv1.PauseJobResponse](t)(c.jobs.PauseJob(c.ctx, &taskv1.PauseJobRequest{JobId: id})) // again is no mistake
	close(p.gate)
	until(t, "what ran to end", func() bool {
		return must[*taskv1.GetJobResponse](t)(c.jobs.GetJob(c.ctx, &taskv1.GetJobRequest{JobId: id})).GetJob().GetCounts().GetCompleted() == 4
	})
	c.restart()
	c.useProviders(a)
	if j := must[*taskv1.GetJobResponse](t)(c.jobs.GetJob(c.ctx, &taskv1.GetJobRequest{JobId: id})).GetJob(); j.GetState() != "PAUSED" || j.GetCounts().GetWaiting() != 16 {
		t.Fatalf("after a restart the job is %v", j)
	}
	must[*taskv1.ResumeJobResponse](t)(c.jobs.ResumeJob(c.ctx, &taskv1.ResumeJobRequest{JobId: id}))
	job, ended := c.watchJob(id, 0)
	checkAll(t, ended, texts)
	if done, began := p.runs(); done != 20 || began != 20 || job.GetCounts().GetExtra() != 0 {
		t.Fatalf("%d of %d runs, %v", done, began, job)
	}
	if _, err := c.jobs.PauseJob(c.ctx, &taskv1.PauseJobRequest{JobId: id}); !errors.Is(fault.From(err), fault.FailedPrecondition("JOB_OVER", "")) {
		t.Fatalf("pausing what is over: %v", err)
	}
}

// TestJobSurvivesRestarts: the task service ends again and again in the middle; everything is done, and what was done stays done.
func TestJobSurvivesRestarts(t *testing.T) {
	t.Parallel()
	n, p := newNetwork(t), newProgram()
	a, b, c := n.addProvider(p.at("a", 2)), n.addProvider(p.at("b", 2)), n.addConsumer(func(c *consumer.Config) { c.Lease = 2 * time.Second })
	c.useProviders(a, b)
	texts := numbered(200)
	spec := jobSpec(0)
	spec.Hedge = true
	id := c.startJob(spec, texts...)
	for _, at := range []int{20, 70, 130} {
		until(t, "progress", func() bool { done, _ := p.runs(); return done >= at })
		c.restart()
		c.useProviders(a, b)
		c.connect() // tells again what wanted a provider
	}
	job, ended := c.watchJob(id, 0)
	checkAll(t, ended, texts)
	if done, _ := p.runs(); done > 200+int(job.GetCounts().GetExtra()) {
		t.Fatalf("%d runs came to their end, and %d extra ones are counted", done, job.GetCounts().GetExtra())
	}
}

// TestJobHedgesStragglers: the last shard is stuck at its provider; another one overtakes it.
func TestJobHedgesStragglers(t *testing.T) {
	t.Parallel()
	n, p := newNetwork(t), newProgram()
	p.hold = func(provider, input string) bool { return provider == "a" && input == "text 5" }
	a, b, c := n.addProvider(p.at("a", 2)), n.addProvider(p.at("b", 2)), n.addConsumer(nil)
	c.useProviders(a, b)
	spec := jobSpec(0)
	spec.Hedge = true
	texts := numbered(12)
	id := c.startJob(spec, texts...)
	job, ended := c.watchJob(id, 0)
	checkAll(t, ended, texts)
	at := slices.IndexFunc(ended, func(e *taskv1.EndedShard) bool { return e.GetShard().GetIndex() == 5 })
	if straggler := ended[at].GetShard(); straggler.GetTries() != 2 || job.GetCounts().GetExtra() < 1 {
		t.Fatalf("the straggler is %v, the job %v", straggler, job)
	}
	loser := "job:" + id + ":5:0"
	list := must[*taskv1.ListTasksResponse](t)(c.client.ListTasks(c.ctx, &taskv1.ListTasksRequest{PageSize: 50}))
	for _, task := range list.GetTasks() {
		if task.GetRequestId() == loser {
			c.await(task.GetId(), "CANCELLED")
			return
		}
	}
	t.Fatal("the first task of the straggler is not there")
}

func TestJobIsCancelled(t *testing.T) {
	t.Parallel()
	n, p := newNetwork(t), newProgram()
	p.hold = func(string, string) bool { return true }
	a, c := n.addProvider(p.at("a", 2)), n.addConsumer(nil)
	c.useProviders(a)
	id := c.startJob(jobSpec(0), numbered(20)...)
	until(t, "runs", func() bool { _, began := p.runs(); return began == 2 })
	job := must[*taskv1.CancelJobResponse](t)(c.jobs.CancelJob(c.ctx, &taskv1.CancelJobRequest{JobId: id})).GetJob()
	if job.GetState() != "CANCELLED" || job.GetCounts().GetCancelled() != 20 {
		t.Fatalf("%v", job)
	}
	until(t, "its tasks to end", func() bool {
		r := must[*taskv1.ListTasksResponse](t)(c.client.ListTasks(c.ctx, &taskv1.ListTasksRequest{States: []string{"PENDING", "SUBMITTED", "ACCEPTED", "RUNNING"}}))
		return len(r.GetTasks()) == 0
	})
	must[*taskv1.CancelJobResponse](t)(c.jobs.CancelJob(c.ctx, &taskv1.CancelJobRequest{JobId: id})) // again is no mistake
	if done, _ := p.runs(); done != 0 {
		t.Fatalf("%d runs of a cancelled job came to their end", done)
	}
	list := must[*taskv1.ListJobsResponse](t)(c.jobs.ListJobs(c.ctx, &taskv1.ListJobsRequest{States: []string{"CANCELLED"}}))
	if len(list.GetJobs()) != 1 || list.GetJobs()[0].GetId() != id {
		t.Fatalf("%v", list)
	}
}

// TestJobOwnsItsInputs: what it was given as uploads is there when they have expired, and is gone when it is over.
func TestJobOwnsItsInputs(t *testing.T) {
	t.Parallel()
	n, p := newNetwork(t), newProgram()
	a, c := n.addProvider(p.at("a", 2)), n.addConsumer(nil)
	upload := func(b []byte) *taskv1.Blob {
		s := must[taskv1.TaskService_UploadClient](t)(c.client.Upload(c.ctx))
		if err := s.Send(&taskv1.UploadRequest{Data: b}); err != nil {
			t.Fatal(err)
		}
		return &taskv1.Blob{Source: &taskv1.Blob_UploadId{UploadId: must[*taskv1.UploadResponse](t)(s.CloseAndRecv()).GetUploadId()}}
	}
	spec := jobSpec(2)
	spec.Task.GetWasm().Module = upload(bytes.Repeat([]byte("module"), 10_000))
	spec.InputPath = "data/in.txt"
	req := &taskv1.CreateJobRequest{RequestId: "r", Spec: spec}
	made := must[*taskv1.CreateJobResponse](t)(c.jobs.CreateJob(c.ctx, req))
	again := must[*taskv1.CreateJobResponse](t)(c.jobs.CreateJob(c.ctx, req)) // its upload is used up, and that does not matter
	if !again.GetExisted() || made.GetExisted() || again.GetJob().GetId() != made.GetJob().GetId() {
		t.Fatalf("%v, %v", made, again)
	}
	large := strings.Repeat("large ", 50_000)
	shards := inputs(large, "small")
	shards[0].Content = upload([]byte(large))
	add := &taskv1.AddShardsRequest{JobId: made.GetJob().GetId(), Shards: shards[:1]}
	must[*taskv1.AddShardsResponse](t)(c.jobs.AddShards(c.ctx, add))
	must[*taskv1.AddShardsResponse](t)(c.jobs.AddShards(c.ctx, add)) // repeated
	c.restart()
	if err := os.RemoveAll(c.dir + "/uploads"); err != nil {
		t.Fatal(err)
	}
	c.useProviders(a)
	other := inputs("x", "y")[:1]
	if _, err := c.jobs.AddShards(c.ctx, &taskv1.AddShardsRequest{JobId: add.GetJobId(), Shards: other}); !errors.Is(fault.From(err), fault.AlreadyExists("SHARD_EXISTS", "")) {
		t.Fatalf("another content at a place that is taken: %v", err)
	}
	must[*taskv1.AddShardsResponse](t)(c.jobs.AddShards(c.ctx, &taskv1.AddShardsRequest{JobId: add.GetJobId(), Shards: shards[1:]}))
	job, ended := c.watchJob(add.GetJobId(), 0)
	if job.GetState() != "COMPLETED" {
		t.Fatalf("%v", job)
	}
	for _, e := range ended {
		if want := strings.ToUpper([]string{large, "small"}[e.GetShard().GetIndex()]); c.result(e.GetShard().GetTaskId(), "") != want {
			t.Fatalf("shard %d printed something else", e.GetShard().GetIndex())
		}
	}
	if left, err := os.ReadDir(c.dir + "/jobs"); err != nil || len(left) != 0 {
		t.Fatalf("inputs of a job that is over: %v, %v", left, err)
	}
}

func TestJobBounds(t *testing.T) {
	t.Parallel()
	n, p := newNetwork(t), newProgram()
	a, c := n.addProvider(p.at("a", 2)), n.addConsumer(nil)
	for name, change := range map[string]func(*taskv1.JobSpec){
		"no shards":       func(s *taskv1.JobSpec) { s.Total = 0 },
		"too many shards": func(s *taskv1.JobSpec) { s.Total = domain.MaxShards + 1 },
		"parallel":        func(s *taskv1.JobSpec) { s.Parallel = 5000 },
		"personas":        func(s *taskv1.JobSpec) { s.Personas = 65 },
		"name":            func(s *taskv1.JobSpec) { s.Name = strings.Repeat("x", 300) },
		"path":            func(s *taskv1.JobSpec) { s.InputPath = "../x" },
		"two inputs":      func(s *taskv1.JobSpec) { s.Task.GetWasm().Stdin = s.Task.GetWasm().GetModule() },
		"type":            func(s *taskv1.JobSpec) { s.Task = sumSpec("1") },
	} {
		spec := jobSpec(3)
		change(spec)
		_, err := c.jobs.CreateJob(c.ctx, &taskv1.CreateJobRequest{RequestId: app.NewID(), Spec: spec})
		if !errors.Is(fault.From(err), fault.InvalidArgument("SPEC_INVALID", "")) {
			t.Errorf("%s: %v", name, err)
		}
	}
	masked := jobSpec(3)
	masked.Personas = 4
	if _, err := c.jobs.CreateJob(c.ctx, &taskv1.CreateJobRequest{RequestId: app.NewID(), Spec: masked}); !errors.Is(fault.From(err), fault.FailedPrecondition("NOT_ANONYMOUS", "")) {
		t.Errorf("personas in open mode: %v", err)
	}
	id := must[*taskv1.CreateJobResponse](t)(c.jobs.CreateJob(c.ctx, &taskv1.CreateJobRequest{RequestId: "r", Spec: jobSpec(3)})).GetJob().GetId()
	for name, change := range map[string]func(s []*taskv1.NewShard) []*taskv1.NewShard{
		"one name twice":  func(s []*taskv1.NewShard) []*taskv1.NewShard { s[1].Name = s[0].Name; return s },
		"one index twice": func(s []*taskv1.NewShard) []*taskv1.NewShard { s[1].Index = 0; return s },
		"a path":          func(s []*taskv1.NewShard) []*taskv1.NewShard { s[1].Name = "a/b"; return s },
		"a control":       func(s []*taskv1.NewShard) []*taskv1.NewShard { s[1].Name = "a\x1b[2J"; return s },
		"index":           func(s []*taskv1.NewShard) []*taskv1.NewShard { s[1].Index = 3; return s },
		"dots":            func(s []*taskv1.NewShard) []*taskv1.NewShard { s[1].Name = ".."; return s },
	} {
		_, err := c.jobs.AddShards(c.ctx, &taskv1.AddShardsRequest{JobId: id, Shards: change(inputs("a", "b"))})
		if !errors.Is(fault.From(err), fault.InvalidArgument("SPEC_INVALID", "")) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := c.jobs.GetJob(c.ctx, &taskv1.GetJobRequest{JobId: app.NewID()}); !errors.Is(fault.From(err), fault.NotFound("JOB_NOT_FOUND", "")) {
		t.Error(err)
	}
	if _, err := a.jobs.ListJobs(c.ctx, &taskv1.ListJobsRequest{}); !errors.Is(fault.From(err), fault.FailedPrecondition("WRONG_ROLE", "")) {
		t.Error(err)
	}
}
