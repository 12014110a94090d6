package component_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
	"github.com/shallot-net/shallot/services/task/internal/adapter/wire"
	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/app/provider"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

const (
	replicaRequest = eventv1.EventType_EVENT_TYPE_TASK_REPLICA_REQUEST
	replicaAnswer  = eventv1.EventType_EVENT_TYPE_TASK_REPLICA_ANSWER
)

// keeping is a provider that has its results kept soon.
func keeping(s *script) func(*provider.Config) {
	return func(c *provider.Config) {
		withScript(s, 2)(c)
		c.ReplicaDelay = 20 * time.Millisecond
	}
}

// submitKept submits a task whose result these may keep, too.
func (nd *node) submitKept(spec *taskv1.TaskSpec, replicas uint32, p *node, others ...*node) string {
	nd.t.Helper()
	spec.Placement = &taskv1.PlacementPolicy{Replicas: replicas}
	c := &taskv1.CreateTask{RequestId: app.NewID(), Spec: spec, Candidate: p.candidate()}
	for _, o := range others {
		c.Replicas = append(c.Replicas, &taskv1.Candidate{PeerId: o.peer, Addresses: []string{"/memory/1"}})
	}
	r := nd.call(&taskv1.SessionRequest{Command: &taskv1.SessionRequest_Create{Create: c}})
	if f := r.GetFault(); f != nil {
		nd.t.Fatalf("create: %s: %s", f.GetReason(), f.GetMessage())
	}
	return r.GetTask().GetId()
}

// replicaState is what a consumer's task says of a peer.
func replicaState(t *taskv1.Task, peer string) string {
	for _, r := range t.GetReplicaPeers() {
		if r.GetPeerId() == peer {
			return r.GetState() + r.GetReason()
		}
	}
	return ""
}

// The consumer is away while its task ends, and its provider is gone for good when it comes back.
func TestResultOutlivesItsProvider(t *testing.T) {
	t.Parallel()
	for name, size := range map[string]int{"small": 5, "large": 300_000} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n, s := newNetwork(t), newScript()
			p, a, b, c := n.addProvider(keeping(s)), n.addProvider(keeping(s)), n.addProvider(keeping(s)), n.addConsumer(nil)
			id := c.submitKept(scriptSpec(step{Name: "a", Wait: true, Stdout: size}), 2, p, p, a, b)
			c.await(id, "RUNNING")
			c.stop()
			close(s.gate("a"))
			until(t, "another provider to keep the result", func() bool { return n.repo.pinnedFor("replica") == 1 && p.saw(replicaAnswer) })
			if name == "large" { // its provider goes on with what it has after a restart
				p.restart()
			}
			p.stop()
			a.restart()
			c.start()
			task := c.await(id, "COMPLETED")
			if got := c.result(id, "stdout"); len(got) != size || s.ran("a") != 1 {
				t.Fatalf("it has %d bytes after %d runs", len(got), s.ran("a"))
			}
			if !slices.Contains(happened(task), "REPLICA") || replicaState(task, a.peer) != "KEPT" || replicaState(task, p.peer) != "" || task.GetReplicas() != 2 {
				t.Fatalf("the task is %v: %v", task, details(task))
			}
			if name == "large" && !slices.Equal(n.repo.lastFrom(), []string{p.peer, a.peer, b.peer}) {
				t.Fatalf("it was fetched from %v", n.repo.lastFrom())
			}
			until(t, "the replica to be let go", func() bool { return n.repo.pinnedFor("replica") == 0 })
			if b.saw(replicaRequest) {
				t.Error("a third provider was asked, and there was no need")
			}
		})
	}
}

func (r *repository) lastFrom() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.from
}

// A failure of the program is a result as well, also one without a word.
func TestFailureOutlivesItsProvider(t *testing.T) {
	t.Parallel()
	n, s := newNetwork(t), newScript()
	p, a, c := n.addProvider(keeping(s)), n.addProvider(keeping(s)), n.addConsumer(nil)
	id := c.submitKept(scriptSpec(step{Name: "a", Wait: true, Reason: app.ReasonTrap}), 2, p, a)
	c.await(id, "RUNNING")
	c.stop()
	close(s.gate("a"))
	until(t, "the answer", func() bool { return p.saw(replicaAnswer) })
	p.stop()
	c.start()
	if task := c.await(id, "FAILED"); task.GetError().GetReason() != app.ReasonTrap || s.ran("a") != 1 {
		t.Fatalf("the task is %v: %v", task, details(task))
	}
}

