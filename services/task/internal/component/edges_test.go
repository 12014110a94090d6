package component_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"runtime/metrics"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/shallot-net/shallot/kit/fault"
	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/app/consumer"
	"github.com/shallot-net/shallot/services/task/internal/app/provider"
)

func TestBadRequestsAreRefusedWithTheInput(t *testing.T) {
	t.Parallel()
	c := newNetwork(t).addConsumer(nil)
	long := strings.Repeat("x", 300)
	labels := map[string]string{}
	for i := range 17 {
		labels[fmt.Sprint(i)] = ""
	}
	with := func(f func(*taskv1.TaskSpec)) *taskv1.TaskSpec {
		s := sumSpec("1")
		f(s)
		return s
	}
	for name, r := range map[string]struct {
		request string
		spec    *taskv1.TaskSpec
		reason  string
		says    string
	}{
		"no request id":   {"", sumSpec("1"), "SPEC_INVALID", "request_id"},
		"long request id": {long, sumSpec("1"), "SPEC_INVALID", "128"},
		"a word":          {"r", sumSpec("1", "two"), "SUM_INVALID", `"two"`},
		"of nothing":      {"r", sumSpec(), "SUM_INVALID", "at least one"},
		"no spec":         {"r", nil, "PAYLOAD_MISSING", "payload"},
		"no payload":      {"r", &taskv1.TaskSpec{Type: "sun"}, "PAYLOAD_MISSING", `did you mean "sum"`},
		"mismatch":        {"r", with(func(s *taskv1.TaskSpec) { s.Type = "wasn" }), "PAYLOAD_MISMATCH", `did you mean "wasm"`},
		"wrong external":  {"r", &taskv1.TaskSpec{Type: "sum", Payload: &taskv1.TaskSpec_External{External: &taskv1.ExternalPayload{}}}, "PAYLOAD_MISMATCH", "sum"},
		"bad type":        {"r", &taskv1.TaskSpec{Type: "../x", Payload: &taskv1.TaskSpec_External{External: &taskv1.ExternalPayload{}}}, "SPEC_INVALID", "../x"},
		"no module":       {"r", &taskv1.TaskSpec{Type: "wasm", Payload: &taskv1.TaskSpec_Wasm{Wasm: &taskv1.WasmPayload{}}}, "MODULE_MISSING", "module"},
		"many labels":     {"r", with(func(s *taskv1.TaskSpec) { s.Labels = labels }), "SPEC_INVALID", "17"},
		"long label":      {"r", with(func(s *taskv1.TaskSpec) { s.Labels = map[string]string{"k": long} }), "SPEC_INVALID", `"k"`},
		"negative time":   {"r", with(func(s *taskv1.TaskSpec) { s.Limits = &eventv1.Limits{Time: durationpb.New(-1)} }), "SPEC_INVALID", "limits"},
		"huge memory":     {"r", with(func(s *taskv1.TaskSpec) { s.Limits = &eventv1.Limits{Memory: 1 << 63} }), "SPEC_INVALID", "limits"},
		"long clock":      {"r", with(func(s *taskv1.TaskSpec) { s.Clocks = &taskv1.Clocks{Run: durationpb.New(1000 * time.Hour)} }), "SPEC_INVALID", "1000h"},
		"bad clock":       {"r", with(func(s *taskv1.TaskSpec) { s.Clocks = &taskv1.Clocks{Queue: durationpb.New(-time.Hour)} }), "SPEC_INVALID", "queue"},
		"attempts":        {"r", with(func(s *taskv1.TaskSpec) { s.Placement = &taskv1.PlacementPolicy{MaxAttempts: 99} }), "SPEC_INVALID", "99"},
		"not a peer":      {"r", with(func(s *taskv1.TaskSpec) { s.Placement = &taskv1.PlacementPolicy{Providers: []string{"no peer!"}} }), "SPEC_INVALID", "no peer!"},
		"unknown upload":  {"r", scriptSpec(step{}, &taskv1.InputFile{Path: "f", Content: &taskv1.Blob{Source: &taskv1.Blob_UploadId{UploadId: "nonsense"}}}), "UPLOAD_NOT_FOUND", "nonsense"},
		"parts twice":     {"r", scriptSpec(step{}, &taskv1.InputFile{Path: "f"}, &taskv1.InputFile{Path: "f"}), "SPEC_INVALID", "twice"},
		"a way out":       {"r", scriptSpec(step{}, &taskv1.InputFile{Path: "input:../../etc/passwd"}), "SPEC_INVALID", "../../etc/passwd"},
	} {
		f := c.create(r.request, r.spec, nil).GetFault()
		if f.GetReason() != r.reason || !strings.Contains(f.GetMessage(), r.says) {
			t.Errorf("%s: %s: %s", name, f.GetReason(), f.GetMessage())
		}
	}
}

