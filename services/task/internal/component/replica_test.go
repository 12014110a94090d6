package component_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
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

// request is what a provider asks another, made by hand.
type request struct {
	consumer, runner *node
	sub              *domain.Submission
	result           *domain.ResultEvent
	attachment       []byte
	keep             time.Duration
}

func newRequest(n *network, to string, size int) *request {
	body := make([]byte, size)
	_, _ = rand.Read(body)
	id, hash := app.NewID(), domain.Hash{7}
	return &request{consumer: n.addNode("consumer"), runner: n.addNode("provider"), attachment: body, keep: time.Hour,
		sub:    &domain.Submission{TaskID: id, Attempt: 1, Type: "sum", Recipient: "age1pq", PayloadHash: hash, Copies: 1, Named: []string{to}},
		result: &domain.ResultEvent{TaskID: id, Attempt: 1, Type: "sum", PayloadHash: hash, ResultHash: sha256.Sum256(body), ResultSize: int64(size), ResultCID: app.SmallCID(sha256.Sum256(body))}}
}

func (r *request) event() *eventv1.Event {
	sub := &eventv1.Event{Id: app.NewID(), Type: eventv1.EventType_EVENT_TYPE_TASK_SUBMISSION, Payload: wire.Codec{}.Encode(r.sub)}
	r.consumer.sign(sub)
	ev := &eventv1.Event{Id: app.NewID(), Type: replicaRequest, Attachment: r.attachment,
		Payload: wire.Codec{}.Encode(&domain.ReplicaRequestEvent{TaskID: r.sub.TaskID, Attempt: 1, Submission: wire.FromEvent(sub), Result: r.result, Keep: r.keep})}
	r.runner.sign(ev)
	return ev
}

// A peer cannot have a provider keep what nobody has named it for, nor fetch from anywhere, nor keep without bound.
func TestHostileReplicaRequests(t *testing.T) {
	t.Parallel()
	n := newNetwork(t)
	p := n.addProvider(func(c *provider.Config) {
		c.Policy.Replicas, c.Policy.ReplicasPerPeer = 10*(64<<10), 2*(64<<10)
	})
	for name, change := range map[string]func(r *request){
		"somebody else is named": func(r *request) { r.sub.Named = []string{r.runner.peer} },
		"no copies are wanted":   func(r *request) { r.sub.Copies = 0 },
		"another payload":        func(r *request) { r.result.PayloadHash = domain.Hash{8} },
		"another attempt":        func(r *request) { r.sub.Attempt = 2 },
		"another task":           func(r *request) { r.sub.TaskID = app.NewID() },
		"other bytes":            func(r *request) { r.attachment = []byte("others") },
		"no content":             func(r *request) { r.attachment, r.result.ResultCID = nil, "" },
	} {
		r := newRequest(n, p.peer, 100)
		change(r)
		if d, err := p.deliver(r.runner.peer, r.event()); err != nil || d.GetVerdict() != 2 {
			t.Errorf("%s: %v, %v", name, d, err)
		}
	}
	forged := newRequest(n, p.peer, 100)
	_, forged.consumer.key, _ = ed25519.GenerateKey(rand.Reader)
	if d, err := p.deliver(forged.runner.peer, forged.event()); err != nil || d.GetVerdict() != 2 {
		t.Errorf("a forged submission: %v, %v", d, err)
	}
	stolen := newRequest(n, p.peer, 100)
	if d, err := p.deliver(n.addNode("provider").peer, stolen.event()); err != nil || d.GetVerdict() != 2 {
		t.Errorf("another's request: %v, %v", d, err)
	}
	if n.repo.pinned() != 0 {
		t.Fatalf("%d pins were made", n.repo.pinned())
	}

	answers := make(chan *domain.ReplicaAnswerEvent, 100)
	n.setRoute(func(_, _ string, ev *eventv1.Event) action {
		if ev.GetType() == replicaAnswer {
			if b, err := (wire.Codec{}).Decode(domain.TypeReplicaAnswer, ev.GetPayload()); err == nil {
				answers <- b.(*domain.ReplicaAnswerEvent)
			}
		}
		return lose
	})
	ask := func(change func(r *request)) string {
		t.Helper()
		r := newRequest(n, p.peer, 100)
		change(r)
		if d, err := p.deliver(r.runner.peer, r.event()); err != nil || d.GetVerdict() != 0 {
			t.Fatalf("a request: %v, %v", d, err)
		}
		a := <-answers
		for a.TaskID != r.sub.TaskID { // told again after the restart
			a = <-answers
		}
		if a.Consumer != r.consumer.peer || a.Kept != (a.Reason == "") {
			t.Fatalf("the answer is %+v", a)
		}
		return a.Reason
	}
	runner, consumer := n.addNode("provider"), n.addNode("consumer")
	from := func(r *request) { r.runner = runner }
	for i, want := range []string{"", "", "PEER_QUOTA"} {
		if got := ask(from); got != want {
			t.Errorf("request %d of one provider: %q, want %q", i, got, want)
		}
	}
	for i, want := range []string{"", "", "PEER_QUOTA"} {
		if got := ask(func(r *request) { r.consumer = consumer }); got != want {
			t.Errorf("request %d of one consumer: %q, want %q", i, got, want)
		}
	}
	if got := ask(func(r *request) { r.result.ResultSize, r.attachment = 3*(64<<10), nil }); got != "RESULT_TOO_LARGE" {
		t.Errorf("a large one: %q", got)
	}
	for i := range 7 {
		want := ""
		if i == 6 {
			want = "REPLICA_QUOTA"
		}
		if got := ask(func(*request) {}); got != want {
			t.Errorf("request %d of strangers: %q, want %q", i, got, want)
		}
	}
	if n.repo.pinnedFor("replica") != 10 {
		t.Errorf("%d results are kept", n.repo.pinnedFor("replica"))
	}
	p.restart() // what is kept still counts
	if got := ask(func(*request) {}); got != "REPLICA_QUOTA" {
		t.Errorf("after a restart: %q", got)
	}
	if err := releaseAll(p, runner.peer); err != nil {
		t.Fatal(err)
	}
	until(t, "room", func() bool { return n.repo.pinnedFor("replica") == 8 })
	if got := ask(from); got != "" {
		t.Errorf("when there is room again: %q", got)
	}
	if lie := ask(func(r *request) { // the content is another than the receipt says
		r.runner = runner
		cid, _ := n.repo.PutSmall(t.Context(), []byte("anything"), app.Pin{})
		r.result.ResultCID, r.attachment = cid, nil
	}); lie != "CONTENT_DIFFERS" {
		t.Errorf("other content than was promised: %q", lie)
	}
}

