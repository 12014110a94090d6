package faults_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
)

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

// load submits tasks at every consumer, and keeps what was promised and what was seen.
type load struct {
	w      *world
	probe  []byte
	cancel context.CancelFunc
	wg     sync.WaitGroup
	mu     sync.Mutex
	tasks  map[string]*record // by task id
	tries  int                // submissions that had no answer, and were made again
}

// record is one task as its user knows it.
type record struct {
	node, request string
	want          string // stdout, or its hash where it is long
	exit          int32
	cancelled     bool
	unsure        bool   // whether its cancel was heard
	seen          string // the first outcome that was seen; empty while there is none
	task          *taskv1.Task
}

// outcome is all that must never change.
func outcome(t *taskv1.Task) string {
	s := t.GetState()
	if t.ExitCode != nil {
		s += fmt.Sprintf(" exit %d", t.GetExitCode())
	}
	if e := t.GetError(); e != nil {
		s += " " + e.GetReason()
	}
	return s
}

func newLoad(w *world) *load {
	out := filepath.Join(w.t.TempDir(), "probe.wasm")
	build := exec.Command("go", "build", "-trimpath", "-o", out, "../programs/probe")
	build.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false")
	if msg, err := build.CombinedOutput(); err != nil {
		w.t.Fatalf("build the probe: %v\n%s", err, msg)
	}
	probe, err := os.ReadFile(out)
	if err != nil {
		w.t.Fatal(err)
	}
	return &load{w: w, probe: probe, tasks: map[string]*record{}}
}

const workers = 3 // at each consumer

func (l *load) begin() {
	ctx, cancel := context.WithCancel(context.Background())
	l.cancel = cancel
	for c := range consumers {
		node := fmt.Sprintf("consumer-%d", c+1)
		for i := range workers {
			l.wg.Go(func() { l.work(ctx, node, i) })
		}
		l.wg.Go(func() { l.look(ctx, node) })
	}
}

// stop submits nothing more, and returns how many tasks were accepted.
func (l *load) stop() int {
	l.cancel()
	l.wg.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.tasks)
}

