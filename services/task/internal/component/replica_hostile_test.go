package component_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	"github.com/shallot-net/shallot/services/task/internal/adapter/wire"
	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/app/provider"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

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
		cid, _ := n.repo.of("nobody").PutSmall(t.Context(), "", []byte("anything"), app.Pin{})
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
	wish := newRequest(n, c.peer, 100) // a stranger had a provider ask a consumer: not the provider's fault
	if d, err := c.deliver(wish.runner.peer, wish.event()); err != nil || d.GetVerdict() != 1 {
		t.Errorf("a request to a consumer: %v, %v", d, err)
	}
	close(s.gate("a"))
	if task := c.await(id, "COMPLETED"); c.result(id, "stdout") != "01234" {
		t.Fatalf("the task is %v: %v", task, details(task))
	}
}
