package run

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

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
