package replicas

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/shallot-net/shallot/kit/fault"
	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
	"github.com/shallot-net/shallot/test/internal/module"
)

const (
	tasks    = 200 // at least
	users    = 8
	between  = time.Second
	paused   = 8 * time.Second // a lease has six
	patience = 60 * time.Second
)

func sum(i int) *taskv1.TaskSpec {
	return &taskv1.TaskSpec{Type: "sum", Payload: &taskv1.TaskSpec_Sum{Sum: &taskv1.SumPayload{Addends: []string{fmt.Sprint(i), "1"}}}}
}

func sleeps(d time.Duration) *taskv1.TaskSpec {
	return &taskv1.TaskSpec{Type: "wasm", Limits: &eventv1.Limits{Time: durationpb.New(time.Minute)},
		Payload: &taskv1.TaskSpec_Wasm{Wasm: &taskv1.WasmPayload{Module: &taskv1.Blob{Source: &taskv1.Blob_Inline{Inline: module.Sleep(d)}}}}}
}

// away tells of a replica that is not there now: its user goes to another.
func away(err error) bool {
	code := fault.From(err).Code
	return code == codes.Unavailable || code == codes.DeadlineExceeded || code == codes.Canceled
}

// user calls replicas by chance, and another when one is not there.
type user struct {
	w    *world
	ctx  context.Context
	rand *rand.Rand
}

func (u *user) at(do func(ctx context.Context, n nodev1.NodeServiceClient) error) error {
	for {
		ctx, cancel := context.WithTimeout(u.ctx, 5*time.Second)
		err := do(ctx, u.w.consumers[u.rand.IntN(len(u.w.consumers))])
		cancel()
		if err == nil || u.ctx.Err() != nil || !away(err) {
			return err
		}
	}
}

func (u *user) submit(request string, spec *taskv1.TaskSpec) (id string, err error) {
	err = u.at(func(ctx context.Context, n nodev1.NodeServiceClient) error {
		r, err := n.SubmitTask(ctx, &nodev1.SubmitTaskRequest{RequestId: request, Spec: spec})
		id = r.GetTask().GetId()
		return err
	})
	return id, err
}