// Of those that are asked one keeps nothing for others, one cannot be reached and one does not know the question: each is replaced, and the consumer
// hears of it. Its provider is there in the end, and it alone is told of the end.
func TestReplicasAreReplaced(t *testing.T) {
	t.Parallel()
	n, s := newNetwork(t), newScript()
	off := n.addProvider(func(c *provider.Config) { keeping(s)(c); c.Policy.Replicas = -1 })
	p := n.addProvider(func(c *provider.Config) { keeping(s)(c); c.ReplicaPatience = 3 * time.Second })
	gone, old, good, c := n.addProvider(keeping(s)), n.addProvider(keeping(s)), n.addProvider(keeping(s)), n.addConsumer(nil)
	results := make(chan struct{})
	n.setRoute(func(from, to string, ev *eventv1.Event) action {
		switch {
		case to == gone.peer:
			return unreachable
		case to == old.peer && ev.GetType() == replicaRequest:
			n.wg.Go(func() { _, _ = n.node(from).try(sentAll(n.node(from))) })
			return lose
		case to == c.peer && ev.GetType() == eventv1.EventType_EVENT_TYPE_TASK_RESULT:
			<-results
		}
		return pass
	})
	id := c.submitKept(scriptSpec(step{Name: "a", Stdout: 5}), 3, p, off, gone, old, good)
	until(t, "the report", func() bool { return slices.Contains(happened(c.get(id)), "REPLICAS") })
	task := c.get(id)
	for peer, want := range map[string]string{off.peer: "REFUSEDREPLICAS_OFF", gone.peer: "SILENT", old.peer: "SILENT", good.peer: "KEPT"} {
		if got := replicaState(task, peer); got != want {
			t.Errorf("a replica is %s, want %s", got, want)
		}
	}
	if said := details(task); !strings.Contains(strings.Join(said, "\n"), "1 other providers keep the result, of 2 that were wanted") {
		t.Errorf("the history is %v", said)
	}
	kept, err := good.store.Entries(t.Context(), id)
	if err != nil || len(kept) != 1 || !kept[0].IsReplica() || kept[0].Sub.Recipient != "" {
		t.Fatalf("the replica keeps %v, %v", kept, err)
	}
	if v := good.get(id); v.GetState() != "COMPLETED" || v.GetError() != nil || v.GetHistory()[0].GetWhat() != "REPLICA" {
		t.Errorf("the replica shows %v", v)
	}
	close(results)
	c.await(id, "COMPLETED")
	until(t, "everything to be let go", func() bool { return n.repo.pinned() == 0 })
}

// sentAll acknowledges everything that a node's task service has on its way, as the broker of one does that ignores an event.
func sentAll(nd *node) *taskv1.SessionRequest {
	rows, _ := nd.store.Outbox(nd.ctx, 0, 100)
	m := &taskv1.MarkSent{}
	for _, r := range rows {
		if r.Type == domain.TypeReplicaRequest {
			m.OutboxIds = append(m.OutboxIds, r.ID)
		}
	}
	return &taskv1.SessionRequest{Command: &taskv1.SessionRequest_Sent{Sent: m}}
}

// Both ends of a copy may end at any time: before others are asked, while one fetches, and before the answer is heard.
func TestReplicationSurvivesRestarts(t *testing.T) {
	t.Parallel()
	n, s := newNetwork(t), newScript()
	p := n.addProvider(func(c *provider.Config) { keeping(s)(c); c.ReplicaDelay = time.Hour })
	a, c := n.addProvider(keeping(s)), n.addConsumer(nil)
	id := c.submitKept(scriptSpec(step{Name: "a", Wait: true, Stdout: 300_000}), 2, p, a)
	c.await(id, "RUNNING")
	c.stop()
	close(s.gate("a"))
	until(t, "the end of the run", func() bool { return p.get(id).GetState() == "COMPLETED" })
	hold := make(chan struct{})
	n.repo.mu.Lock()
	n.repo.hold = hold
	n.repo.mu.Unlock()
	p.pconf.ReplicaDelay = 10 * time.Millisecond
	p.restart()
	until(t, "the request", func() bool {
		es, err := a.store.Entries(t.Context(), id)
		return err == nil && len(es) == 1
	})
	a.restart() // while it fetches
	close(hold)
	until(t, "the copy", func() bool { return n.repo.pinnedFor("replica") == 1 && a.get(id).GetState() == "COMPLETED" })
	p.restart()
	until(t, "the answer", func() bool {
		es, err := p.store.Entries(t.Context(), id)
		return err == nil && es[0].Reported && es[0].Replica(a.peer).State == domain.ReplicaKept && es[0].Signed == nil
	})
	c.start() // its provider is there, and has others let go what they keep, also after its own end
	c.await(id, "COMPLETED")
	until(t, "everything to be let go", func() bool { return n.repo.pinned() == 0 })
	until(t, "nothing left to say", func() bool {
		rows, err := p.store.Outbox(t.Context(), 0, 10)
		return err == nil && len(rows) == 0
	})
}