// releaseAll has a provider let go what it keeps for a runner.
func releaseAll(p *node, runner string) error {
	entries, err := p.store.Replicated(p.ctx, domain.EntryKey{}, 100)
	if err != nil {
		return err
	}
	m := &domain.CollectedEvent{}
	for _, e := range entries {
		if e.Runner == runner {
			m.Tasks = append(m.Tasks, domain.Ref{TaskID: e.TaskID, Attempt: e.Sub.Attempt})
		}
	}
	d, err := p.deliver(runner, &eventv1.Event{Id: app.NewID(), Type: eventv1.EventType_EVENT_TYPE_TASK_COLLECTED, Payload: wire.Codec{}.Encode(m)})
	if err == nil && d.GetVerdict() != 0 {
		err = errors.New("it was not taken")
	}
	return err
}

// A result counts by the signature of the provider that has the task, whoever brings it; nobody else's word is one.
func TestHostileReplicaResults(t *testing.T) {
	t.Parallel()
	n, s := newNetwork(t), newScript()
	p, a, c := n.addProvider(keeping(s)), n.addProvider(keeping(s)), n.addConsumer(nil)
	id := c.submitKept(scriptSpec(step{Name: "a", Wait: true, Stdout: 5}), 2, p, a)
	c.await(id, "RUNNING")
	stored, err := c.store.Task(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	bring := func(signer, from *node, change func(r *request)) uint32 {
		t.Helper()
		r := newRequest(n, a.peer, 100)
		r.runner, r.sub.TaskID, r.result.TaskID = signer, id, id
		r.result.PayloadHash, r.result.ProgramHash = stored.PayloadHash, stored.ProgramHash
		change(r)
		inner := r.event()
		inner.Attachment = nil
		d, err := c.deliver(from.peer, &eventv1.Event{Id: app.NewID(), Type: eventv1.EventType_EVENT_TYPE_TASK_REPLICA_RESULT, Attachment: r.attachment,
			Payload: wire.Codec{}.Encode(&domain.ReplicaResultEvent{TaskID: id, Attempt: 1, Request: wire.FromEvent(inner)})})
		if err != nil {
			t.Fatal(err)
		}
		return d.GetVerdict()
	}
	same := func(*request) {}
	stranger := n.addNode("provider")
	for name, got := range map[string]uint32{
		"its own word":             bring(a, a, same),
		"a stranger with a result": bring(p, stranger, same),
		"other bytes":              bring(p, a, func(r *request) { r.attachment = []byte("others") }),
		"another payload's":        bring(p, a, func(r *request) { r.result.PayloadHash = domain.Hash{1} }),
	} {
		if got != 2 {
			t.Errorf("%s: the verdict is %d", name, got)
		}
	}
	unsigned := wire.Codec{}.Encode(&domain.ReplicaResultEvent{TaskID: id, Attempt: 1, Request: domain.Event{ID: app.NewID(), Type: domain.TypeReplicaRequest, Author: p.peer, Payload: []byte{1}}})
	if d, err := c.deliver(a.peer, &eventv1.Event{Id: app.NewID(), Type: eventv1.EventType_EVENT_TYPE_TASK_REPLICA_RESULT, Payload: unsigned}); err != nil || d.GetVerdict() != 2 {
		t.Errorf("unsigned: %v, %v", d, err)
	}
	m, err := proto.Marshal(&eventv1.TaskReplicas{TaskId: id, Attempt: 1, Replicas: []*eventv1.TaskReplica{{PeerId: stranger.peer, State: "KEPT"}}})
	if err != nil {
		t.Fatal(err)
	}
	report := func(from *node) uint32 {
		d, err := c.deliver(from.peer, &eventv1.Event{Id: app.NewID(), Type: eventv1.EventType_EVENT_TYPE_TASK_REPLICAS, Payload: m})
		if err != nil {
			t.Fatal(err)
		}
		return d.GetVerdict()
	}
	if report(a) != 2 || report(p) != 0 || replicaState(c.get(id), stranger.peer) != "" {
		t.Errorf("who was not named is said to keep it: %v", c.get(id))
	}
	close(s.gate("a"))
	if task := c.await(id, "COMPLETED"); c.result(id, "stdout") != "01234" {
		t.Fatalf("the task is %v: %v", task, details(task))
	}
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
