package component_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
	"github.com/shallot-net/shallot/services/task/internal/adapter/wire"
	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/app/consumer"
	"github.com/shallot-net/shallot/services/task/internal/app/provider"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// withScript gives a provider the scripted executor, and as many slots.
func withScript(s *script, slots int) func(*provider.Config) {
	return func(c *provider.Config) {
		c.Executors = []app.Executor{s}
		c.Policy.Slots = slots
		c.Progress = 50 * time.Millisecond
	}
}

func TestSlowTaskIsAcceptedThenRuns(t *testing.T) {
	t.Parallel()
	n, s := newNetwork(t), newScript()
	p, c := n.addProvider(withScript(s, 1)), n.addConsumer(nil)
	id := c.submit(scriptSpec(step{Name: "a", Wait: true, Stdout: 5}), p)
	c.await(id, "RUNNING")
	close(s.gate("a"))
	task := c.await(id, "COMPLETED")
	if want := []string{"CREATED", "SUBMITTED", "ACCEPTED", "STARTED", "RESULT", "COMPLETED"}; !slices.Equal(happened(task), want) {
		t.Fatalf("history is %v, want %v", happened(task), want)
	}
	if got := c.result(id, "stdout"); got != "01234" {
		t.Fatalf("stdout is %q", got)
	}
}

func TestRepeatedRequestIsOneTask(t *testing.T) {
	t.Parallel()
	n := newNetwork(t)
	p, c := n.addProvider(nil), n.addConsumer(nil)
	first := c.create("the same", sumSpec("1"), p)
	second := c.create("the same", sumSpec("1"), p)
	if !second.GetExisted() || second.GetTask().GetId() != first.GetTask().GetId() {
		t.Fatalf("the second answer is %v", second)
	}
	c.await(first.GetTask().GetId(), "COMPLETED")
	third := c.create("the same", sumSpec("1"), nil)
	if !third.GetExisted() || string(third.GetStdout()) != "1\n" || third.GetPlacement() != nil {
		t.Fatalf("the third answer is %v", third)
	}
}

func TestEveryEventTwiceAndReordered(t *testing.T) {
	t.Parallel()
	n, s := newNetwork(t), newScript()
	n.setRoute(func(string, string, *eventv1.Event) action { return twice })
	p, c := n.addProvider(withScript(s, 2)), n.addConsumer(nil)
	id := c.submit(scriptSpec(step{Name: "a", Stdout: 3}), p)
	if task := c.await(id); task.GetState() != "COMPLETED" {
		t.Fatalf("the task is %v", task)
	}
	slow := c.submit(scriptSpec(step{Name: "b", Sleep: 200 * time.Millisecond}), p)
	if task := c.await(slow); task.GetState() != "COMPLETED" {
		t.Fatalf("the task is %v", task)
	}
	if s.ran("a") != 1 || s.ran("b") != 1 {
		t.Fatalf("it ran %d and %d times", s.ran("a"), s.ran("b"))
	}
	// What was delivered is delivered again, the other way round: nothing changes.
	before := c.get(slow).GetRevision()
	c.mu.Lock()
	seen := slices.Clone(c.seen)
	c.mu.Unlock()
	slices.Reverse(seen)
	for _, ev := range seen {
		if d, err := c.deliver(p.peer, ev); err != nil || d.GetVerdict() > 1 {
			t.Fatalf("a repeated %v got %v, %v", ev.GetType(), d, err)
		}
	}
	if after := c.get(slow).GetRevision(); after != before {
		t.Fatalf("the revision went from %d to %d", before, after)
	}
}