// work submits one task after the other.
func (l *load) work(ctx context.Context, node string, worker int) {
	rng := rand.New(rand.NewPCG(*seed, uint64(worker)<<8|uint64(node[len(node)-1])))
	for i := 0; ctx.Err() == nil; i++ {
		spec, rec := l.draw(rng, i)
		rec.node, rec.request = node, fmt.Sprintf("%s-%d-%d", node, worker, i)
		spec.Placement = &taskv1.PlacementPolicy{MaxAttempts: 10} // a task must outlive what is done to its providers
		id := l.submit(ctx, rec, spec)
		if id == "" {
			return
		}
		if rec.cancelled {
			l.cancelTask(ctx, rec, id)
		}
		select {
		case <-time.After(time.Duration(50+rng.IntN(250)) * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// draw makes a task: most are sums, the others run the probe.
func (l *load) draw(rng *rand.Rand, i int) (*taskv1.TaskSpec, *record) {
	wasm := func(args ...string) *taskv1.TaskSpec {
		return &taskv1.TaskSpec{Type: "wasm", Limits: &eventv1.Limits{Time: durationpb.New(time.Minute)},
			Payload: &taskv1.TaskSpec_Wasm{Wasm: &taskv1.WasmPayload{Module: &taskv1.Blob{Source: &taskv1.Blob_Inline{Inline: l.probe}}, Args: args}}}
	}
	switch n := rng.IntN(20); {
	case n < 9:
		return &taskv1.TaskSpec{Type: "sum", Payload: &taskv1.TaskSpec_Sum{Sum: &taskv1.SumPayload{Addends: []string{fmt.Sprint(i), "1"}}}}, &record{want: fmt.Sprintf("%d\n", i+1)}
	case n < 14:
		return wasm("wait", fmt.Sprint(100+rng.IntN(3000))), &record{want: "waited\n"}
	case n < 16:
		return wasm("echo", "task", fmt.Sprint(i)), &record{want: fmt.Sprintf("task %d\n", i)}
	case n < 17: // too large to travel in an event
		size := 200_000 + rng.IntN(400_000)
		return wasm("print", fmt.Sprint(size)), &record{want: printed(size)}
	case n < 18:
		return wasm("exit", "3"), &record{exit: 3}
	default:
		return wasm("wait", "20000"), &record{cancelled: true}
	}
}

// printed is the hash of what the probe prints.
func printed(size int) string {
	b := make([]byte, size)
	x := uint32(1)
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = byte(x >> 24)
	}
	return fmt.Sprintf("%x", sha256.Sum256(b))
}

// submit makes the task by its request id, again and again until somebody answers.
func (l *load) submit(ctx context.Context, rec *record, spec *taskv1.TaskSpec) string {
	for ctx.Err() == nil {
		if c := l.w.client(rec.node); c != nil {
			one, cancel := context.WithTimeout(ctx, 5*time.Second)
			r, err := c.SubmitTask(one, &nodev1.SubmitTaskRequest{RequestId: rec.request, Spec: spec})
			cancel()
			if err == nil {
				l.mu.Lock()
				l.tasks[r.GetTask().GetId()] = rec
				l.mu.Unlock()
				return r.GetTask().GetId()
			}
		}
		l.mu.Lock()
		l.tries++
		l.mu.Unlock()
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
		}
	}
	return ""
}

func (l *load) cancelTask(ctx context.Context, rec *record, id string) {
	for ctx.Err() == nil {
		if c := l.w.client(rec.node); c != nil {
			one, cancel := context.WithTimeout(ctx, 5*time.Second)
			_, err := c.CancelTask(one, &nodev1.CancelTaskRequest{TaskId: id})
			cancel()
			if err == nil {
				return
			}
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	rec.cancelled, rec.unsure, rec.want = false, true, "waited\n" // it may have been heard
}

// look looks at a consumer's tasks again and again, as users do.
func (l *load) look(ctx context.Context, node string) {
	for ctx.Err() == nil {
		l.lookOnce(ctx, node)
		select {
		case <-time.After(300 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// lookOnce returns how many of the node's tasks are not known to be over.
func (l *load) lookOnce(ctx context.Context, node string) (open int) {
	l.mu.Lock()
	ids := make([]string, 0, len(l.tasks))
	for id, rec := range l.tasks {
		if rec.node == node {
			ids = append(ids, id)
		}
	}
	l.mu.Unlock()
	c := l.w.client(node)
	for i, id := range ids {
		if c == nil || ctx.Err() != nil {
			return len(ids) - i + open
		}
		one, cancel := context.WithTimeout(ctx, 3*time.Second)
		r, err := c.GetTask(one, &nodev1.GetTaskRequest{TaskId: id})
		cancel()
		if err != nil || !l.saw(id, r.GetTask()) {
			open++
		}
		if err != nil && one.Err() != nil {
			return len(ids) - i - 1 + open
		}
	}
	return open
}

// saw notes what a user has seen, and says whether it is an outcome.
func (l *load) saw(id string, t *taskv1.Task) bool {
	over := t.GetFinishedAt() != nil
	l.mu.Lock()
	defer l.mu.Unlock()
	rec := l.tasks[id]
	now := ""
	if over {
		now = outcome(t)
	}
	if rec.seen != "" && now != rec.seen {
		l.w.t.Errorf("task %s was seen as %s, and then as %s", id, rec.seen, t.GetState()+" "+now)
	}
	if over {
		rec.seen, rec.task = now, t
	}
	return over
}

// settle waits until every task is over.
func (l *load) settle(within time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	open := 0
	done := eventually(within, func() bool {
		open = 0
		for c := range consumers {
			open += l.lookOnce(ctx, fmt.Sprintf("consumer-%d", c+1))
		}
		return open == 0
	})
	if done {
		return
	}
	l.w.t.Errorf("%d tasks are not over within %v", open, within)
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, rec := range l.tasks {
		if rec.seen != "" {
			continue
		}
		if r, err := l.w.client(rec.node).GetTask(context.Background(), &nodev1.GetTaskRequest{TaskId: id}); err == nil {
			l.w.t.Logf("open: %s at %s is %s", id, rec.node, r.GetTask().GetState())
			trace(l.w, r.GetTask())
		}
	}
}

func trace(w *world, t *taskv1.Task) {
	for _, h := range t.GetHistory() {
		w.t.Logf("  %s attempt %d %s %s: %s", h.GetAt().AsTime().Format("15:04:05.000"), h.GetAttempt(), h.GetState(), h.GetWhat(), h.GetDetail())
	}
}

func (l *load) outcomes() map[string]string {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make(map[string]string, len(l.tasks))
	for id, rec := range l.tasks {
		out[id] = rec.seen
	}
	return out
}

// judge holds every outcome against what it has to be.
func (l *load) judge() {
	l.mu.Lock()
	defer l.mu.Unlock()
	states := map[string]int{}
	attempts, extra := 0, 0
	for id, rec := range l.tasks {
		if rec.seen == "" {
			continue
		}
		states[rec.seen]++
		attempts += int(rec.task.GetAttempts())
		extra += max(0, int(rec.task.GetAttempts())-1)
		if why := l.wrong(id, rec); why != "" {
			l.w.t.Errorf("task %s (%s) ended %s: %s: %v", id, rec.request, rec.seen, why, rec.task.GetError())
			trace(l.w, rec.task)
		}
	}
	l.w.t.Logf("%d tasks, %d submissions made again, %d attempts, of them %d extra; outcomes: %v", len(l.tasks), l.tries, attempts, extra, states)
}

// wrong says why an outcome cannot be. A task may only have failed because of its providers or its clocks, and then nobody was told
// anything else.
func (l *load) wrong(id string, rec *record) string {
	switch s := rec.task.GetState(); {
	case s == "CANCELLED":
		if !rec.cancelled && !rec.unsure {
			return "nobody cancelled it"
		}
	case s == "COMPLETED" && rec.cancelled:
		return "it sleeps for longer than its cancel takes"
	case s == "COMPLETED":
		if rec.task.GetExitCode() != rec.exit {
			return fmt.Sprintf("its exit code should be %d", rec.exit)
		}
		got, err := l.stdout(rec.node, id)
		if err != nil {
			return "its result cannot be read: " + err.Error()
		}
		if got != rec.want && fmt.Sprintf("%x", sha256.Sum256([]byte(got))) != rec.want {
			return fmt.Sprintf("it printed %.40q", got)
		}
	default:
		return "all that it needed was there again"
	}
	return ""
}

func (l *load) stdout(node, id string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	stream, err := l.w.client(node).GetResult(ctx, &nodev1.GetResultRequest{TaskId: id})
	if err != nil {
		return "", err
	}
	var b []byte
	for {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return string(b), nil
		}
		if err != nil {
			return "", err
		}
		b = append(b, r.GetData()...)
	}
}
