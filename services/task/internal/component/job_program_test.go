package component_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/app/provider"
)

// program is an executor of programs that turn their stdin into capitals, and do what it says: "exit" ends with 3, "wait" waits for the
// gate, "die" fails at the provider.
type program struct {
	mu    sync.Mutex
	began map[string]int // by input
	done  map[string]int
	die   map[string]int // so many first runs
	gate  chan struct{}
	hold  func(provider, input string) bool // runs that wait for the gate
}

func newProgram() *program {
	return &program{began: map[string]int{}, done: map[string]int{}, die: map[string]int{}, gate: make(chan struct{})}
}

// at is the program at one provider.
type programAt struct {
	*program
	name string
}

func (p *program) at(name string, slots int) func(*provider.Config) {
	return func(c *provider.Config) {
		c.Executors, c.Policy.Slots, c.Progress, c.Express = []app.Executor{programAt{p, name}}, slots, 50*time.Millisecond, time.Millisecond
	}
}

func (p programAt) Describe() app.Capability { return app.Capability{Type: "wasm", Version: "1"} }

func (p programAt) Validate(context.Context, []byte, []app.Part) error { return nil }

func (p programAt) Execute(ctx context.Context, run app.Run, sink app.Sink) (app.Outcome, error) {
	var in []byte
	for _, part := range run.Parts {
		if part.Name != app.PartModule {
			in = part.Inline
			if part.Path != "" {
				b, err := os.ReadFile(part.Path)
				if err != nil {
					return app.Outcome{}, err
				}
				in = b
			}
		}
	}
	input := string(in)
	p.mu.Lock()
	p.began[input]++
	dies := p.began[input] <= p.die[input]
	hold := p.hold != nil && p.hold(p.name, input)
	p.mu.Unlock()
	sink.Started()
	if dies {
		return app.Outcome{}, errors.New("the executor died")
	}
	if hold {
		select {
		case <-p.gate:
		case <-ctx.Done():
			return app.Outcome{Reason: app.ReasonCancelled}, nil
		}
	}
	if err := sink.Output("stdout", bytes.ToUpper(in)); err != nil {
		return app.Outcome{Reason: app.ReasonOutputLimit}, nil
	}
	p.mu.Lock()
	p.done[input]++
	p.mu.Unlock()
	if strings.HasPrefix(input, "exit") {
		return app.Outcome{ExitCode: 3}, nil
	}
	return app.Outcome{}, nil
}

func (p *program) runs() (done, began int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, n := range p.done {
		done += n
	}
	for _, n := range p.began {
		began += n
	}
	return done, began
}

func jobSpec(total int) *taskv1.JobSpec {
	return &taskv1.JobSpec{Total: uint32(total), Parallel: 8, Name: "a job", Task: &taskv1.TaskSpec{Type: "wasm",
		Payload: &taskv1.TaskSpec_Wasm{Wasm: &taskv1.WasmPayload{Module: &taskv1.Blob{Source: &taskv1.Blob_Inline{Inline: []byte("module")}}}}}}
}

func inputs(texts ...string) []*taskv1.NewShard {
	out := make([]*taskv1.NewShard, len(texts))
	for i, text := range texts {
		out[i] = &taskv1.NewShard{Index: uint32(i), Name: fmt.Sprintf("in-%d", i), Content: &taskv1.Blob{Source: &taskv1.Blob_Inline{Inline: []byte(text)}}}
	}
	return out
}

func numbered(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("text %d", i)
	}
	return out
}

// startJob makes a job and gives it its inputs.
func (nd *node) startJob(spec *taskv1.JobSpec, texts ...string) string {
	nd.t.Helper()
	spec.Total = uint32(len(texts))
	made := must[*taskv1.CreateJobResponse](nd.t)(nd.jobs.CreateJob(nd.ctx, &taskv1.CreateJobRequest{RequestId: app.NewID(), Spec: spec}))
	r := must[*taskv1.AddShardsResponse](nd.t)(nd.jobs.AddShards(nd.ctx, &taskv1.AddShardsRequest{JobId: made.GetJob().GetId(), Shards: inputs(texts...)}))
	if r.GetJob().GetState() != "RUNNING" {
		nd.t.Fatalf("with its shards the job is %s", r.GetJob().GetState())
	}
	return made.GetJob().GetId()
}

// watchJob follows a job to its end, and gives every shard that ended, with what it printed.
func (nd *node) watchJob(id string, after uint64) (*taskv1.Job, []*taskv1.EndedShard) {
	nd.t.Helper()
	ctx, cancel := context.WithTimeout(nd.ctx, 2*time.Minute)
	defer cancel()
	stream := must[taskv1.JobService_WatchJobClient](nd.t)(nd.jobs.WatchJob(ctx, &taskv1.WatchJobRequest{JobId: id, After: after, Stdout: true}))
	var job *taskv1.Job
	var ended []*taskv1.EndedShard
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return job, ended
		}
		if err != nil {
			nd.t.Fatalf("watch the job: %v; it is %v", err, job)
		}
		if j := m.GetJob(); j != nil {
			job = j
		} else {
			ended = append(ended, m.GetShard())
		}
	}
}

func checkAll(t *testing.T, ended []*taskv1.EndedShard, texts []string) {
	t.Helper()
	seen := map[uint32]bool{}
	for i, s := range ended {
		sh := s.GetShard()
		if seen[sh.GetIndex()] || sh.GetEnded() != uint64(i+1) {
			t.Fatalf("shard %d is told as end %d, after %d others", sh.GetIndex(), sh.GetEnded(), i)
		}
		seen[sh.GetIndex()] = true
		if sh.GetState() != "COMPLETED" || string(s.GetStdout()) != strings.ToUpper(texts[sh.GetIndex()]) {
			t.Fatalf("shard %v printed %q", sh, s.GetStdout())
		}
	}
	if len(seen) != len(texts) {
		t.Fatalf("%d of %d shards were told", len(seen), len(texts))
	}
}
