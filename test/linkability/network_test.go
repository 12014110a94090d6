package linkability

import (
	"context"
	"crypto/rand"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	mrand "math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
	"github.com/shallot-net/shallot/test/internal/dev"
	"github.com/shallot-net/shallot/test/internal/linkage"
	"github.com/shallot-net/shallot/test/internal/module"
)

const (
	providers = 2
	// taskLimit is what every task may take, a busy machine included.
	taskLimit = 4 * time.Minute
	// atOnce bounds the tasks under way, whoever's they are: a bound of each consumer would show in the order of its tasks.
	atOnce = 24
	// lasting is how long a task takes that lasts: long enough for its persona to ask for signs of life.
	lasting = 25 * time.Second
)

// world is a network whose providers are looked at.
type world struct {
	*dev.Network
	eyes      *linkage.Eyes
	consumers int

	mu     sync.Mutex
	owners map[string]int // by task
}

func start(t *testing.T, consumers int) *world {
	t.Helper()
	needTor(t)
	t.Setenv("SHALLOT_NODE_PERSONAS_PER_JOB", "1") // for the control: all shards of a job leave from one persona. What is no job's has a persona of its own anyway.
	t.Setenv("SHALLOT_TASK_PROVIDER_SLOTS", "16")  // so that tasks which only wait do not make others wait
	dir, err := os.MkdirTemp("", "link")           // sockets need a short path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	var homes []string
	for i := range providers {
		homes = append(homes, filepath.Join(dir, "net", provider(i)))
	}
	w := &world{consumers: consumers, owners: map[string]int{}}
	if w.eyes, err = linkage.Open(context.WithoutCancel(t.Context()), dir, homes); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.eyes.Close)
	if w.Network, err = dev.Start(t.Context(), dev.Config{Bin: bin, Dir: filepath.Join(dir, "net"), Providers: providers, Consumers: consumers, Args: []string{"--anonymous"}}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Stop(); err != nil {
			t.Errorf("stop: %v", err)
		}
		if t.Failed() {
			t.Log("supervisor said:\n" + w.Tail())
		}
	})
	t.Logf("the network was ready after %v", w.ReadyAfter.Round(time.Second))
	return w
}

func provider(i int) string { return fmt.Sprintf("provider-%d", i+1) }
func consumer(i int) string { return fmt.Sprintf("consumer-%d", i+1) }

func (w *world) own(task string, consumer int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.owners[task] = consumer
}

func (w *world) providerIDs(t *testing.T) (ids []string) {
	t.Helper()
	for i := range providers {
		c, err := w.Node(provider(i))
		if err != nil {
			t.Fatal(err)
		}
		r, err := c.GetNode(t.Context(), &nodev1.GetNodeRequest{ShowAddresses: true})
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, r.GetNode().GetPeerId())
	}
	return ids
}

