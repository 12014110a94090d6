package run

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/shallot-net/shallot/kit/fault"
	brokerv1 "github.com/shallot-net/shallot/proto/shallot/broker/v1"
	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
	"github.com/shallot-net/shallot/services/node/internal/fake"
)

func TestSumThroughBothRoles(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.provider()
	c := w.consumer(p)
	c.knows(1)
	o := c.run(testContext(t), "", sumOf("1", "2", "3"))
	o.want(t, "6")
	if got := strings.Join(o.states, " "); got != "SUBMITTED COMPLETED" {
		t.Errorf("states are %s", got)
	}
	if o.task.GetProvider() != p.id() || len(o.task.GetRequestId()) < 16 {
		t.Errorf("provider %q, request id %q", o.task.GetProvider(), o.task.GetRequestId())
	}
	eventually(t, "both outboxes are empty", func() bool { return p.task.Stats().Outbox == 0 && c.task.Stats().Outbox == 0 })
	d := p.task.Stats().Delivered[0]
	if d.GetFromPeer() != c.id() || d.GetEvent().GetAuthor() != c.id() || d.GetOwnPeerId() != p.id() {
		t.Errorf("the submission came from %q, signed by %q, at %q", d.GetFromPeer(), d.GetEvent().GetAuthor(), d.GetOwnPeerId())
	}
}

func TestAllProvidersAreKnownSoon(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, _, _ := w.provider(), w.provider(), w.provider()
	c := w.consumer(a)
	began := time.Now()
	c.knows(3)
	if d := time.Since(began); d > 2*time.Second {
		t.Errorf("it took %v", d)
	}
	eventually(t, "all three are connected and have metrics", func() bool {
		r, err := c.api.ListMetrics(testContext(t), &nodev1.ListMetricsRequest{})
		return err == nil && len(r.GetMetrics()) == 3
	})
	r, err := c.api.ListPeers(testContext(t), &nodev1.ListPeersRequest{Capability: "sum", State: "available", PageSize: 2})
	if err != nil || len(r.GetPeers()) != 2 || r.GetNextPageToken() == "" {
		t.Fatalf("a page has %d peers, token %q, error %v", len(r.GetPeers()), r.GetNextPageToken(), err)
	}
	r, err = c.api.ListPeers(testContext(t), &nodev1.ListPeersRequest{PageSize: 2, PageToken: r.GetNextPageToken()})
	if err != nil || len(r.GetPeers()) != 1 || r.GetNextPageToken() != "" {
		t.Fatalf("the last page has %d peers, token %q, error %v", len(r.GetPeers()), r.GetNextPageToken(), err)
	}
}

func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.provider(), w.provider()
	c := w.consumer(a, b)
	c.knows(2)
	ctx := testContext(t)
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			for j := range 4 {
				c.run(ctx, "", sumOf(fmt.Sprint(i), fmt.Sprint(j))).want(t, fmt.Sprint(i+j))
			}
		})
	}
	wg.Wait()
	if n := a.task.Stats().Executed + b.task.Stats().Executed; n != 256 {
		t.Errorf("%d executions", n)
	}
	if min(a.task.Stats().Executed, b.task.Stats().Executed) < 64 {
		t.Errorf("the work is uneven: %d and %d", a.task.Stats().Executed, b.task.Stats().Executed)
	}
	eventually(t, "nothing is left in the outboxes", func() bool {
		return a.task.Stats().Outbox+b.task.Stats().Outbox+c.task.Stats().Outbox == 0
	})
	if n := c.node.watches.Count(); n != 0 {
		t.Errorf("%d watches are left", n)
	}
}

func TestRepeatedRequestIDs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.consumer(w.provider())
	c.knows(1)
	ctx := testContext(t)
	var wg sync.WaitGroup
	ids := make([]string, 8)
	for i := range ids {
		wg.Go(func() {
			o := c.run(ctx, "the same", sumOf("20", "22"))
			o.want(t, "42")
			ids[i] = o.task.GetId()
		})
	}
	wg.Wait()
	for _, id := range ids {
		if id != ids[0] {
			t.Fatalf("several tasks: %v", ids)
		}
	}
	if n := c.task.Stats().Created; n != 1 {
		t.Errorf("%d tasks were made", n)
	}
}

func TestLargeResult(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.consumer(w.provider())
	c.knows(1)
	c.run(testContext(t), "", sumOf("0", "fill")).want(t, strings.Repeat("x", 100_000))
}

func TestPlacementSaysWhy(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.provider(), w.provider()
	b.types = []string{"wasm"}
	c := w.consumer(a, b)
	c.knows(2)
	o := c.run(testContext(t), "", sumOf("1"))
	o.want(t, "1")
	detail := ""
	for _, h := range c.task.Find(o.task.GetId()).GetHistory() {
		if h.GetWhat() == "SUBMITTED" {
			detail = h.GetDetail()
		}
	}
	if !strings.Contains(detail, "the only one that qualifies") || !strings.Contains(detail, "does not execute sum") {
		t.Errorf("the placement says %q", detail)
	}
}