func TestRefusedIsTriedElsewhere(t *testing.T) {
	t.Parallel()
	n, s := newNetwork(t), newScript()
	no := n.addProvider(func(c *provider.Config) {
		withScript(s, 1)(c)
		c.Policy.Limits = domain.LimitsPolicy{Default: domain.Limits{Time: time.Second, Memory: 1 << 20, Output: 1 << 20}, Max: domain.Limits{Time: time.Minute, Memory: 1 << 20, Output: 1 << 20}}
	})
	yes, c := n.addProvider(withScript(s, 1)), n.addConsumer(nil)
	c.useProviders(no, yes)
	spec := scriptSpec(step{Name: "a"})
	spec.Limits = &eventv1.Limits{Memory: 64 << 20}
	task := c.await(c.submit(spec, no), "COMPLETED")
	if task.GetProvider() != yes.peer || task.GetAttempts() != 2 {
		t.Fatalf("the task is %v", task)
	}
	detail := ""
	for _, h := range task.GetHistory() {
		if h.GetWhat() == "REFUSED" {
			detail = h.GetDetail()
		}
	}
	if !strings.Contains(detail, "LIMITS_TOO_HIGH") || !strings.Contains(detail, "64MiB") || !strings.Contains(detail, "1MiB") {
		t.Fatalf("the refusal says %q", detail)
	}
}

func TestTypeUnknownSuggests(t *testing.T) {
	t.Parallel()
	n, s := newNetwork(t), newScript()
	p, c := n.addProvider(withScript(s, 1)), n.addConsumer(func(c *consumer.Config) {})
	spec := scriptSpec(step{Name: "a"})
	spec.Type = "scrip"
	spec.Clocks = &taskv1.Clocks{Placement: durationpb.New(3 * time.Second)}
	c.useProviders(p)
	task := c.await(c.submit(spec, p), "EXPIRED")
	if task.GetError().GetReason() != "PLACEMENT_CLOCK" || !strings.Contains(task.GetError().GetMessage(), "nobody is left") {
		t.Fatalf("the error is %v", task.GetError())
	}
	if all := strings.Join(details(task), "\n"); !strings.Contains(all, `did you mean "script"`) {
		t.Fatalf("the history says %q", all)
	}
}

func details(t *taskv1.Task) []string {
	var out []string
	for _, h := range t.GetHistory() {
		out = append(out, h.GetWhat()+" "+h.GetDetail())
	}
	return out
}

func TestExecutorDiesAndAnotherProviderDoesIt(t *testing.T) {
	t.Parallel()
	n, s := newNetwork(t), newScript()
	a, b, c := n.addProvider(withScript(s, 1)), n.addProvider(withScript(s, 1)), n.addConsumer(nil)
	c.useProviders(a, b)
	task := c.await(c.submit(scriptSpec(step{Name: "a", Die: 1, Stdout: 1}), a), "COMPLETED")
	if task.GetProvider() != b.peer || task.GetAttempts() != 2 || !slices.Contains(happened(task), "FAILED_AT_PROVIDER") {
		t.Fatalf("the task is %v", task)
	}
}

func TestAttemptsAreExhausted(t *testing.T) {
	t.Parallel()
	n, s := newNetwork(t), newScript()
	var ps []*node
	for range 4 {
		ps = append(ps, n.addProvider(withScript(s, 1)))
	}
	c := n.addConsumer(nil)
	c.useProviders(ps...)
	task := c.await(c.submit(scriptSpec(step{Name: "a", Die: 100}), ps[0]), "FAILED")
	if task.GetAttempts() != 3 || task.GetError().GetReason() != "ATTEMPTS_EXHAUSTED" {
		t.Fatalf("the task is %v", task)
	}
}

func TestProgramsFailureIsFinalAndKeepsItsOutput(t *testing.T) {
	t.Parallel()
	n, s := newNetwork(t), newScript()
	p, c := n.addProvider(withScript(s, 1)), n.addConsumer(nil)
	task := c.await(c.submit(scriptSpec(step{Name: "a", Stderr: "boom\n", Reason: "TRAP"}), p), "FAILED")
	if task.GetError().GetReason() != "TRAP" || task.GetAttempts() != 1 || task.ExitCode != nil {
		t.Fatalf("the task is %v", task)
	}
	if got := c.result(task.GetId(), "stderr"); got != "boom\n" {
		t.Fatalf("stderr is %q", got)
	}
	task = c.await(c.submit(scriptSpec(step{Name: "b", Exit: 3, Stderr: "three\n"}), p), "COMPLETED")
	if task.GetExitCode() != 3 || c.result(task.GetId(), "stderr") != "three\n" {
		t.Fatalf("the task is %v", task)
	}
}

