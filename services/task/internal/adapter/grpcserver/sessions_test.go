package grpcserver_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/shallot-net/shallot/kit/grpctest"
	"github.com/shallot-net/shallot/kit/rpc"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
	"github.com/shallot-net/shallot/services/task/internal/adapter/grpcserver"
	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// role is a consumer that keeps its outbox in memory.
type role struct {
	app.Role
	mu     sync.Mutex
	outbox []app.Outgoing
	online []bool
	lost   int
}

func (r *role) Sync(_ context.Context, tell func(app.Reply) error) error {
	r.mu.Lock()
	rows := slices.Clone(r.outbox)
	r.mu.Unlock()
	for _, o := range rows {
		if err := tell(app.Reply{Outbox: []app.Outgoing{o}}); err != nil {
			return err
		}
	}
	return nil
}

// Place changes a task, of which everybody hears, and sends an event.
func (r *role) Place(_ context.Context, id string, _ app.Candidate, _ string) (app.Reply, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := app.Outgoing{ID: uint64(len(r.outbox) + 1), TaskID: id}
	r.outbox = append(r.outbox, out)
	return app.Reply{Task: &app.TaskView{ID: id}, Outbox: []app.Outgoing{out}}, nil
}

func (r *role) SetOnline(_ context.Context, online bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.online = append(r.online, online)
}

func (r *role) Personas() []app.PersonaUse { return nil }

func (r *role) Lost() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lost++
}

// node is one process of the node.
type node struct {
	t      *testing.T
	stream grpc.BidiStreamingClient[taskv1.SessionRequest, taskv1.SessionResponse]
	end    context.CancelFunc
}

type world struct {
	t      *testing.T
	role   *role
	client taskv1.TaskServiceClient
	push   app.Pusher
}

// consumer is what of one a Service asks for here.
type consumer struct{ grpcserver.Consumer }

// provider is one that leads.
type provider struct{ grpcserver.Provider }

func (provider) Leading() bool { return true }

func newWorld(t *testing.T) *world { return newWorldOf(t, grpcserver.Config{Consumer: consumer{}}) }

func newWorldOf(t *testing.T, cfg grpcserver.Config) *world {
	w := &world{t: t, role: &role{}}
	sessions := &grpcserver.Sessions{}
	cfg.Role = w.role
	s := grpcserver.New(cfg, sessions)
	cc := grpctest.Start(t, func(server *rpc.Server) { taskv1.RegisterTaskServiceServer(server, s) })
	w.client, w.push = taskv1.NewTaskServiceClient(cc), sessions
	return w
}

func (w *world) open(name string) *node {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	w.t.Cleanup(cancel)
	stream, err := w.client.Session(ctx)
	if err != nil {
		w.t.Fatal(err)
	}
	n := &node{w.t, stream, cancel}
	n.say(&taskv1.SessionRequest{Seq: 1, Command: &taskv1.SessionRequest_Hello{Hello: &taskv1.Hello{NodeId: name}}})
	return n
}

func (n *node) say(m *taskv1.SessionRequest) {
	n.t.Helper()
	if err := n.stream.Send(m); err != nil {
		n.t.Fatal(err)
	}
}

// until reads until something is there, and returns the ids of the outbox rows that came.
func (n *node) until(what string, there func(*taskv1.SessionResponse) bool) (ids []uint64) {
	n.t.Helper()
	for {
		r, err := n.stream.Recv()
		if err != nil {
			n.t.Fatalf("%s: %v", what, err)
		}
		for _, o := range r.GetOutbox() {
			ids = append(ids, o.GetOutboxId())
		}
		if there(r) {
			return ids
		}
	}
}

func synced(r *taskv1.SessionResponse) bool { return r.GetSynced() }

func place(seq uint64, task string) *taskv1.SessionRequest {
	return &taskv1.SessionRequest{Seq: seq, Command: &taskv1.SessionRequest_Place{Place: &taskv1.PlaceTask{TaskId: task, Candidate: &taskv1.Candidate{}}}}
}

func answer(seq uint64) func(*taskv1.SessionResponse) bool {
	return func(r *taskv1.SessionResponse) bool { return r.GetSeq() == seq }
}

// One process is told what is to be sent, whoever has brought it about; both hear of the task; when the one ends, the other is told all.
func TestOneProcessOfANodeCarries(t *testing.T) {
	w := newWorld(t)
	a := w.open("a")
	a.until("a's beginning", synced)
	b := w.open("b")
	if ids := b.until("b's beginning", synced); len(ids) > 0 {
		t.Errorf("the second process was told %v, which the first carries", ids)
	}
	b.say(place(2, "one"))
	if ids := b.until("the answer", answer(2)); len(ids) > 0 {
		t.Errorf("the second process was told %v with the answer", ids)
	}
	heard := func(id string) func(*taskv1.SessionResponse) bool {
		return func(r *taskv1.SessionResponse) bool { return r.GetTask().GetId() == id }
	}
	if ids := a.until("what the second one did", heard("one")); !slices.Equal(ids, []uint64{1}) {
		t.Errorf("the one that carries was told %v", ids)
	}
	a.say(place(2, "two"))
	if ids := a.until("the answer", answer(2)); !slices.Equal(ids, []uint64{2}) {
		t.Errorf("the one that carries was told %v with its answer", ids)
	}
	b.until("what the first one did", heard("two"))

	a.end()
	w.role.mu.Lock()
	want := len(w.role.outbox)
	w.role.mu.Unlock()
	var told []uint64
	for len(told) < want {
		told = append(told, b.until("the succession", func(r *taskv1.SessionResponse) bool { return len(r.GetOutbox()) > 0 })...)
	}
	if !slices.Equal(told, []uint64{1, 2}) {
		t.Errorf("after the first one's end the second was told %v", told)
	}
	if again := w.open("a"); len(again.until("a's return", synced)) > 0 {
		t.Error("the first one carries again, and the second does too")
	}
}

