package component_test

import (
	"slices"
	"sync"
	"testing"
	"time"

	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
	"github.com/shallot-net/shallot/services/task/internal/adapter/wire"
	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/app/consumer"
	"github.com/shallot-net/shallot/services/task/internal/app/provider"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

func TestRedirect(t *testing.T) {
	t.Parallel()
	n, s := newNetwork(t), newScript()
	busy, free := n.addProvider(func(c *provider.Config) {
		withScript(s, 1)(c)
		c.Evaluator = domain.TwoChoices{Margin: 0.5}
	}), n.addProvider(withScript(s, 4))
	c := n.addConsumer(func(c *consumer.Config) { c.Redirect = true })
	offer := free.candidate()
	offer.Metric = &eventv1.Metric{PeerId: free.peer, Version: 1, Queue: &eventv1.Queue{Slots: 4, Capacity: 100}}
	busy.mu.Lock()
	busy.offered = []*taskv1.Candidate{offer}
	busy.mu.Unlock()
	first := c.submit(scriptSpec(step{Name: "hog", Wait: true}), busy)
	c.await(first, "RUNNING")
	task := c.await(c.submit(scriptSpec(step{Name: "b", Stdout: 4}), busy), "COMPLETED")
	if task.GetProvider() != free.peer || task.GetAttempts() != 1 || !slices.Contains(happened(task), "REDIRECTED") {
		t.Fatalf("the task is %v: %v", task, details(task))
	}
	spec := scriptSpec(step{Name: "c"})
	no := false
	// Who handed it on may have been asked before that was known.
	status := &eventv1.Event{Id: app.NewID(), Type: eventv1.EventType_EVENT_TYPE_TASK_STATUS, Payload: wire.Codec{}.Encode(&domain.StatusEvent{TaskID: task.GetId(), Attempt: 1, State: domain.Failed})}
	if d, err := c.deliver(busy.peer, status); err != nil || d.GetVerdict() == uint32(app.Rejected) {
		t.Fatalf("its word is held against it: %v, %v", d, err)
	}
	spec.Placement = &taskv1.PlacementPolicy{Redirect: &no}
	third := c.submit(spec, busy)
	c.await(third, "ACCEPTED")
	close(s.gate("hog"))
	if task := c.await(third, "COMPLETED"); task.GetProvider() != busy.peer {
		t.Fatalf("it was redirected: %v", details(task))
	}
}

// TestHandedOnOnce: whoever gets a task from another provider keeps it, busy or not; and its word may be heard before the other's.
func TestHandedOnOnce(t *testing.T) {
	t.Parallel()
	n, s := newNetwork(t), newScript()
	busy := func(c *provider.Config) {
		withScript(s, 1)(c)
		c.Evaluator = domain.TwoChoices{Margin: 0.5}
	}
	first, second, third := n.addProvider(busy), n.addProvider(busy), n.addProvider(withScript(s, 4))
	c := n.addConsumer(func(c *consumer.Config) { c.Redirect, c.Lease = true, time.Minute })
	offer := func(from, to *node, slots uint32) {
		o := to.candidate()
		o.Metric = &eventv1.Metric{PeerId: to.peer, Version: 1, Queue: &eventv1.Queue{Slots: slots, Capacity: 100}}
		from.mu.Lock()
		from.offered = []*taskv1.Candidate{o}
		from.mu.Unlock()
	}
	c.await(c.submit(scriptSpec(step{Name: "hog", Wait: true}), first), "RUNNING")
	c.await(c.submit(scriptSpec(step{Name: "hog2", Wait: true}), second), "RUNNING")
	defer close(s.gate("hog"))
	offer(first, second, 4)
	offer(second, third, 4)
	heard := make(chan struct{}) // the second's word
	once := sync.OnceFunc(func() { close(heard) })
	n.setRoute(func(from, to string, ev *eventv1.Event) action {
		if to != c.peer {
			return pass
		}
		switch {
		case from == first.peer && ev.GetType() == eventv1.EventType_EVENT_TYPE_TASK_REDIRECTED:
			<-heard
		case from == second.peer && ev.GetType() == eventv1.EventType_EVENT_TYPE_TASK_ACCEPTED:
			if d, err := c.deliver(from, ev); err != nil || d.GetVerdict() != 3 { // not yet: it comes again
				t.Errorf("the second's word is %v, %v", d, err)
			}
			once()
		}
		return pass
	})
	id := c.submit(scriptSpec(step{Name: "b", Stdout: 4}), first)
	c.await(id, "ACCEPTED")
	close(s.gate("hog2"))
	task := c.await(id, "COMPLETED")
	if task.GetProvider() != second.peer || task.GetAttempts() != 1 {
		t.Fatalf("the task is %v: %v", task, details(task))
	}
}

func TestRedirectToNobodyComesBack(t *testing.T) {
	t.Parallel()
	n, s := newNetwork(t), newScript()
	busy, gone, other := n.addProvider(func(c *provider.Config) {
		withScript(s, 1)(c)
		c.Evaluator = domain.TwoChoices{Margin: 0.5}
	}), n.addProvider(withScript(s, 4)), n.addProvider(withScript(s, 1))
	c := n.addConsumer(func(c *consumer.Config) { c.Redirect = true })
	n.setRoute(func(_, to string, _ *eventv1.Event) action {
		if to == gone.peer {
			return unreachable
		}
		return pass
	})
	offer := gone.candidate()
	offer.Metric = &eventv1.Metric{PeerId: gone.peer, Version: 1, Queue: &eventv1.Queue{Slots: 4}}
	busy.mu.Lock()
	busy.offered = []*taskv1.Candidate{offer}
	busy.mu.Unlock()
	c.useProviders(other)
	first := c.submit(scriptSpec(step{Name: "hog", Wait: true}), busy)
	c.await(first, "RUNNING")
	task := c.await(c.submit(scriptSpec(step{Name: "b"}), busy), "COMPLETED")
	if task.GetProvider() != other.peer {
		t.Fatalf("the task is %v: %v", task, details(task))
	}
	close(s.gate("hog"))
	c.await(first, "COMPLETED")
}
