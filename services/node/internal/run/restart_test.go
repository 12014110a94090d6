package run

import (
	"context"
	"fmt"
	"testing"

	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
	"github.com/shallot-net/shallot/services/node/internal/fake"
)

func TestTaskServiceRestartsMidFlight(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.provider()
	wait := make(chan struct{})
	p.task.Evaluate = func(*eventv1.TaskSubmission, *taskv1.DeliverEvent) fake.Decision { return fake.Decision{Wait: wait} }
	c := w.consumer(p)
	c.knows(1)
	const n = 16
	done := make(chan outcome, n)
	for i := range n {
		go func() { done <- c.run(testContext(t), fmt.Sprint(i), sumOf(fmt.Sprint(i), "100")) }()
	}
	eventually(t, "all are accepted", func() bool { return len(p.task.Stats().Delivered) == n && p.task.Stats().Outbox == 0 })
	c.task.Stop()
	p.task.Stop()
	close(wait)
	go func() { done <- c.run(testContext(t), "while it is away", sumOf("1", "100")) }()
	eventually(t, "the results wait in p's outbox", func() bool { return p.task.Stats().Outbox == n })
	p.task.Start()
	c.task.Start()
	got := map[string]bool{}
	for range n + 1 {
		o := <-done
		if o.err != nil || o.task.GetState() != "COMPLETED" {
			t.Fatalf("states %v, error %v", o.states, o.err)
		}
		got[o.stdout] = true
	}
	if len(got) != n { // 101 is there twice
		t.Errorf("%d different results", len(got))
	}
}

func TestBrokerRestarts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.provider()
	c := w.consumer(p)
	c.knows(1)
	c.run(testContext(t), "", sumOf("1")).want(t, "1")
	for _, b := range []*member{p, c} {
		b.broker.Stop()
		done := make(chan outcome, 1)
		go func() { done <- c.run(testContext(t), "", sumOf("1", "2")) }()
		if b == c {
			eventually(t, "the consumer is offline", func() bool { return !c.node.flow.Online() })
			r, err := c.api.GetNode(testContext(t), &nodev1.GetNodeRequest{})
			if err != nil || r.GetNode().GetOnline() || r.GetNode().GetReady() || r.GetNode().GetPeerId() != c.id() {
				t.Errorf("the node says %v, error %v", r.GetNode(), err)
			}
		}
		b.broker.Start()
		(<-done).want(t, "3")
	}
	eventually(t, "the task service knows", func() bool {
		o := c.task.Stats().Online
		return len(o) >= 3 && o[len(o)-1] && !o[len(o)-2]
	})
}

func TestWatchers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.provider()
	wait := make(chan struct{})
	p.task.Evaluate = func(*eventv1.TaskSubmission, *taskv1.DeliverEvent) fake.Decision { return fake.Decision{Wait: wait} }
	c := w.consumer(p)
	c.knows(1)
	ctx := testContext(t)
	s, err := c.api.SubmitTask(ctx, &nodev1.SubmitTaskRequest{Spec: sumOf("5")})
	if err != nil {
		t.Fatal(err)
	}
	id := s.GetTask().GetId()
	watch, err := c.api.WatchTask(ctx, &nodev1.WatchTaskRequest{TaskId: id})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := watch.Recv(); err != nil {
		t.Fatal(err)
	}
	gone, stop := context.WithCancel(ctx)
	left, err := c.api.WatchTask(gone, &nodev1.WatchTaskRequest{TaskId: id})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := left.Recv(); err != nil {
		t.Fatal(err)
	}
	stop()
	eventually(t, "the watch that was left is gone", func() bool { return c.node.watches.Count() == 1 })
	c.task.Stop() // a session that breaks loses nothing
	c.task.Start()
	close(wait)
	state := ""
	for {
		r, err := watch.Recv()
		if err != nil {
			break
		}
		state = r.GetTask().GetState()
		if len(r.GetTask().GetHistory()) > 0 {
			t.Error("the history is in a watch")
		}
	}
	if state != "COMPLETED" {
		t.Errorf("the last state is %s", state)
	}
	// One that begins after the end gets the end.
	watch, err = c.api.WatchTask(ctx, &nodev1.WatchTaskRequest{TaskId: id})
	if err != nil {
		t.Fatal(err)
	}
	if r, err := watch.Recv(); err != nil || r.GetTask().GetState() != "COMPLETED" {
		t.Errorf("got %v, %v", r, err)
	}
	if _, err := watch.Recv(); err == nil || err.Error() != "EOF" {
		t.Errorf("the watch goes on: %v", err)
	}
}