func TestOutputLimit(t *testing.T) {
	t.Parallel()
	n, s := newNetwork(t), newScript()
	p, c := n.addProvider(withScript(s, 1)), n.addConsumer(nil)
	spec := scriptSpec(step{Name: "a", Stdout: 1 << 20})
	spec.Limits = &eventv1.Limits{Output: 100_000}
	task := c.await(c.submit(spec, p), "FAILED")
	if task.GetError().GetReason() != "OUTPUT_LIMIT" || task.GetResult().GetStdoutSize() != 100_000 {
		t.Fatalf("the task is %v", task)
	}
}

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

func TestRestartsInTheMiddle(t *testing.T) {
	t.Parallel()
	n, s := newNetwork(t), newScript()
	p, c := n.addProvider(withScript(s, 1)), n.addConsumer(nil)
	running := c.submit(scriptSpec(step{Name: "run", Wait: true, Stdout: 7}), p)
	c.await(running, "RUNNING")
	waiting := c.submit(scriptSpec(step{Name: "wait", Stdout: 9}), p)
	c.await(waiting, "ACCEPTED")
	p.restart()
	c.restart()
	close(s.gate("run"))
	for id, size := range map[string]int{running: 7, waiting: 9} {
		task := c.await(id, "COMPLETED")
		if task.GetAttempts() != 1 || len(c.result(id, "")) != size {
			t.Fatalf("the task is %v: %v", task, details(task))
		}
	}
	if s.ran("run") != 2 {
		t.Errorf("what was running ran %d times, want again after the restart", s.ran("run"))
	}
}

func TestConsumerAwayWhileItsTaskEnds(t *testing.T) {
	t.Parallel()
	n, s := newNetwork(t), newScript()
	p, c := n.addProvider(withScript(s, 1)), n.addConsumer(nil)
	id := c.submit(scriptSpec(step{Name: "a", Wait: true, Stdout: 100}), p)
	c.await(id, "RUNNING")
	c.stop()
	close(s.gate("a"))
	until(t, "the provider to finish", func() bool { return p.get(id).GetState() == "COMPLETED" })
	c.start()
	if task := c.await(id, "COMPLETED"); task.GetAttempts() != 1 {
		t.Fatalf("the task is %v: %v", task, details(task))
	}
}

func TestUncollectedSubmissionIsToldAgain(t *testing.T) {
	t.Parallel()
	n := newNetwork(t)
	p, c := n.addProvider(nil), n.addConsumer(nil)
	n.setRoute(func(string, string, *eventv1.Event) action { return lose })
	id := c.submit(sumSpec("1"), p)
	n.setRoute(nil)
	c.restart()
	c.await(id, "COMPLETED")
}