// seen are the tasks as the providers know them, and which the control's are.
func (w *world) seen(t *testing.T, name string) []*linkage.Task {
	t.Helper()
	sights, err := w.eyes.Sights()
	if err != nil {
		t.Fatal(err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	tasks, err := linkage.Tasks(sights, w.owners, w.providerIDs(t))
	if err != nil {
		t.Fatal(err)
	}
	if len(tasks) != len(w.owners) {
		t.Fatalf("the providers have seen %d of %d tasks", len(tasks), len(w.owners))
	}
	clear(w.owners)
	if *record != "" {
		f, err := os.Create(filepath.Join(*record, name+".gob"))
		if err == nil {
			err = errors.Join(gob.NewEncoder(f).Encode(tasks), f.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return tasks
}

// kinds are the shares of tasks that are not small: that last, and that refer to content.
type kinds struct{ lasting, referring float64 }

// tasks has all consumers submit identical tasks, in an order and at times that are drawn for all of them together. Which are of what kind is drawn, too.
func (w *world) tasks(t *testing.T, each int, gap time.Duration, of kinds) {
	t.Helper()
	r := mrand.New(mrand.NewPCG(1, uint64(each)))
	slots := make(chan struct{}, atOnce)
	timer := time.NewTimer(0)
	defer timer.Stop()
	failed := make(chan error, w.consumers*each)
	var all sync.WaitGroup
	for _, i := range r.Perm(w.consumers * each) {
		who, spec := i%w.consumers, small()
		switch kind := r.Float64(); {
		case kind < of.lasting:
			spec = sleeping()
		case kind < of.lasting+of.referring:
			spec = referring()
		}
		<-timer.C
		timer.Reset(time.Duration(r.ExpFloat64() * float64(gap)))
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			if err := w.run(t.Context(), who, spec); err != nil {
				failed <- fmt.Errorf("%s: %w", consumer(who), err)
			}
		})
	}
	all.Wait()
	close(failed)
	for err := range failed {
		t.Error(err)
	}
}

func (w *world) run(ctx context.Context, who int, spec *taskv1.TaskSpec) error {
	ctx, cancel := context.WithTimeout(ctx, taskLimit)
	defer cancel()
	c, err := w.Node(consumer(who))
	if err != nil {
		return err
	}
	stream, err := c.RunTask(ctx, &nodev1.RunTaskRequest{RequestId: rand.Text(), Spec: spec})
	if err != nil {
		return err
	}
	state := ""
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if task := m.GetTask(); task != nil {
			w.own(task.GetId(), who)
			state = task.GetState()
		}
	}
	if state != "COMPLETED" {
		return fmt.Errorf("a task is %s", state)
	}
	return nil
}

// jobs has each consumer do the same as one job, whose shards leave from one persona.
func (w *world) jobs(t *testing.T, each int) {
	t.Helper()
	failed := make(chan error, w.consumers)
	var all sync.WaitGroup
	for who := range w.consumers {
		all.Go(func() {
			if err := w.job(t.Context(), who, each); err != nil {
				failed <- fmt.Errorf("the job of %s: %w", consumer(who), err)
			}
		})
	}
	all.Wait()
	close(failed)
	for err := range failed {
		t.Fatal(err)
	}
}

func (w *world) job(ctx context.Context, who, each int) error {
	ctx, cancel := context.WithTimeout(ctx, taskLimit)
	defer cancel()
	c, err := w.Jobs(consumer(who))
	if err != nil {
		return err
	}
	made, err := c.CreateJob(ctx, &nodev1.CreateJobRequest{RequestId: rand.Text(), Spec: &taskv1.JobSpec{Task: small(), Total: uint32(each), Parallel: 4}})
	if err != nil {
		return err
	}
	id := made.GetJob().GetId()
	add := &nodev1.AddShardsRequest{JobId: id}
	for i := range each {
		add.Shards = append(add.Shards, &taskv1.NewShard{Index: uint32(i), Name: fmt.Sprint("input-", i), Content: inline([]byte("the same"))})
	}
	if _, err := c.AddShards(ctx, add); err != nil {
		return err
	}
	stream, err := c.WatchJob(ctx, &nodev1.WatchJobRequest{JobId: id})
	if err != nil {
		return err
	}
	ended := 0
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if s := m.GetShard().GetShard(); s != nil {
			if s.GetState() != "COMPLETED" {
				return fmt.Errorf("a shard is %s: %v", s.GetState(), s.GetError())
			}
			w.own(s.GetTaskId(), who)
			ended++
		}
	}
	if ended != each {
		return fmt.Errorf("%d of %d shards have ended", ended, each)
	}
	return nil
}

func small() *taskv1.TaskSpec { return wasm(module.Small()) }

// referring is a task whose program is so large that it is content of its own, which the provider fetches.
func referring() *taskv1.TaskSpec { return wasm(module.Large(64 << 10)) }

func sleeping() *taskv1.TaskSpec { return wasm(module.Sleep(lasting)) }

func wasm(program []byte) *taskv1.TaskSpec {
	return &taskv1.TaskSpec{Type: "wasm", Limits: &eventv1.Limits{Time: durationpb.New(time.Minute)},
		Payload: &taskv1.TaskSpec_Wasm{Wasm: &taskv1.WasmPayload{Module: inline(program)}}}
}

func inline(b []byte) *taskv1.Blob { return &taskv1.Blob{Source: &taskv1.Blob_Inline{Inline: b}} }

// settled waits until the personas of all tasks are gone, since the moments at which they go are a feature as well; but not for long after that should be.
func (w *world) settled(t *testing.T, limit time.Duration) {
	t.Helper()
	if left := w.until(t, limit, func(sights []linkage.Sight) (left int) {
		submitted, there := map[string]bool{}, map[string]bool{}
		for _, s := range sights {
			switch s.What {
			case linkage.Heard:
				submitted[s.Peer] = submitted[s.Peer] || s.Event.GetType() == eventv1.EventType_EVENT_TYPE_TASK_SUBMISSION
			case linkage.Connected, linkage.Disconnected:
				there[s.Peer] = s.What == linkage.Connected
			}
		}
		for p, yes := range submitted {
			if yes && there[p] {
				left++
			}
		}
		return left
	}); left > 0 {
		t.Logf("%d personas are still connected %v after their tasks have ended", left, limit)
	}
}

// collected waits until the providers know that the results have arrived, each from a persona of its own.
func (w *world) collected(t *testing.T, limit time.Duration) {
	t.Helper()
	if left := w.until(t, limit, func(sights []linkage.Sight) int {
		w.mu.Lock()
		defer w.mu.Unlock()
		left, submitter := len(w.owners), map[string]bool{}
		for _, s := range sights {
			if s.What != linkage.Heard {
				continue
			}
			var sub eventv1.TaskSubmission
			switch s.Event.GetType() {
			case eventv1.EventType_EVENT_TYPE_TASK_SUBMISSION:
				if proto.Unmarshal(s.Event.GetPayload(), &sub) == nil {
					_, ours := w.owners[sub.GetTaskId()]
					submitter[s.Peer] = submitter[s.Peer] || ours
				}
			case eventv1.EventType_EVENT_TYPE_TASK_COLLECTED:
				if submitter[s.Peer] {
					left--
				}
				submitter[s.Peer] = false
			}
		}
		return left
	}); left > 0 {
		t.Fatalf("%d results are not said to be collected within %v", left, limit)
	}
}

// until waits until nothing is left of what f counts, or returns what is left after the limit.
func (w *world) until(t *testing.T, limit time.Duration, f func([]linkage.Sight) (left int)) int {
	t.Helper()
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		sights, err := w.eyes.Sights()
		if err != nil {
			t.Fatal(err)
		}
		left := f(sights)
		if left <= 0 {
			return 0
		}
		select {
		case <-deadline.C:
			return left
		case <-tick.C:
		}
	}
}
