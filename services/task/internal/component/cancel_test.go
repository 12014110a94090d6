package component_test

import (
	"context"
	"testing"
	"time"

	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

func TestCancelWhileRunning(t *testing.T) {
	t.Parallel()
	n, s := newNetwork(t), newScript()
	p, c := n.addProvider(withScript(s, 1)), n.addConsumer(nil)
	id := c.submit(scriptSpec(step{Name: "a", Wait: true, Stderr: "so far\n"}), p)
	c.await(id, "RUNNING")
	begin := time.Now()
	for range 2 { // idempotent
		if _, err := c.client.CancelTask(context.Background(), &taskv1.CancelTaskRequest{TaskId: id}); err != nil {
			t.Fatal(err)
		}
	}
	task := c.await(id, "CANCELLED")
	if d := time.Since(begin); d > time.Second {
		t.Errorf("it took %s", d)
	}
	if got := c.result(id, "stderr"); got != "so far\n" {
		t.Errorf("stderr is %q, history %v", got, details(task))
	}
	until(t, "the provider to be idle", func() bool { return p.provider.Queue() == domain.Queue{Slots: 1, Capacity: 1024} })
}

func TestCancelInTheQueue(t *testing.T) {
	t.Parallel()
	n, s := newNetwork(t), newScript()
	p, c := n.addProvider(withScript(s, 1)), n.addConsumer(nil)
	first := c.submit(scriptSpec(step{Name: "a", Wait: true}), p)
	c.await(first, "RUNNING")
	second := c.submit(scriptSpec(step{Name: "b"}), p)
	c.await(second, "ACCEPTED")
	if _, err := c.client.CancelTask(context.Background(), &taskv1.CancelTaskRequest{TaskId: second}); err != nil {
		t.Fatal(err)
	}
	c.await(second, "CANCELLED")
	close(s.gate("a"))
	c.await(first, "COMPLETED")
	if s.ran("b") != 0 {
		t.Error("the cancelled task ran")
	}
}

func TestCancelWhilePending(t *testing.T) {
	t.Parallel()
	c := newNetwork(t).addConsumer(nil)
	r := c.create("x", sumSpec("1"), nil)
	if r.GetPlacement() == nil || r.GetTask().GetState() != "PENDING" {
		t.Fatalf("the answer is %v", r)
	}
	m, err := c.client.CancelTask(context.Background(), &taskv1.CancelTaskRequest{TaskId: r.GetTask().GetId()})
	if err != nil || m.GetTask().GetState() != "CANCELLED" {
		t.Fatalf("cancel: %v, %v", m, err)
	}
}