func TestUnknownIDsAndFilters(t *testing.T) {
	t.Parallel()
	c := newNetwork(t).addConsumer(nil)
	ctx := context.Background()
	for _, id := range []string{"", "x", app.NewID()} {
		for what, err := range map[string]error{
			"get":    second(c.client.GetTask(ctx, &taskv1.GetTaskRequest{TaskId: id})),
			"cancel": second(c.client.CancelTask(ctx, &taskv1.CancelTaskRequest{TaskId: id})),
			"result": second(c.tryResult(id, "")),
			"watch":  recvError(c, id),
		} {
			if f := fault.From(err); f == nil || f.Code != codes.NotFound || f.Reason != "TASK_NOT_FOUND" {
				t.Errorf("%s %q: %v", what, id, err)
			}
		}
	}
	_, err := c.client.ListTasks(ctx, &taskv1.ListTasksRequest{States: []string{"RUNING"}})
	if f := fault.From(err); f == nil || f.Reason != "STATE_UNKNOWN" || !strings.Contains(f.Message, `did you mean "RUNNING"`) {
		t.Errorf("a state that is none: %v", err)
	}
	_, err = c.client.ListTasks(ctx, &taskv1.ListTasksRequest{PageToken: "nonsense"})
	if f := fault.From(err); f == nil || f.Reason != "PAGE_TOKEN_INVALID" {
		t.Errorf("a token that is none: %v", err)
	}
}

func second[T any](_ T, err error) error { return err }

func recvError(c *node, id string) error {
	s, err := c.client.WatchTask(context.Background(), &taskv1.WatchTaskRequest{TaskId: id})
	if err != nil {
		return err
	}
	_, err = s.Recv()
	return err
}

func TestListsPageThrough(t *testing.T) {
	t.Parallel()
	n := newNetwork(t)
	p, c := n.addProvider(nil), n.addConsumer(nil)
	want := map[string]bool{}
	for i := range 7 {
		s := sumSpec("1")
		s.Labels = map[string]string{"n": fmt.Sprint(i)}
		id := c.submit(s, p)
		want[id] = true
		c.await(id, "COMPLETED")
	}
	for who, nd := range map[string]*node{"consumer": c, "provider": p} {
		got := map[string]bool{}
		req := &taskv1.ListTasksRequest{PageSize: 3, States: []string{"COMPLETED"}}
		for {
			r, err := nd.client.ListTasks(context.Background(), req)
			if err != nil {
				t.Fatal(err)
			}
			for _, x := range r.GetTasks() {
				got[x.GetId()] = true
			}
			if req.PageToken = r.GetNextPageToken(); req.PageToken == "" {
				break
			}
		}
		if len(got) != len(want) {
			t.Errorf("the %s lists %d tasks, want %d", who, len(got), len(want))
		}
	}
	r, err := c.client.ListTasks(context.Background(), &taskv1.ListTasksRequest{PageSize: 2})
	if err != nil || r.GetNextPageToken() == "" {
		t.Fatal(r, err)
	}
	if _, err := c.client.ListTasks(context.Background(), &taskv1.ListTasksRequest{PageSize: 2, Type: "wasm", PageToken: r.GetNextPageToken()}); err == nil {
		t.Error("a token of another filter is accepted")
	}
	if r, err := c.client.ListTasks(context.Background(), &taskv1.ListTasksRequest{Text: "n=3"}); err != nil || len(r.GetTasks()) != 1 {
		t.Errorf("by label: %v, %v", r, err)
	}
}

