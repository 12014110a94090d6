package component_test

import (
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
	"github.com/shallot-net/shallot/services/task/internal/app/consumer"
)

func TestUnreachableProviderIsReplaced(t *testing.T) {
	t.Parallel()
	n := newNetwork(t)
	a, b, c := n.addProvider(nil), n.addProvider(nil), n.addConsumer(nil)
	n.setRoute(func(_, to string, _ *eventv1.Event) action {
		if to == a.peer {
			return unreachable
		}
		return pass
	})
	c.useProviders(a, b)
	task := c.await(c.submit(sumSpec("1"), a), "COMPLETED")
	if task.GetProvider() != b.peer || !slices.Contains(happened(task), "UNREACHABLE") {
		t.Fatalf("the task is %v", task)
	}
}

func TestLeaseLostThenResultOfEither(t *testing.T) {
	t.Parallel()
	n, s := newNetwork(t), newScript()
	a, b := n.addProvider(withScript(s, 1)), n.addProvider(withScript(s, 1))
	c := n.addConsumer(func(c *consumer.Config) { c.Lease = 400 * time.Millisecond })
	var silent atomic.Bool
	n.setRoute(func(from, _ string, _ *eventv1.Event) action {
		if from == a.peer && silent.Load() {
			return lose
		}
		return pass
	})
	c.useProviders(a, b)
	id := c.submit(scriptSpec(step{Name: "a", Wait: true}), a)
	c.await(id, "RUNNING")
	silent.Store(true)
	until(t, "the second attempt", func() bool { return c.get(id).GetAttempts() == 2 })
	close(s.gate("a"))
	task := c.await(id, "COMPLETED")
	if task.GetProvider() != b.peer || !slices.Contains(happened(task), "LEASE_LOST") {
		t.Fatalf("the task is %v: %v", task, details(task))
	}
}

// TestTakenFromASilentProvider: it is told to stop, and says that it has: that is not its user's cancel, and the task goes on elsewhere.
func TestTakenFromASilentProvider(t *testing.T) {
	t.Parallel()
	n, s := newNetwork(t), newScript()
	a, b := n.addProvider(withScript(s, 1)), n.addProvider(withScript(s, 1))
	c := n.addConsumer(func(c *consumer.Config) { c.Lease = 400 * time.Millisecond })
	var silent, stopped atomic.Bool
	n.setRoute(func(from, _ string, ev *eventv1.Event) action {
		if from != a.peer || !silent.Load() {
			return pass
		}
		if ev.GetType() == eventv1.EventType_EVENT_TYPE_TASK_FAILURE {
			stopped.Store(true)
			return pass
		}
		return lose
	})
	c.useProviders(a, b)
	id := c.submit(scriptSpec(step{Name: "a", Wait: true, Stderr: "so far\n"}), a)
	c.await(id, "RUNNING")
	silent.Store(true)
	until(t, "the second attempt", func() bool { return c.get(id).GetAttempts() == 2 })
	until(t, "the first one's word that it has stopped", func() bool { return stopped.Load() && a.provider.Queue().Running == 0 })
	silent.Store(false)
	c.await(id, "RUNNING")
	close(s.gate("a"))
	task := c.await(id)
	if task.GetState() != "COMPLETED" || task.GetProvider() != b.peer || task.GetAttempts() != 2 {
		t.Fatalf("the task is %v: %v", task, details(task))
	}
	until(t, "both results to be let go", func() bool { return n.repo.pinned() == 0 })
}

func TestNoLeaseIsLostWhileOffline(t *testing.T) {
	t.Parallel()
	n, s := newNetwork(t), newScript()
	p := n.addProvider(withScript(s, 1))
	c := n.addConsumer(func(c *consumer.Config) { c.Lease = 200 * time.Millisecond })
	var cut atomic.Bool
	n.setRoute(func(_, _ string, _ *eventv1.Event) action {
		if cut.Load() {
			return lose
		}
		return pass
	})
	id := c.submit(scriptSpec(step{Name: "a", Wait: true}), p)
	c.await(id, "RUNNING")
	cut.Store(true)
	online(c, false)
	pause(600 * time.Millisecond) // three leases
	cut.Store(false)
	online(c, true)
	close(s.gate("a"))
	task := c.await(id, "COMPLETED")
	if task.GetAttempts() != 1 {
		t.Fatalf("the task is %v: %v", task, details(task))
	}
}

func online(c *node, yes bool) {
	c.call(&taskv1.SessionRequest{Command: &taskv1.SessionRequest_Online{Online: &taskv1.OnlineChanged{Online: yes}}})
}

// TestTwoResultsAndTheFirstIsBad: the result of a provider that had lost its lease comes first and is being fetched when the other's comes. It proves
// bad: the other one counts, although its word came when it was not wanted.
func TestTwoResultsAndTheFirstIsBad(t *testing.T) {
	t.Parallel()
	twoResults(t, false)
}

// TestTwoResultsAndTheFirstIsGood: then the other provider lets go what it has.
func TestTwoResultsAndTheFirstIsGood(t *testing.T) {
	t.Parallel()
	twoResults(t, true)
}

func twoResults(t *testing.T, good bool) {
	n, s := newNetwork(t), newScript()
	first, second := n.addProvider(withScript(s, 1)), n.addProvider(withScript(s, 1))
	c := n.addConsumer(func(c *consumer.Config) { c.Lease = time.Second })
	c.useProviders(first, second)
	var silent atomic.Bool
	fetching, came := make(chan struct{}), make(chan struct{})
	var once, onceCame sync.Once
	n.repo.instead = func(string) (b []byte) {
		once.Do(func() { // the first one's
			close(fetching)
			<-came
			if !good {
				b = []byte("nonsense")
			}
		})
		return b
	}
	n.setRoute(func(from, to string, ev *eventv1.Event) action {
		switch {
		case from == first.peer && silent.Load(), to == first.peer && ev.GetType() == eventv1.EventType_EVENT_TYPE_TASK_CANCEL:
			return lose
		case from == second.peer && ev.GetType() == eventv1.EventType_EVENT_TYPE_TASK_RESULT:
			<-fetching
			if _, err := c.deliver(from, ev); err == nil { // it has heard, and will not be told again by itself
				onceCame.Do(func() { close(came) })
				return lose
			}
		}
		return pass
	})
	id := c.submit(scriptSpec(step{Name: "a", Wait: true, Files: 200_000}), first)
	c.await(id, "RUNNING")
	silent.Store(true)
	until(t, "the other to be at work", func() bool { return s.ran("a") == 2 && c.get(id).GetState() == "RUNNING" })
	silent.Store(false)
	close(s.gate("a"))
	task := c.await(id, "COMPLETED")
	want := second.peer
	if good {
		want = first.peer
	}
	if task.GetProvider() != want {
		t.Errorf("the task is done by another: %v", happened(task))
	}
	until(t, "nothing to be kept", func() bool { return n.repo.pinned() == 0 })
}