func TestPendingUntilAProviderAppears(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.provider()
	c := w.consumer()
	done := make(chan outcome, 1)
	go func() { done <- c.run(testContext(t), "", sumOf("4", "5")) }()
	eventually(t, "the task waits for a provider, and says why", func() bool { return c.node.placer.Pending() == 1 && c.task.Stats().Created == 1 })
	if _, err := c.api.ConnectPeer(testContext(t), &nodev1.ConnectPeerRequest{Address: p.broker.JoinAddress()}); err != nil {
		t.Fatal(err)
	}
	o := <-done
	o.want(t, "9")
	if o.states[0] != "PENDING" {
		t.Errorf("states are %v", o.states)
	}
	history := ""
	for _, h := range c.task.Find(o.task.GetId()).GetHistory() {
		history += h.GetWhat() + ": " + h.GetDetail() + "\n"
	}
	if !strings.Contains(history, "NO_CANDIDATE: no provider is known yet") {
		t.Errorf("the history is\n%s", history)
	}
}

func TestRefusedIsPlacedElsewhere(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.provider(), w.provider()
	refuse := func(*eventv1.TaskSubmission, *taskv1.DeliverEvent) fake.Decision {
		return fake.Decision{Refuse: "QUEUE_FULL"}
	}
	a.task.Evaluate = refuse
	c := w.consumer(a, b)
	c.knows(2)
	spec := sumOf("1", "1")
	spec.Placement = &taskv1.PlacementPolicy{Exclude: []string{b.id()}}
	s, err := c.api.SubmitTask(testContext(t), &nodev1.SubmitTaskRequest{Spec: spec})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the task has nowhere to go", func() bool {
		for _, h := range c.task.Find(s.GetTask().GetId()).GetHistory() {
			if h.GetWhat() == "NO_CANDIDATE" && strings.Contains(h.GetDetail(), "excluded: QUEUE_FULL") && strings.Contains(h.GetDetail(), "excluded: EXCLUDED_BY_USER") {
				return true
			}
		}
		return false
	})
	for range 4 { // whichever is drawn first
		c.run(testContext(t), "", sumOf("1", "1")).want(t, "2")
	}
}

func TestRedirectConnectsToTheNewProvider(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.provider(), w.provider()
	w.net.Connect(a.broker, b.broker)
	a.discovery.SetPeer(b.row())
	a.task.Evaluate = func(_ *eventv1.TaskSubmission, d *taskv1.DeliverEvent) fake.Decision {
		for _, c := range d.GetCandidates() {
			return fake.Decision{RedirectTo: c}
		}
		return fake.Decision{}
	}
	eventually(t, "a has b in its snapshot", func() bool { return a.node.provider.Available() == 1 && a.node.provider.Self() != nil })
	c := w.consumer(a)
	// The consumer must not know b before it is told by the redirect.
	w.mu.Lock()
	w.nodes = []*member{a, c}
	w.mu.Unlock()
	c.knows(1)
	c.run(testContext(t), "", sumOf("2", "2")).want(t, "4")
	if a.task.Stats().Executed != 0 || b.task.Stats().Executed != 1 {
		t.Errorf("executed at a %d, at b %d", a.task.Stats().Executed, b.task.Stats().Executed)
	}
	if !c.broker.Connected(b.broker) {
		t.Error("the consumer is not connected to b")
	}
}

func TestUnreachablePeerBlocksNobody(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.provider(), w.provider()
	c := w.consumer(a, b)
	c.task.SubmitTimeout = 30 * time.Second
	c.knows(2)
	w.net.Part(func(x, y string) bool { return x == c.id() && y == b.id() })
	spec := sumOf("7")
	spec.Placement = &taskv1.PlacementPolicy{Providers: []string{b.id()}}
	for range 20 {
		if _, err := c.api.SubmitTask(testContext(t), &nodev1.SubmitTaskRequest{Spec: spec}); err != nil {
			t.Fatal(err)
		}
	}
	only := sumOf("1", "2")
	only.Placement = &taskv1.PlacementPolicy{Providers: []string{a.id()}}
	for range 20 {
		c.run(testContext(t), "", only).want(t, "3")
	}
	w.net.Part(nil)
	c.broker.Reconnect()
	eventually(t, "b has executed what waited for it", func() bool { return b.task.Stats().Executed == 20 })
}