// A process whose stream ends and that is back at once goes on, and nobody else takes over.
func TestCarrierComesBack(t *testing.T) {
	w := newWorld(t)
	a := w.open("a")
	a.until("a's beginning", synced)
	b := w.open("b")
	b.until("b's beginning", synced)
	a.say(place(2, "one"))
	a.until("the answer", answer(2))
	if err := a.stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	a = w.open("a")
	if ids := a.until("a's return", synced); !slices.Equal(ids, []uint64{1}) {
		t.Errorf("back again it was told %v", ids)
	}
	w.push.Push(t.Context(), app.Reply{Outbox: []app.Outgoing{{ID: 7}}})
	a.until("what is to be sent", func(r *taskv1.SessionResponse) bool {
		return len(r.GetOutbox()) == 1 && r.GetOutbox()[0].GetOutboxId() == 7
	})
}

// The node can reach the network while one of its processes says so, and personas are the business of the one that carries.
func TestProcessesSpeakForOneNode(t *testing.T) {
	w := newWorld(t)
	a := w.open("a")
	a.until("a's beginning", synced)
	b := w.open("b")
	b.until("b's beginning", synced)
	say := func(n *node, seq uint64, online bool) {
		n.say(&taskv1.SessionRequest{Seq: seq, Command: &taskv1.SessionRequest_Online{Online: &taskv1.OnlineChanged{Online: online}}})
		n.until("the answer", answer(seq))
	}
	say(a, 2, true)
	say(b, 2, false)
	say(a, 3, false)
	say(b, 3, true)
	w.role.mu.Lock()
	if got := w.role.online; !slices.Equal(got, []bool{true, true, false, true}) {
		t.Errorf("the role was told %v", got)
	}
	w.role.mu.Unlock()
	reason := ""
	b.say(&taskv1.SessionRequest{Seq: 4, Command: &taskv1.SessionRequest_Personas{Personas: &taskv1.PersonasQuery{}}})
	b.until("the answer", func(r *taskv1.SessionResponse) bool { reason = r.GetFault().GetReason(); return r.GetSeq() == 4 })
	if reason != "NOT_CARRYING" {
		t.Errorf("the other process may see to personas: %q", reason)
	}
	a.say(&taskv1.SessionRequest{Seq: 4, Command: &taskv1.SessionRequest_Personas{Personas: &taskv1.PersonasQuery{}}})
	a.until("the answer", func(r *taskv1.SessionResponse) bool { reason = r.GetFault().GetReason(); return r.GetSeq() == 4 })
	if reason != "" {
		t.Errorf("the process that carries may not: %q", reason)
	}
}

// A process that takes nothing, as one that is paused, holds the others up for a moment only.
func TestSilentProcessIsLeft(t *testing.T) {
	w := newWorld(t)
	silent := w.open("silent")
	silent.until("its beginning", synced)
	b := w.open("b")
	b.until("b's beginning", synced)
	w.role.mu.Lock()
	w.role.outbox = append(w.role.outbox, app.Outgoing{ID: 9})
	w.role.mu.Unlock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		body := make([]byte, 64<<10)
		for i := range 200 { // more than its buffers hold
			w.push.Push(t.Context(), app.Reply{Task: &app.TaskView{ID: "one", Revision: uint64(i)}, Stdout: body, HasStdout: true})
		}
	}()
	last, told := false, false // in any order
	b.until("the last and the succession", func(r *taskv1.SessionResponse) bool {
		last = last || r.GetTask().GetRevision() == 199
		told = told || len(r.GetOutbox()) == 1 && r.GetOutbox()[0].GetOutboxId() == 9
		return last && told
	})
	<-done
}

// So it is at a provider, whose other processes hear nothing of tasks.
func TestSilentCarrierOfAProviderIsLeft(t *testing.T) {
	w := newWorldOf(t, grpcserver.Config{Provider: provider{}})
	silent := w.open("silent")
	silent.until("its beginning", synced)
	b := w.open("b")
	b.until("b's beginning", synced)
	w.role.mu.Lock()
	w.role.outbox = append(w.role.outbox, app.Outgoing{ID: 9})
	w.role.mu.Unlock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		body := make([]byte, 64<<10)
		for range 200 { // more than its buffers hold
			w.push.Push(t.Context(), app.Reply{Outbox: []app.Outgoing{{ID: 1, Event: domain.Event{ID: "large", Attachment: body}}}})
		}
	}()
	b.until("the succession", func(r *taskv1.SessionResponse) bool {
		return slices.ContainsFunc(r.GetOutbox(), func(o *taskv1.OutboxEvent) bool { return o.GetOutboxId() == 9 })
	})
	<-done
}
