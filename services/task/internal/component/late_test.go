package component_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
	"github.com/shallot-net/shallot/services/task/internal/app/consumer"
	"github.com/shallot-net/shallot/services/task/internal/app/provider"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// TestTaskOverBeforeItsRedirectIsHeard: a task was handed on and ends before its consumer hears of that. Whoever has it is no stranger: it
// is told to stop, and lets go what it has.
func TestTaskOverBeforeItsRedirectIsHeard(t *testing.T) {
	t.Parallel()
	n, s := newNetwork(t), newScript()
	busy, free := n.addProvider(func(c *provider.Config) {
		withScript(s, 1)(c)
		c.Evaluator = domain.TwoChoices{Margin: 0.5}
	}), n.addProvider(withScript(s, 4))
	c := n.addConsumer(func(c *consumer.Config) { c.Redirect = true })
	var rejected atomic.Int32
	n.setRoute(func(from, to string, ev *eventv1.Event) action {
		if ev.GetType() == eventv1.EventType_EVENT_TYPE_TASK_REDIRECTED {
			return lose
		}
		if d, err := n.node(to).deliver(from, ev); err == nil && d.GetVerdict() == 2 { // what follows is a repeat
			rejected.Add(1)
		}
		return pass
	})
	c.await(c.submit(scriptSpec(step{Name: "hog", Wait: true}), busy), "RUNNING")
	offer := free.candidate()
	offer.Metric = &eventv1.Metric{PeerId: free.peer, Version: 1, Queue: &eventv1.Queue{Slots: 4, Capacity: 100}}
	busy.mu.Lock()
	busy.offered = []*taskv1.Candidate{offer}
	busy.mu.Unlock()
	spec := scriptSpec(step{Name: "a", Wait: true})
	spec.Clocks = &taskv1.Clocks{Placement: durationpb.New(300 * time.Millisecond)}
	task := c.await(c.submit(spec, busy), "EXPIRED")
	until(t, "the other one to stop", func() bool { return s.ran("a") == 1 && free.provider.Queue().Running == 0 })
	until(t, "it to let go what it has", func() bool { return free.saw(eventv1.EventType_EVENT_TYPE_TASK_COLLECTED) })
	if rejected.Load() > 0 {
		t.Fatalf("its word was held against it %d times: %v", rejected.Load(), details(task))
	}
	close(s.gate("hog"))
}

// TestPayloadOfOneThatMayNotRunAgain: an attempt whose run was cut off by the end of its provider too often is not run again, and its payload, which
// was fetched for that, does not stay.
func TestPayloadOfOneThatMayNotRunAgain(t *testing.T) {
	t.Parallel()
	n, s := newNetwork(t), newScript()
	p, c := n.addProvider(withScript(s, 1)), n.addConsumer(nil)
	id := c.submit(scriptSpec(step{Name: "a", Wait: true}, &taskv1.InputFile{Path: "big", Content: &taskv1.Blob{Source: &taskv1.Blob_Inline{Inline: make([]byte, 100_000)}}}), p)
	for runs := 1; runs <= domain.MaxRuns; runs++ {
		until(t, "the next run", func() bool { return s.ran("a") == runs })
		p.restart()
	}
	until(t, "the end of the attempt", func() bool { return slices.Contains(happened(c.get(id)), "FAILED_AT_PROVIDER") })
	until(t, "an empty folder", func() bool {
		left, err := os.ReadDir(filepath.Join(p.dir, "work"))
		return err == nil && !slices.ContainsFunc(left, func(f os.DirEntry) bool { return strings.HasPrefix(f.Name(), "run-") })
	})
}

// TestTheOnlyProviderComesBack: it was silent for longer than a lease, and its attempt was given up. When it is heard again, it gets another.
func TestTheOnlyProviderComesBack(t *testing.T) {
	t.Parallel()
	n, s := newNetwork(t), newScript()
	p := n.addProvider(withScript(s, 1))
	c := n.addConsumer(func(c *consumer.Config) { c.Lease = 400 * time.Millisecond })
	c.useProviders(p)
	var silent atomic.Bool
	n.setRoute(func(from, _ string, _ *eventv1.Event) action {
		if from == p.peer && silent.Load() {
			return lose
		}
		return pass
	})
	id := c.submit(scriptSpec(step{Name: "a", Wait: true}), p)
	c.await(id, "RUNNING")
	silent.Store(true)
	c.await(id, "PENDING")
	until(t, "the provider to hear of it", func() bool { return p.provider.Queue().Running == 0 })
	silent.Store(false)
	c.await(id, "RUNNING")
	close(s.gate("a"))
	if task := c.await(id); task.GetState() != "COMPLETED" || task.GetAttempts() != 2 {
		t.Fatalf("the task is %v: %v", task, details(task))
	}
}

// TestOneUnreachableProviderHoldsUpNoOther: a provider that cannot be told that its results have been collected is tried again after some time.
// Until then the others are told as always.
func TestOneUnreachableProviderHoldsUpNoOther(t *testing.T) {
	t.Parallel()
	n := newNetwork(t)
	gone, there, c := n.addProvider(nil), n.addProvider(nil), n.addConsumer(nil)
	var tried, told atomic.Int32
	n.setRoute(func(_, to string, ev *eventv1.Event) action {
		switch {
		case ev.GetType() != eventv1.EventType_EVENT_TYPE_TASK_COLLECTED:
		case to == gone.peer:
			tried.Add(1)
			return unreachable
		default:
			told.Add(1)
		}
		return pass
	})
	c.await(c.submit(sumSpec("1"), gone), "COMPLETED")
	until(t, "the first try", func() bool { return tried.Load() > 0 })
	for round := range int32(2) { // the first may come along with what is put off
		c.await(c.submit(sumSpec("2"), there), "COMPLETED")
		until(t, "the other to be told", func() bool { return told.Load() > round })
	}
}