// both submits at two replicas at once: one task comes of it.
func (u *user) both(request string, spec *taskv1.TaskSpec) (string, error) {
	ids, errs := make([]string, 2), make([]error, 2)
	var wg sync.WaitGroup
	for i := range 2 {
		other := &user{w: u.w, ctx: u.ctx, rand: rand.New(rand.NewPCG(u.rand.Uint64(), uint64(i)))}
		wg.Go(func() { ids[i], errs[i] = other.submit(request, spec) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return "", err
	}
	if ids[0] != ids[1] {
		return "", fmt.Errorf("one request id became the tasks %s and %s", ids[0], ids[1])
	}
	return ids[0], nil
}

// outcome watches a task to its end.
func (u *user) outcome(id string) (state string, err error) {
	err = u.at(func(_ context.Context, n nodev1.NodeServiceClient) error {
		s, err := n.WatchTask(u.ctx, &nodev1.WatchTaskRequest{TaskId: id})
		for err == nil {
			var r *nodev1.WatchTaskResponse
			if r, err = s.Recv(); err == nil {
				state = r.GetTask().GetState()
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		return err
	})
	return state, err
}

func (u *user) result(id string) (out string, err error) {
	err = u.at(func(ctx context.Context, n nodev1.NodeServiceClient) error {
		var b bytes.Buffer
		s, err := n.GetResult(ctx, &nodev1.GetResultRequest{TaskId: id})
		for err == nil {
			var r *nodev1.GetResultResponse
			if r, err = s.Recv(); err == nil {
				b.Write(r.GetData())
			}
		}
		if errors.Is(err, io.EOF) {
			out, err = b.String(), nil
		}
		return err
	})
	return out, err
}

// task is one from its submission to its end.
func (u *user) task(i int) error {
	request := fmt.Sprintf("request-%d", i)
	spec, want := sum(i), fmt.Sprintln(i+1)
	if i%4 == 0 {
		spec, want = sleeps(30*time.Millisecond), ""
	}
	submit := u.submit
	if i%5 == 0 {
		submit = u.both
	}
	id, err := submit(request, spec)
	if err != nil {
		return fmt.Errorf("submit: %w", err)
	}
	state, err := u.outcome(id)
	if err != nil || state != "COMPLETED" {
		return fmt.Errorf("task %s ended as %s: %w", id, state, err)
	}
	out, err := u.result(id)
	if err != nil || out != want {
		return fmt.Errorf("the result of task %s is %q, want %q: %w", id, out, want, err)
	}
	if again, err := u.submit(request, spec); err != nil || again != id {
		return fmt.Errorf("the request of task %s, repeated, is task %s: %w", id, again, err)
	}
	return nil
}

// hurt kills one replica after another, and starts each again; at last it stops one of task and one of node for longer than a lease, and crashes the store. At most one is
// away at a time.
func (w *world) hurt(ctx context.Context, draw *rand.Rand) (kills, pauses int) {
	pause := func(ctx context.Context, p *process) { p.pause(ctx, paused) }
	kill := func(_ context.Context, p *process) {
		p.kill()
		p.start()
	}
	do := func(p *process, what func(context.Context, *process)) bool {
		t := time.NewTimer(between)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			return false
		}
		what(ctx, p)
		return ctx.Err() == nil && p.ready(ctx)
	}
	order := shuffled(w.all, draw)
	for _, p := range order {
		if p.listen == "" {
			continue // there is one of it
		}
		if !do(p, kill) {
			return kills, pauses
		}
		kills++
	}
	seen := map[string]bool{"broker": true, "discovery": true, "metric": true}
	for _, p := range order {
		if seen[p.kind] || p.listen == "" {
			continue
		}
		seen[p.kind] = true
		if !do(p, pause) {
			return kills, pauses
		}
		pauses++
	}
	// The store crashes, and is away for a moment.
	w.server.Stop(w.t)
	t := time.NewTimer(between)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
	w.server.Restart(w.t)
	for _, p := range order {
		if !p.ready(ctx) {
			break
		}
	}
	return kills, pauses
}

func shuffled(all []*process, draw *rand.Rand) []*process {
	out := append([]*process(nil), all...)
	draw.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

// Some hundred tasks by users who go to any replica, while every replica of both nodes is killed and comes back: one outcome each, nothing lost, the same answer everywhere.
func TestReplicasAreKilledUnderLoad(t *testing.T) {
	w := newWorld(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	hurtDone := make(chan struct{})
	var kills, pauses int
	go func() {
		defer close(hurtDone)
		kills, pauses = w.hurt(ctx, rand.New(rand.NewPCG(seed, 0)))
	}()

	next := make(chan int)
	var wg sync.WaitGroup
	for n := range users {
		u := &user{w: w, ctx: ctx, rand: rand.New(rand.NewPCG(seed, uint64(n+1)))}
		wg.Go(func() {
			for i := range next {
				if err := u.task(i); err != nil {
					t.Errorf("task %d: %v", i, err)
				}
			}
		})
	}
	pace := time.NewTicker(100 * time.Millisecond)
	defer pace.Stop()
	submitted := 0
	for ended := hurtDone; submitted < tasks || ended != nil; {
		select {
		case <-pace.C:
			next <- submitted
			submitted++
		case <-ended:
			ended = nil
		case <-ctx.Done():
			t.Fatal("it takes too long")
		}
	}
	close(next)
	wg.Wait()
	t.Logf("%d tasks, %d kills, %d pauses", submitted, kills, pauses)
	if replicas := len(w.all) - 3; kills != replicas || pauses != 2 {
		t.Errorf("%d of %d replicas were killed, and %d paused", kills, replicas, pauses)
	}
	u := &user{w: w, ctx: ctx, rand: rand.New(rand.NewPCG(seed, 99))}
	w.cancels(u)
	w.sameEverywhere(u, submitted)
	w.saysTheSame(u)
}

// cancels ends a task at another replica than the one that took it.
func (w *world) cancels(u *user) {
	t := w.t
	t.Helper()
	r, err := w.consumers[0].SubmitTask(u.ctx, &nodev1.SubmitTaskRequest{Spec: sleeps(30 * time.Second)})
	if err != nil {
		t.Fatal(err)
	}
	id := r.GetTask().GetId()
	if err := u.at(func(_ context.Context, n nodev1.NodeServiceClient) error {
		_, err := w.consumers[1].CancelTask(u.ctx, &nodev1.CancelTaskRequest{TaskId: id})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if state, err := u.outcome(id); err != nil || state != "CANCELLED" {
		t.Errorf("a task that was cancelled at another replica is %s, %v", state, err)
	}
}

// sameEverywhere asks each replica for the same things.
func (w *world) sameEverywhere(u *user, tasks int) {
	t := w.t
	t.Helper()
	for i, n := range w.consumers {
		states := map[string]int{}
		for token := ""; ; {
			r, err := n.ListTasks(u.ctx, &nodev1.ListTasksRequest{PageSize: 50, PageToken: token})
			if err != nil {
				t.Fatal(err)
			}
			for _, task := range r.GetTasks() {
				states[task.GetState()]++
			}
			if token = r.GetNextPageToken(); token == "" {
				break
			}
		}
		if states["COMPLETED"] != tasks || states["CANCELLED"] != 1 || len(states) != 2 {
			t.Errorf("the consumer's node %d lists %v, want %d COMPLETED and one CANCELLED", i+1, states, tasks)
		}
	}
	threads := map[uint32]bool{}
	for _, n := range w.providers {
		r, err := n.ListMetrics(u.ctx, &nodev1.ListMetricsRequest{})
		if err != nil || len(r.GetMetrics()) == 0 {
			t.Fatalf("ListMetrics = %v, %v", r, err)
		}
		threads[r.GetMetrics()[0].GetMetric().GetCpu().GetThreads()] = true
		page := "" // of a list that any of the task replicas gives, page by page
		for seen := 0; ; {
			r, err := n.ListTasks(u.ctx, &nodev1.ListTasksRequest{PageSize: 20, PageToken: page})
			if err != nil {
				t.Fatal(err)
			}
			seen += len(r.GetTasks())
			if page = r.GetNextPageToken(); page == "" {
				if seen < tasks {
					t.Errorf("the provider's node lists %d tasks", seen)
				}
				break
			}
		}
	}
	if len(threads) != 1 {
		t.Errorf("the provider's nodes say that it has %v threads", threads)
	}
}
