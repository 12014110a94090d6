package upgrade

import (
	"context"
	"crypto/sha256"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
)

// load submits tasks at a consumer while it lasts, and knows what each must come to.
type load struct {
	t      *testing.T
	at     *machine
	cancel context.CancelFunc
	wg     sync.WaitGroup
	mu     sync.Mutex
	tasks  map[string]*record // by task id
	failed []string
}

type record struct {
	request, want string
	seen          string // the first outcome that was seen
}

const (
	workers = 3
	pause   = 60 * time.Millisecond // of a worker, between its tasks
)

func startLoad(t *testing.T, at *machine) *load {
	ctx, cancel := context.WithCancel(t.Context())
	l := &load{t: t, at: at, cancel: cancel, tasks: map[string]*record{}}
	for w := range workers {
		l.wg.Go(func() { l.work(ctx, w) })
	}
	t.Cleanup(func() { cancel(); l.wg.Wait() })
	return l
}

func (l *load) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.tasks)
}

func (l *load) work(ctx context.Context, worker int) {
	for i := 0; ctx.Err() == nil; i++ {
		spec, want := draw(worker, i)
		r := &record{request: fmt.Sprintf("load-%d-%d", worker, i), want: want}
		id := l.submit(ctx, r, spec)
		if id == "" {
			return
		}
		l.mu.Lock()
		if l.tasks[id] != nil {
			l.failed = append(l.failed, "two requests got the task "+id)
		}
		l.tasks[id] = r
		l.mu.Unlock()
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

// draw makes a task: a sum, a program that waits, one whose result is content of its own, one with input.
func draw(worker, i int) (*taskv1.TaskSpec, string) {
	wasm := func(stdin []byte, args ...string) *taskv1.TaskSpec {
		p := &taskv1.WasmPayload{Module: &taskv1.Blob{Source: &taskv1.Blob_Inline{Inline: probe}}, Args: args}
		if stdin != nil {
			p.Stdin = &taskv1.Blob{Source: &taskv1.Blob_Inline{Inline: stdin}}
		}
		return &taskv1.TaskSpec{Type: "wasm", Limits: &eventv1.Limits{Time: durationpb.New(time.Minute)}, Placement: &taskv1.PlacementPolicy{MaxAttempts: 10},
			Payload: &taskv1.TaskSpec_Wasm{Wasm: p}}
	}
	switch (worker + i) % 5 {
	case 0, 1:
		return &taskv1.TaskSpec{Type: "sum", Placement: &taskv1.PlacementPolicy{MaxAttempts: 10}, Payload: &taskv1.TaskSpec_Sum{Sum: &taskv1.SumPayload{Addends: []string{fmt.Sprint(i), fmt.Sprint(worker)}}}},
			fmt.Sprintf("%d\n", i+worker)
	case 2:
		return wasm(nil, "wait", "400"), "waited\n"
	case 3:
		return wasm(nil, "print", "200000"), printed(200_000)
	default:
		in := strings.Repeat(fmt.Sprintf("%d %d ", worker, i), 500)
		return wasm([]byte(in), "cat"), in
	}
}

// printed is what the probe prints.
func printed(size int) string {
	b := make([]byte, size)
	x := uint32(1)
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = byte(x >> 24)
	}
	return string(b)
}

// submit tries again until the node has the task: the request's id makes it the same one.
func (l *load) submit(ctx context.Context, r *record, spec *taskv1.TaskSpec) string {
	var last error
	for begin := time.Now(); time.Since(begin) < time.Minute; {
		call, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		got, err := l.at.client.SubmitTask(call, &nodev1.SubmitTaskRequest{RequestId: r.request, Spec: spec})
		cancel()
		if err == nil {
			return got.GetTask().GetId()
		}
		last = err
		<-time.After(20 * time.Millisecond)
	}
	l.mu.Lock()
	l.failed = append(l.failed, fmt.Sprintf("%s was not taken for a minute: %v", r.request, last))
	l.mu.Unlock()
	return ""
}

func outcome(t *taskv1.Task) string {
	s := t.GetState()
	if e := t.GetError(); e != nil {
		s += " " + e.GetReason() + " " + e.GetMessage()
	}
	if t.ExitCode != nil {
		s += fmt.Sprint(" exit ", t.GetExitCode())
	}
	return s
}

func terminal(state string) bool {
	switch state {
	case "COMPLETED", "FAILED", "CANCELLED", "EXPIRED":
		return true
	}
	return false
}

// finish submits nothing more, waits until every task has ended, and looks at each: one outcome, the right one.
func (l *load) finish() (tasks int, extra uint32) {
	t := l.t
	t.Helper()
	l.cancel()
	l.wg.Wait()
	for _, f := range l.failed {
		t.Error(f)
	}
	for id, r := range l.tasks {
		var got *taskv1.Task
		eventually(t, 90*time.Second, "the task "+r.request+" has ended", func() bool {
			call, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			x, err := l.at.client.GetTask(call, &nodev1.GetTaskRequest{TaskId: id})
			got = x.GetTask()
			return err == nil && terminal(got.GetState())
		})
		r.seen = outcome(got)
		if got.GetState() != "COMPLETED" || got.ExitCode != nil && got.GetExitCode() != 0 {
			t.Errorf("%s is %s after %d attempts: %v", r.request, r.seen, got.GetAttempts(), got.GetHistory())
			continue
		}
		extra += got.GetAttempts() - 1
		if out := l.result(id); out != r.want {
			t.Errorf("the result of %s has %d bytes with the sum %x, want %d", r.request, len(out), sha256.Sum256([]byte(out)), len(r.want))
		}
	}
	l.sameStill()
	return len(l.tasks), extra
}

func (l *load) result(id string) string {
	call, cancel := context.WithTimeout(l.t.Context(), 20*time.Second)
	defer cancel()
	stream, err := l.at.client.GetResult(call, &nodev1.GetResultRequest{TaskId: id})
	if err != nil {
		l.t.Errorf("the result of %s: %v", id, err)
		return ""
	}
	var b strings.Builder
	for {
		r, err := stream.Recv()
		if err != nil {
			return b.String()
		}
		b.Write(r.GetData())
	}
}

// sameStill looks once more: no outcome changes, and there are no more tasks than were submitted.
func (l *load) sameStill() {
	listed := 0
	for token := ""; ; {
		r, err := l.at.client.ListTasks(l.t.Context(), &nodev1.ListTasksRequest{PageToken: token, PageSize: 100})
		if err != nil {
			l.t.Fatal(err)
		}
		for _, task := range r.GetTasks() {
			listed++
			if known := l.tasks[task.GetId()]; known == nil {
				l.t.Errorf("the task %s was submitted by nobody", task.GetId())
			} else if known.seen != "" && outcome(task) != known.seen {
				l.t.Errorf("%s was %s and is %s", known.request, known.seen, outcome(task))
			}
		}
		if token = r.GetNextPageToken(); token == "" {
			break
		}
	}
	if listed != len(l.tasks) {
		l.t.Errorf("%d tasks are listed, and %d were submitted", listed, len(l.tasks))
	}
}
