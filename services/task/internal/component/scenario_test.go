package component_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
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