func TestLogsAreFollowed(t *testing.T) {
	t.Parallel()
	n, s := newNetwork(t), newScript()
	p, c := n.addProvider(withScript(s, 1)), n.addConsumer(nil)
	id := c.submit(scriptSpec(step{Name: "a", Wait: true, Stderr: "hello\n"}), p)
	stream, err := c.client.GetLogs(context.Background(), &taskv1.GetLogsRequest{TaskId: id, Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	m, err := stream.Recv()
	if err != nil || string(m.GetData()) != "hello\n" {
		t.Fatalf("the first piece is %q, %v", m.GetData(), err)
	}
	close(s.gate("a"))
	for err == nil {
		if m, err = stream.Recv(); err == nil {
			t.Fatalf("a second piece: %q", m.GetData())
		}
	}
	if c.await(id, "COMPLETED"); c.result(id, "stderr") != "hello\n" {
		t.Fatal("stderr is not in the result")
	}
}

func TestClocksEnd(t *testing.T) {
	t.Parallel()
	n, s := newNetwork(t), newScript()
	p, c := n.addProvider(withScript(s, 1)), n.addConsumer(nil)
	short := durationpb.New(150 * time.Millisecond)
	run := scriptSpec(step{Name: "a", Wait: true})
	run.Clocks = &taskv1.Clocks{Run: short}
	if task := c.await(c.submit(run, p), "EXPIRED"); task.GetError().GetReason() != "RUN_CLOCK" {
		t.Fatalf("the error is %v", task.GetError())
	}
	until(t, "the provider to stop it", func() bool { return p.provider.Queue().Running == 0 })
	hog := c.submit(scriptSpec(step{Name: "hog", Wait: true}), p)
	c.await(hog, "RUNNING")
	queue := scriptSpec(step{Name: "b"})
	queue.Clocks = &taskv1.Clocks{Queue: short}
	if task := c.await(c.submit(queue, p), "EXPIRED"); task.GetError().GetReason() != "QUEUE_CLOCK" {
		t.Fatalf("the error is %v", task.GetError())
	}
	total := scriptSpec(step{Name: "c"})
	total.Clocks = &taskv1.Clocks{Total: short}
	if task := c.await(c.submit(total, p), "EXPIRED"); task.GetError().GetReason() != "TOTAL_CLOCK" {
		t.Fatalf("the error is %v", task.GetError())
	}
	close(s.gate("hog"))
	c.await(hog, "COMPLETED")
}

func TestQueueIsBounded(t *testing.T) {
	t.Parallel()
	n, s := newNetwork(t), newScript()
	p := n.addProvider(func(c *provider.Config) {
		withScript(s, 1)(c)
		c.Policy.Capacity, c.Policy.PerPeer = 2, 100
	})
	c := n.addConsumer(nil)
	hog := c.submit(scriptSpec(step{Name: "hog", Wait: true}), p)
	c.await(hog, "RUNNING")
	one, two := c.submit(scriptSpec(step{Name: "x"}), p), c.submit(scriptSpec(step{Name: "x"}), p)
	c.await(one, "ACCEPTED")
	c.await(two, "ACCEPTED")
	three := c.submit(scriptSpec(step{Name: "x"}), p)
	until(t, "the refusal", func() bool { return slices.Contains(happened(c.get(three)), "REFUSED") })
	c.useProviders(p)
	close(s.gate("hog"))
	for _, id := range []string{hog, one, two, three} { // the third is asked about again when its time has come
		c.await(id, "COMPLETED")
	}
}

func TestLargePayloadAndResult(t *testing.T) {
	t.Parallel()
	n, s := newNetwork(t), newScript()
	p, c := n.addProvider(withScript(s, 1)), n.addConsumer(nil)
	up, err := c.client.Upload(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for range 40 {
		if err := up.Send(&taskv1.UploadRequest{Data: make([]byte, 100_000)}); err != nil {
			t.Fatal(err)
		}
	}
	m, err := up.CloseAndRecv()
	if err != nil || m.GetSize() != 4_000_000 {
		t.Fatalf("upload: %v, %v", m, err)
	}
	n.repo.fail = errors.New("the network is busy") // a fetch that fails is tried again
	id := c.submit(scriptSpec(step{Name: "a", Stdout: 300_000, Files: 2_000_000},
		&taskv1.InputFile{Path: "big", Content: &taskv1.Blob{Source: &taskv1.Blob_UploadId{UploadId: m.GetUploadId()}}},
		&taskv1.InputFile{Path: "small", Content: &taskv1.Blob{Source: &taskv1.Blob_Inline{Inline: []byte("x")}}}), p)
	task := c.await(id, "COMPLETED")
	if got := c.result(id, ""); len(got) != 300_000+len("2 parts, 4000001 bytes") || !strings.HasSuffix(got, "2 parts, 4000001 bytes") {
		t.Fatalf("stdout has %d bytes", len(got))
	}
	if got := c.result(id, "output:out.bin"); len(got) != 2_000_000 || task.GetResult().GetFiles()[0].GetPath() != "out.bin" {
		t.Fatalf("the file has %d bytes", len(got))
	}
	until(t, "everything to be let go", func() bool { return n.repo.pinned() == 0 })
}