// What was collected while it was being copied is not kept, and what comes after the end is let go again.
func TestCollectedWhileItIsCopied(t *testing.T) {
	t.Parallel()
	n, s := newNetwork(t), newScript()
	p, a, c := n.addProvider(keeping(s)), n.addProvider(keeping(s)), n.addConsumer(nil)
	id := c.submitKept(scriptSpec(step{Name: "a", Wait: true, Stdout: 300_000}), 2, p, a)
	c.await(id, "RUNNING")
	hold := make(chan struct{})
	n.repo.mu.Lock()
	n.repo.hold = hold
	n.repo.mu.Unlock()
	close(s.gate("a"))
	until(t, "the request", func() bool {
		es, err := a.store.Entries(t.Context(), id)
		return err == nil && len(es) == 1
	})
	close(hold)
	c.await(id, "COMPLETED")
	until(t, "everything to be let go", func() bool {
		es, err := a.store.Entries(t.Context(), id)
		return err == nil && (len(es) == 0 || es[0].Collected) && n.repo.pinned() == 0
	})
	again := wire.Codec{}.Encode(&domain.ReplicaAnswerEvent{TaskID: id, Attempt: 1, Consumer: c.peer, Kept: true})
	if d, err := p.deliver(a.peer, &eventv1.Event{Id: app.NewID(), Type: replicaAnswer, Payload: again}); err != nil || d.GetVerdict() != 0 {
		t.Fatalf("a late answer: %v, %v", d, err)
	}
	until(t, "it to be told", func() bool { return a.saw(eventv1.EventType_EVENT_TYPE_TASK_COLLECTED) })
}

func TestReplicasHaveABound(t *testing.T) {
	t.Parallel()
	n := newNetwork(t)
	p, c := n.addProvider(nil), n.addConsumer(nil)
	spec := sumSpec("1")
	spec.Placement = &taskv1.PlacementPolicy{Replicas: 9}
	if f := c.create(app.NewID(), spec, p).GetFault(); f.GetReason() != "SPEC_INVALID" || f.GetMeta()["field"] != "placement.replicas" {
		t.Fatalf("nine replicas: %v", f)
	}
	spec.Placement.Replicas = 8 // nobody is known that could keep it
	spec.Clocks = &taskv1.Clocks{Total: durationpb.New(time.Minute)}
	c.await(c.submit(spec, p), "COMPLETED")
}

// A job's shards are tasks like any other: their results are kept as well, and none is computed twice for want of the provider that made it.
func TestShardsOutliveTheirProvider(t *testing.T) {
	t.Parallel()
	n, prog := newNetwork(t), newProgram()
	prog.hold = func(string, string) bool { return true }
	soon := func(name string) func(*provider.Config) {
		return func(c *provider.Config) {
			prog.at(name, 8)(c)
			c.ReplicaDelay = 20 * time.Millisecond
		}
	}
	p, a, c := n.addProvider(soon("p")), n.addProvider(soon("a")), n.addConsumer(nil)
	c.useProviders(p)
	c.mu.Lock()
	c.keepers = []*node{a, p} // who runs it is not named, whatever node says
	c.mu.Unlock()
	spec, texts := jobSpec(0), numbered(5)
	spec.Task.Placement = &taskv1.PlacementPolicy{Replicas: 2}
	id := c.startJob(spec, texts...)
	until(t, "all shards to run", func() bool {
		_, began := prog.runs()
		return began == len(texts) && p.provider.Queue().Running == len(texts)
	})
	until(t, "the consumer to know", func() bool {
		r, err := c.client.ListTasks(t.Context(), &taskv1.ListTasksRequest{States: []string{"RUNNING"}})
		return err == nil && len(r.GetTasks()) == len(texts)
	})
	c.stop()
	close(prog.gate)
	until(t, "the copies", func() bool { return n.repo.pinnedFor("replica") == len(texts) })
	p.stop()
	c.start()
	job, ended := c.watchJob(id, 0)
	checkAll(t, ended, texts)
	if done, began := prog.runs(); job.GetState() != "COMPLETED" || done != len(texts) || began != len(texts) {
		t.Fatalf("the job is %v after %d of %d runs", job, done, began)
	}
	until(t, "the replicas to be let go", func() bool { return n.repo.pinnedFor("replica") == 0 })
}