func TestUnreachableIsToldAndPlacedElsewhere(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.provider(), w.provider()
	c := w.consumer(a, b)
	c.task.SubmitTimeout = 300 * time.Millisecond
	c.knows(2)
	b.broker.OnSend(nil)
	c.broker.OnSend(func(r *brokerv1.SendRequest) error {
		if r.GetPeerId() == b.id() && r.GetEvent().GetType() == eventv1.EventType_EVENT_TYPE_TASK_SUBMISSION {
			return fault.Unavailable("UNREACHABLE", "cut")
		}
		return nil
	})
	for range 6 {
		c.run(testContext(t), "", sumOf("3", "3")).want(t, "6")
	}
	if n := b.task.Stats().Executed; n != 0 {
		t.Errorf("b executed %d", n)
	}
}

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

func TestCodes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.provider()
	c := w.consumer(p)
	c.knows(1)
	ctx := testContext(t)
	o := c.run(ctx, "", sumOf("1"))
	id := o.task.GetId()
	typo := id[:31] + string('0'+('f'-id[31])%10)
	if typo == id {
		typo = id[:31] + "a"
	}
	for name, x := range map[string]struct {
		call func() error
		code codes.Code
		says []string
	}{
		"provider":          {func() error { _, err := p.api.SubmitTask(ctx, &nodev1.SubmitTaskRequest{Spec: sumOf("1")}); return err }, codes.FailedPrecondition, []string{"shallot up --role consumer"}},
		"run at a provider": {func() error { return p.run(ctx, "", sumOf("1")).err }, codes.FailedPrecondition, []string{"shallot up --role consumer"}},
		"nothing to add":    {func() error { return c.run(ctx, "", sumOf()).err }, codes.InvalidArgument, []string{"spec.sum.addends"}},
		"no spec":           {func() error { return c.run(ctx, "", nil).err }, codes.InvalidArgument, []string{"spec.type"}},
		"bad type":          {func() error { return c.run(ctx, "", &taskv1.TaskSpec{Type: "a b"}).err }, codes.InvalidArgument, []string{"a b"}},
		"long request id":   {func() error { return c.run(ctx, strings.Repeat("x", 129), sumOf("1")).err }, codes.InvalidArgument, []string{"129", "128"}},
		"bad provider": {func() error {
			s := sumOf("1")
			s.Placement = &taskv1.PlacementPolicy{Providers: []string{"nobody"}}
			return c.run(ctx, "", s).err
		}, codes.InvalidArgument, []string{"spec.placement.providers[0]", "nobody"}},
		"unknown task":  {func() error { _, err := c.api.GetTask(ctx, &nodev1.GetTaskRequest{TaskId: typo}); return err }, codes.NotFound, []string{typo, "did you mean", id}},
		"short task id": {func() error { _, err := c.api.CancelTask(ctx, &nodev1.CancelTaskRequest{TaskId: id[:8]}); return err }, codes.InvalidArgument, []string{"task_id", id[:8], "did you mean", id}},
		"no task id":    {func() error { _, err := c.api.GetTask(ctx, &nodev1.GetTaskRequest{}); return err }, codes.InvalidArgument, []string{"task_id is empty"}},
		"unknown peer": {func() error {
			_, err := c.api.GetPeer(ctx, &nodev1.GetPeerRequest{PeerId: p.id()[:51] + "z"})
			return err
		}, codes.NotFound, []string{"did you mean", p.id()}},
		"bad peer": {func() error {
			_, err := c.api.GetPeerMetrics(ctx, &nodev1.GetPeerMetricsRequest{PeerId: "x"})
			return err
		}, codes.InvalidArgument, []string{"peer_id", `"x"`}},
		"bad address": {func() error {
			_, err := c.api.ConnectPeer(ctx, &nodev1.ConnectPeerRequest{Address: "/ip4/1.2.3.4/tcp/1"})
			return err
		}, codes.InvalidArgument, []string{"/p2p/ID"}},
		"bad state": {func() error {
			_, err := c.api.ListTasks(ctx, &nodev1.ListTasksRequest{States: []string{"COMPLETE"}})
			return err
		}, codes.InvalidArgument, []string{"COMPLETE", "did you mean"}},
		"page too large": {func() error { _, err := c.api.ListTasks(ctx, &nodev1.ListTasksRequest{PageSize: 1001}); return err }, codes.InvalidArgument, []string{"1001", "1000"}},
		"watch of a stranger": {func() error {
			s, err := c.api.WatchTask(ctx, &nodev1.WatchTaskRequest{TaskId: strings.Repeat("0", 32)})
			if err == nil {
				_, err = s.Recv()
			}
			return err
		}, codes.NotFound, []string{strings.Repeat("0", 32)}},
		"no cid": {func() error { _, err := c.api.StatContent(ctx, &nodev1.StatContentRequest{}); return err }, codes.InvalidArgument, []string{"cid is empty"}},
	} {
		err := x.call()
		f := fault.From(err)
		if f == nil || f.Code != x.code {
			t.Errorf("%s: got %v, want %v", name, err, x.code)
			continue
		}
		for _, s := range x.says {
			if !strings.Contains(f.Message, s) {
				t.Errorf("%s: %q does not say %q", name, f.Message, s)
			}
		}
	}
}