func TestRolesAndSessions(t *testing.T) {
	t.Parallel()
	n := newNetwork(t)
	p, c := n.addProvider(nil), n.addConsumer(nil)
	if f := p.create("r", sumSpec("1"), nil).GetFault(); f.GetReason() != "NOT_A_CONSUMER" {
		t.Errorf("a task at a provider: %v", f)
	}
	d, err := p.client.Describe(context.Background(), &taskv1.DescribeRequest{})
	if err != nil || d.GetRole() != "provider" || !strings.HasPrefix(d.GetSealingKey(), "age1pq1") || len(d.GetCapabilities()) != 1 || d.GetCapabilities()[0].GetMaxLimits().GetMemory() == 0 || d.GetQueue().GetCapacity() == 0 {
		t.Errorf("describe: %v, %v", d, err)
	}
	if d, err := c.client.Describe(context.Background(), &taskv1.DescribeRequest{}); err != nil || d.GetRole() != "consumer" {
		t.Errorf("describe: %v, %v", d, err)
	}
	w, err := c.client.WatchQueue(context.Background(), &taskv1.WatchQueueRequest{})
	if err == nil {
		_, err = w.Recv()
	}
	if fault.From(err).Reason != "WRONG_ROLE" {
		t.Errorf("a consumer's queue: %v", err)
	}
	s, err := c.client.Session(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Send(&taskv1.SessionRequest{Seq: 1, Command: &taskv1.SessionRequest_Online{Online: &taskv1.OnlineChanged{}}}); err != nil {
		t.Fatal(err)
	}
	if r, err := s.Recv(); err != nil || r.GetFault().GetReason() != "NO_HELLO" {
		t.Errorf("without a hello: %v, %v", r, err)
	}
	if err := s.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
	if r := c.call(&taskv1.SessionRequest{}); r.GetFault().GetReason() != "COMMAND_UNKNOWN" {
		t.Errorf("no command: %v", r)
	}
}

// TestHostileEvents: what a stranger or a liar says changes nothing and crashes nobody.
func TestHostileEvents(t *testing.T) {
	t.Parallel()
	n, s := newNetwork(t), newScript()
	p, c, liar := n.addProvider(withScript(s, 1)), n.addConsumer(nil), n.addProvider(nil)
	id := c.submit(scriptSpec(step{Name: "a", Wait: true}), p)
	c.await(id, "RUNNING")
	p.mu.Lock()
	submission := p.seen[0]
	p.mu.Unlock()
	before := c.get(id).GetRevision()
	send := func(to *node, from string, ev *eventv1.Event, want uint32) {
		t.Helper()
		if d, err := to.deliver(from, ev); err != nil || d.GetVerdict() != want {
			t.Errorf("%v from %s: %v, %v; want %d", ev.GetType(), from, d, err, want)
		}
	}
	event := func(typ eventv1.EventType, payload []byte) *eventv1.Event {
		return &eventv1.Event{Id: app.NewID(), Type: typ, Payload: payload}
	}
	// A consumer hears of its task from one who does not have it.
	for _, typ := range []eventv1.EventType{50, 52, 54, 57} {
		send(c, liar.peer, event(typ, []byte("\x0a\x20"+id+"\x10\x01")), 2)
	}
	// Bytes that are no message, types that are none, ids that are none.
	send(c, p.peer, event(50, []byte{0xff}), 2)
	send(c, p.peer, event(999, []byte{0xff}), 1)
	send(c, p.peer, &eventv1.Event{Id: "../../x", Type: 50}, 2)
	send(c, "../../x", event(50, nil), 2)
	send(c, p.peer, nil, 2)
	// Events of the other side.
	send(c, p.peer, submission, 2)
	send(p, c.peer, event(55, nil), 2)
	// Somebody hands in another's submission as his own; and hands it on without having had it.
	send(p, liar.peer, submission, 2)
	// A submission whose attachment is another.
	other := &eventv1.Event{Id: app.NewID(), Type: submission.Type, Payload: submission.Payload, Author: submission.Author, Signature: submission.Signature, Attachment: []byte("\x0a\x01x\x12\x01y")}
	send(p, c.peer, other, 2)
	// Cancelling another's task.
	send(p, liar.peer, event(31, []byte("\x0a\x20"+id)), 1)
	if s.ran("a") != 1 || c.get(id).GetRevision() != before {
		t.Errorf("it ran %d times, the revision is %d", s.ran("a"), c.get(id).GetRevision())
	}
	close(s.gate("a"))
	c.await(id, "COMPLETED")
	// A result once more, with another exit code and somebody else's signature.
	c.mu.Lock()
	var result *eventv1.Event
	for _, ev := range c.seen {
		if ev.GetType() == eventv1.EventType_EVENT_TYPE_TASK_RESULT {
			result = ev
		}
	}
	c.mu.Unlock()
	forged := &eventv1.Event{Id: app.NewID(), Type: result.Type, Payload: result.Payload, Attachment: result.Attachment, Author: liar.peer}
	send(c, liar.peer, forged, 2)
}

// TestFakeResultIsTriedElsewhere: a provider that signs a result which is not encrypted to the task has failed.
func TestFakeResultIsTriedElsewhere(t *testing.T) {
	t.Parallel()
	n := newNetwork(t)
	bad, good, c := n.addProvider(nil), n.addProvider(nil), n.addConsumer(nil)
	c.useProviders(bad, good)
	var spoiled atomic.Int32
	n.setRoute(func(from, _ string, ev *eventv1.Event) action {
		if from == bad.peer && ev.GetType() == eventv1.EventType_EVENT_TYPE_TASK_RESULT {
			bad.respin(ev)
			spoiled.Add(1)
		}
		return pass
	})
	task := c.await(c.submit(sumSpec("20", "22"), bad), "COMPLETED")
	if spoiled.Load() == 0 || task.GetProvider() != good.peer || c.result(task.GetId(), "") != "42\n" {
		t.Fatalf("the task is %v: %v", task, details(task))
	}
}

// TestLargeResultIsStreamed: memory stays bounded however large the result is.
func TestLargeResultIsStreamed(t *testing.T) {
	n, s := newNetwork(t), newScript()
	p := n.addProvider(withScript(s, 1))
	c := n.addConsumer(func(c *consumer.Config) { c.Collectors = 1 })
	const size, every = 32 << 20, 4 << 20
	before := liveHeap()
	var peak atomic.Uint64
	looks := atomic.Int32{}
	look := func() { looks.Add(1); peak.Store(max(peak.Load(), liveHeap())) }
	n.repo.disk = newDiskRepository(t, every, look)
	id := c.submit(scriptSpec(step{Name: "a", Files: size}), p)
	task := c.await(id, "COMPLETED")
	stream, err := c.client.GetResult(context.Background(), &taskv1.GetResultRequest{TaskId: id, Body: "output:out.bin", Offset: 100})
	if err != nil {
		t.Fatal(err)
	}
	got := 0
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if was := got; was/every != (was+len(m.GetData()))/every {
			look()
		}
		got += len(m.GetData())
	}
	if got != size-100 || task.GetResult().GetFiles()[0].GetSize() != size {
		t.Fatalf("%d bytes came back: %v", got, task)
	}
	if grown := int64(peak.Load()) - int64(before); grown > 16<<20 || looks.Load() < 3*(size/every-1) {
		t.Errorf("the live heap grew by %d MiB for a result of 32, seen %d times", grown>>20, looks.Load())
	}
}

// liveHeap is what a collection of garbage leaves, in bytes: what is merely not collected yet says nothing of a bound. What is allocated during a
// collection counts as live, so it is to be called where whoever gives the bytes has to wait.
func liveHeap() uint64 {
	runtime.GC()
	runtime.GC() // the first ends with what was allocated while those who give noticed that they have to wait
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

func TestPolicyOfPeers(t *testing.T) {
	t.Parallel()
	n := newNetwork(t)
	c := n.addConsumer(nil)
	denies := n.addProvider(func(p *provider.Config) { p.Policy.Deny = []string{c.peer} })
	other := n.addProvider(func(p *provider.Config) { p.Policy.Allow = []string{denies.peer} })
	allows := n.addProvider(func(p *provider.Config) { p.Policy.Allow = []string{c.peer} })
	c.useProviders(denies, other, allows)
	task := c.await(c.submit(sumSpec("1"), denies), "COMPLETED")
	if task.GetProvider() != allows.peer || strings.Count(strings.Join(details(task), "\n"), "PEER_NOT_ALLOWED") != 2 {
		t.Fatalf("the task is %v: %v", task, details(task))
	}
}
