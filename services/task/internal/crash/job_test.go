package crash_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/app/consumer"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// capitals is a program's executor: it prints its stdin in capitals, and counts what came to its end.
type capitals struct {
	mu   sync.Mutex
	runs map[string]int
}

func (c *capitals) Describe() app.Capability { return app.Capability{Type: "wasm", Version: "1"} }

func (c *capitals) Validate(context.Context, []byte, []app.Part) error { return nil }

func (c *capitals) Execute(ctx context.Context, run app.Run, sink app.Sink) (app.Outcome, error) {
	in := ""
	for _, p := range run.Parts {
		if p.Name == "stdin" {
			in = string(p.Inline)
		}
	}
	select {
	case <-time.After(3 * time.Millisecond):
	case <-ctx.Done():
		return app.Outcome{Reason: app.ReasonCancelled}, nil
	}
	c.mu.Lock()
	c.runs[in]++
	c.mu.Unlock()
	return app.Outcome{}, sink.Output("stdout", []byte(strings.ToUpper(in)))
}

const (
	shardsOfJob = 12
	parallel    = 3
)

// submitJob asks until the job has all its shards, as a client does.
func (w *world) submitJob(t *testing.T) string {
	t.Helper()
	n := app.NewJob{RequestID: "job", Total: shardsOfJob, Parallel: parallel, Spec: app.Spec{Type: "wasm", Parts: []app.PartSource{{Name: app.PartModule, Inline: []byte("module")}}}}
	var shards []app.NewShard
	for i := range uint32(shardsOfJob) {
		shards = append(shards, app.NewShard{Index: i, Name: fmt.Sprint(i), Content: app.PartSource{Inline: fmt.Appendf(nil, "input %d", i)}})
	}
	for deadline := time.Now().Add(time.Minute); ; {
		if role, ok := w.consumer.get().(*consumer.Service); ok {
			v, _, err := role.CreateJob(context.Background(), n)
			if err == nil {
				_, err = role.AddShards(context.Background(), v.ID, shards)
			}
			if err == nil {
				return v.ID
			}
			if !errors.Is(err, errCrash) {
				t.Fatalf("submit the job: %v", err)
			}
			w.consumer.restartAfterCrash(func() bool { return false })
		}
		if time.Now().After(deadline) {
			t.Fatal("the job could not be made")
		}
	}
}

func (w *world) jobDone(id string) func() bool {
	return func() bool {
		j, err := w.consumer.store.Job(context.Background(), id)
		return err == nil && j.State.Terminal()
	}
}

// checkJob holds what must be true whatever has crashed: every shard has ended once, with its own result, and no more runs came to their
// end than the job counts; beside those that a provider has lost before it could write them down.
func (w *world) checkJob(t *testing.T, id string, ex *capitals, uncommitted int) {
	t.Helper()
	for deadline := time.Now().Add(15 * time.Second); !w.jobDone(id)(); {
		if time.Now().After(deadline) {
			j, _ := w.consumer.store.Job(context.Background(), id)
			c, _ := w.consumer.store.ShardCounts(context.Background(), id)
			open, _ := w.consumer.store.OpenTasks(context.Background(), "", 100)
			for _, task := range open {
				t.Logf("open: %+v", task)
			}
			t.Fatalf("the job has not ended: %+v, %+v", j, c)
		}
		<-time.After(2 * time.Millisecond)
	}
	ctx := context.Background()
	role, ok := w.consumer.get().(*consumer.Service)
	if !ok {
		t.Fatal("no consumer")
	}
	v, err := role.GetJob(ctx, id)
	for err == nil && !v.State.Terminal() { // it is written a moment before it is said
		v, err = role.GetJob(ctx, id)
	}
	if err != nil || v.State != domain.JobCompleted || v.Counts.Completed != shardsOfJob {
		t.Fatalf("the job is %+v, %v", v, err)
	}
	ended, err := role.EndedShards(ctx, id, 0, 100)
	if err != nil || len(ended) != shardsOfJob {
		t.Fatalf("%d shards have ended, %v", len(ended), err)
	}
	for i, sh := range ended {
		if sh.Ended != uint64(i+1) {
			t.Fatalf("the end %d is numbered %d", i+1, sh.Ended)
		}
		body, err := role.Result(ctx, sh.TaskID, "stdout")
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(body)
		body.Close()
		if want := fmt.Sprintf("INPUT %d", sh.Index); err != nil || string(b) != want {
			t.Fatalf("shard %d printed %q, %v", sh.Index, b, err)
		}
	}
	ex.mu.Lock()
	defer ex.mu.Unlock()
	runs := 0
	for _, n := range ex.runs {
		runs += n
	}
	if runs < shardsOfJob || runs > shardsOfJob+int(v.Counts.Extra)+uncommitted {
		t.Fatalf("%d runs came to their end, and %d extra ones are counted: %v", runs, v.Counts.Extra, ex.runs)
	}
}

// TestJobWhoseProcessEndsAtAnyCommit: before a commit is written, and after, from the first that makes the job to the last that ends it.
func TestJobWhoseProcessEndsAtAnyCommit(t *testing.T) {
	for _, who := range []string{"consumer", "provider"} {
		for _, written := range []bool{false, true} {
			for n := 1; n <= 30; n += 1 + n/6 {
				t.Run(fmt.Sprintf("%s/%d/written=%v", who, n, written), func(t *testing.T) {
					t.Parallel()
					ex := &capitals{runs: map[string]int{}}
					w := newWorld(t, ex)
					side, uncommitted := w.consumer, 0
					if who == "provider" {
						side, uncommitted = w.provider, parallel // what was in flight when it ended
					}
					side.crashAt(n, written)
					id := w.submitJob(t)
					t.Logf("ended: %v", side.restartAfterCrash(w.jobDone(id)))
					w.checkJob(t, id, ex, uncommitted)
				})
			}
		}
	}
}
