// Package component_test plays consumer and provider against each other: real gRPC sessions, real SQLite stores, real
// encryption and signatures; the nodes and the network between them are scripted.
package component_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/shallot-net/shallot/kit/grpctest"
	"github.com/shallot-net/shallot/kit/logging"
	"github.com/shallot-net/shallot/kit/pgtest"
	"github.com/shallot-net/shallot/kit/rpc"
	"github.com/shallot-net/shallot/kit/rpc/mux"
	"github.com/shallot-net/shallot/kit/signature"
	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
	"github.com/shallot-net/shallot/services/task/internal/adapter/crypt"
	"github.com/shallot-net/shallot/services/task/internal/adapter/executor"
	"github.com/shallot-net/shallot/services/task/internal/adapter/files"
	"github.com/shallot-net/shallot/services/task/internal/adapter/grpcserver"
	"github.com/shallot-net/shallot/services/task/internal/adapter/identity"
	"github.com/shallot-net/shallot/services/task/internal/adapter/sqlite"
	"github.com/shallot-net/shallot/services/task/internal/adapter/wire"
	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/app/consumer"
	"github.com/shallot-net/shallot/services/task/internal/app/provider"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// network joins the nodes of a test.
type network struct {
	t     testing.TB
	repo  *repository
	mu    sync.Mutex
	nodes map[string]*node
	// route decides about every event on its way; nil lets all pass. It may block.
	route func(from, to string, ev *eventv1.Event) action
	wg    sync.WaitGroup
}

// action is what happens to an event on its way.
type action int

const (
	pass action = iota
	lose
	twice
	unreachable
)

func newNetwork(t testing.TB) *network {
	n := &network{t: t, repo: newRepository(), nodes: make(map[string]*node)}
	t.Cleanup(n.wg.Wait)
	return n
}

func (n *network) setRoute(f func(from, to string, ev *eventv1.Event) action) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.route = f
}

func (n *network) node(peer string) *node {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.nodes[peer]
}

// taskStore is what a node keeps its tasks in.
type taskStore interface {
	consumer.Store
	provider.Store
	Setting(ctx context.Context, name string, make func() ([]byte, error)) ([]byte, error)
	Close() error
}

// node is a scripted node with a real task service.
type node struct {
	t    testing.TB
	net  *network
	peer string
	key  ed25519.PrivateKey
	dir  string
	role string

	ctx    context.Context
	cancel context.CancelFunc
	store  taskStore
	stop   func() // ends the task service as a crash would
	cc     *grpc.ClientConn
	client taskv1.TaskServiceClient
	jobs   taskv1.JobServiceClient
	caller atomic.Pointer[mux.Caller[*taskv1.SessionRequest, *taskv1.SessionResponse]]

	mu         sync.Mutex
	candidates func(p *taskv1.PlacementNeeded) *taskv1.Candidate // consumer
	offered    []*taskv1.Candidate                               // provider: for the evaluator
	keepers    []*node                                           // consumer: who may keep results
	sealing    string
	seen       []*eventv1.Event // delivered to this node
	tasks      map[string]*taskv1.Task
	news       chan struct{}
	sent       int
	ended      chan string // set: hears the ids of tasks that end

	consumer *consumer.Service
	provider *provider.Service
	cconf    consumer.Config
	pconf    provider.Config
	journal  func(provider.Store) provider.Store // what the provider has for its store; nil: the store itself
	database *database                           // set: the store is there, and shared with other replicas
	proxy    *pgtest.Proxy                       // set: between it and that store
	hand     bool                                // a replica that has no session to begin with
}

func newPeer() (string, ed25519.PrivateKey) {
	pub, priv, _ := ed25519.GenerateKey(rand.Reader)
	return identity.PeerID(pub), priv
}

func (n *network) addNode(role string) *node {
	peer, key := newPeer()
	nd := &node{t: n.t, net: n, peer: peer, key: key, dir: n.t.TempDir(), role: role, tasks: make(map[string]*taskv1.Task), news: make(chan struct{}, 1)}
	n.mu.Lock()
	n.nodes[peer] = nd
	n.mu.Unlock()
	return nd
}

// addConsumer starts a consumer; change may alter its configuration.
func (n *network) addConsumer(change func(*consumer.Config)) *node {
	nd := n.addNode("consumer")
	if change != nil {
		change(&nd.cconf)
	}
	nd.start()
	return nd
}

func (n *network) addProvider(change func(*provider.Config)) *node {
	nd := n.addNode("provider")
	nd.pconf.Evaluator = domain.Local{}
	if change != nil {
		change(&nd.pconf)
	}
	nd.start()
	return nd
}

func must[T any](t testing.TB) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// start opens the store and serves; the node connects.
func (nd *node) start() {
	t := nd.t
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	nd.mu.Lock()
	nd.ctx, nd.cancel = ctx, cancel
	nd.mu.Unlock()
	log := logging.New(t.Output(), "debug", "text", nd.role)
	if nd.database != nil {
		nd.store = nd.database.open(ctx, nd, log)
	} else {
		nd.store = must[*sqlite.Store](t)(sqlite.Open(ctx, filepath.Join(nd.dir, "task.db"), log))
	}
	sessions := &grpcserver.Sessions{}
	var cfg grpcserver.Config
	var run []func(context.Context) error
	if nd.role == "consumer" {
		cfg, run = nd.newConsumer(sessions)
	} else {
		cfg, run = nd.newProvider(sessions)
	}
	cfg.Log = log
	nd.cc = grpctest.Start(t, func(s *rpc.Server) { grpcserver.New(cfg, sessions).Register(s) })
	nd.client, nd.jobs = taskv1.NewTaskServiceClient(nd.cc), taskv1.NewJobServiceClient(nd.cc)
	var wg sync.WaitGroup
	for _, f := range run {
		wg.Go(func() { _ = f(ctx) })
	}
	store := nd.store
	nd.stop = sync.OnceFunc(func() {
		if c := nd.caller.Swap(nil); c != nil {
			c.Close()
		}
		cancel()
		wg.Wait()
		if err := store.Close(); err != nil {
			t.Errorf("close the store: %v", err)
		}
	})
	t.Cleanup(nd.stop)
	if nd.hand {
		return
	}
	nd.connect()
	if nd.role == "provider" {
		d := must[*taskv1.DescribeResponse](t)(nd.client.Describe(ctx, &taskv1.DescribeRequest{}))
		nd.mu.Lock()
		nd.sealing = d.GetSealingKey()
		nd.mu.Unlock()
	}
}

// restart ends the task service and starts it again on the same files.
func (nd *node) restart() {
	nd.t.Helper()
	nd.stop()
	nd.start()
}

func (nd *node) newConsumer(p app.Pusher) (grpcserver.Config, []func(context.Context) error) {
	t := nd.t
	uploads := must[*files.Uploads](t)(files.NewUploads(filepath.Join(nd.dir, "uploads"), time.Hour, 1<<30))
	keys := crypt.NewKeys(4)
	c := nd.cconf
	c.Store, c.Codec, c.Cipher, c.Keys, c.Repository, c.Verifier, c.Pusher = nd.store, codecOf(c.Anonymous), crypt.NewCipher(), keys, nd.net.repo.of(nd.peer), identity.Verifier{}, p
	c.Results = must[*files.Results](t)(files.NewResults(filepath.Join(nd.dir, "results")))
	c.Logs = must[*files.Logs](t)(files.NewLogs(filepath.Join(nd.dir, "logs")))
	c.Uploads = uploads
	c.Inputs = must[*files.Inputs](t)(files.NewInputs(filepath.Join(nd.dir, "jobs"), uploads))
	c.Log = logging.New(t.Output(), "debug", "text", "consumer")
	c.Validators = map[string]consumer.Validator{"sum": func(_ context.Context, o []byte, p []app.Part) error { return executor.ValidateSum(o, p) }}
	s := consumer.New(c)
	nd.consumer = s
	if err := s.Load(nd.ctx); err != nil {
		t.Fatal(err)
	}
	return grpcserver.Config{Role: s, Reader: s, Consumer: s, Uploads: uploads, Jobs: s}, []func(context.Context) error{s.Run, keys.Run}
}

// codecOf is what a node of a mode speaks.
func codecOf(anonymous bool) app.Codec {
	if anonymous {
		return wire.Coarse{}
	}
	return wire.Codec{}
}

func (nd *node) newProvider(p app.Pusher) (grpcserver.Config, []func(context.Context) error) {
	t := nd.t
	secret := must[[]byte](t)(nd.store.Setting(nd.ctx, "sealing_key", func() ([]byte, error) { s, err := crypt.NewSecret(); return []byte(s), err }))
	c := nd.pconf
	c.Key = must[*crypt.SealingKey](t)(crypt.ParseSealingKey(string(secret)))
	c.Store, c.Codec, c.Cipher, c.Repository, c.Verifier, c.Pusher = nd.store, codecOf(c.Anonymous), crypt.NewCipher(), nd.net.repo.of(nd.peer), identity.Verifier{}, p
	c.Workspace = must[*files.Workspace](t)(files.NewWorkspace(filepath.Join(nd.dir, "work")))
	c.Parts = must[*files.Parts](t)(files.NewParts(filepath.Join(nd.dir, "parts"), 1<<30))
	c.Log = logging.New(t.Output(), "debug", "text", "provider")
	if nd.journal != nil {
		c.Store = nd.journal(c.Store)
	}
	if c.Executors == nil {
		c.Executors = []app.Executor{executor.Sum{}}
	}
	s := must[*provider.Service](t)(provider.New(c))
	nd.provider = s
	if err := s.Load(nd.ctx); err != nil {
		t.Fatal(err)
	}
	return grpcserver.Config{Role: s, Reader: s, Provider: s}, []func(context.Context) error{s.Run}
}

// connect opens the session, and waits until everything in the outbox has been told.
func (nd *node) connect() {
	nd.t.Helper()
	caller := mux.NewCaller(
		func(ctx context.Context) (mux.Stream[*taskv1.SessionRequest, *taskv1.SessionResponse], error) {
			return nd.client.Session(ctx)
		},
		func(r *taskv1.SessionRequest, seq uint64) { r.Seq = seq }, (*taskv1.SessionResponse).GetSeq, func(r *taskv1.SessionResponse) { nd.handle(r) })
	nd.caller.Store(caller)
	r := nd.call(&taskv1.SessionRequest{Command: &taskv1.SessionRequest_Hello{Hello: &taskv1.Hello{NodeId: "test"}}})
	if !r.GetSynced() {
		nd.t.Fatalf("the answer to Hello is %v", r)
	}
}

var errGone = errors.New("the task service is stopped")

func (nd *node) try(req *taskv1.SessionRequest) (*taskv1.SessionResponse, error) {
	c := nd.caller.Load()
	if c == nil {
		return nil, errGone
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	r, err := c.Call(ctx, req)
	if err == nil {
		nd.handle(r)
	}
	return r, err
}

func (nd *node) call(req *taskv1.SessionRequest) *taskv1.SessionResponse {
	nd.t.Helper()
	r, err := nd.try(req)
	if err != nil {
		nd.t.Fatalf("session: %v", err)
	}
	return r
}

// handle does what a node does with what its task service says.
func (nd *node) handle(r *taskv1.SessionResponse) {
	if t := r.GetTask(); t != nil {
		nd.mu.Lock()
		if old := nd.tasks[t.GetId()]; old == nil || old.GetRevision() <= t.GetRevision() {
			nd.tasks[t.GetId()] = t
		}
		ended := nd.ended
		nd.mu.Unlock()
		if ended != nil && t.GetFinishedAt() != nil {
			ended <- t.GetId()
		}
		select {
		case nd.news <- struct{}{}:
		default:
		}
	}
	for _, o := range r.GetOutbox() {
		if !o.GetWithdrawn() {
			nd.net.wg.Go(func() { nd.send(o) })
		}
	}
	if p := r.GetPlacement(); p != nil {
		nd.net.wg.Go(func() { nd.place(p) })
	}
}

func (nd *node) place(p *taskv1.PlacementNeeded) {
	nd.mu.Lock()
	choose := nd.candidates
	nd.mu.Unlock()
	if choose == nil {
		return
	}
	if c := choose(p); c != nil {
		place := &taskv1.PlaceTask{TaskId: p.GetTaskId(), Candidate: c}
		if p.GetCopies() > 0 {
			place.Replicas = nd.replicaCandidates()
		}
		_, _ = nd.try(&taskv1.SessionRequest{Command: &taskv1.SessionRequest_Place{Place: place}})
	} else {
		_, _ = nd.try(&taskv1.SessionRequest{Command: &taskv1.SessionRequest_PlacementFailed{PlacementFailed: &taskv1.PlacementFailed{TaskId: p.GetTaskId(), Detail: "nobody is left"}}})
	}
}

// send carries one event to its receiver's task service.
func (nd *node) send(o *taskv1.OutboxEvent) {
	nd.mu.Lock()
	life := nd.ctx
	nd.mu.Unlock()
	ev := nd.signed(o)
	nd.net.mu.Lock()
	route := nd.net.route
	nd.net.mu.Unlock()
	what := pass
	if route != nil {
		what = route(nd.peer, o.GetPeerId(), ev)
	}
	to := nd.net.node(o.GetPeerId())
	if what == lose {
		return
	}
	if to == nil || what == unreachable {
		nd.failed(o, "UNREACHABLE", "no such peer")
		return
	}
	if what == twice {
		_, _ = to.deliver(nd.peer, ev)
	}
	for range 200 {
		if life.Err() != nil { // a node that has gone says nothing more
			return
		}
		d, err := to.deliver(nd.peer, ev)
		if err == nil && d.GetVerdict() != 3 {
			if d.GetVerdict() == 2 {
				nd.failed(o, "REJECTED", d.GetReason())
				return
			}
			nd.mu.Lock()
			nd.sent++
			nd.mu.Unlock()
			_, _ = nd.try(&taskv1.SessionRequest{Command: &taskv1.SessionRequest_Sent{Sent: &taskv1.MarkSent{OutboxIds: []uint64{o.GetOutboxId()}}}})
			return
		}
		pause(20 * time.Millisecond)
	}
	nd.failed(o, "TIMEOUT", "not acknowledged")
}

func (nd *node) failed(o *taskv1.OutboxEvent, reason, message string) {
	_, _ = nd.try(&taskv1.SessionRequest{Command: &taskv1.SessionRequest_SendFailed{SendFailed: &taskv1.SendFailed{OutboxId: o.GetOutboxId(), Reason: reason, Message: message}}})
}

// pause is the scripted network's delay; nothing waits for an outcome with it.
func pause(d time.Duration) { <-time.After(d) }

func (nd *node) signed(o *taskv1.OutboxEvent) *eventv1.Event {
	ev := o.GetEvent()
	if o.GetSign() {
		nd.sign(ev)
	}
	return ev
}

func (nd *node) sign(ev *eventv1.Event) {
	d := wire.FromEvent(ev)
	// As the broker of a node that says much signs: one signature for many events.
	all := make([][]byte, signature.MaxEvents)
	all[len(all)-1] = identity.SignedBytes(&d)
	signed, err := signature.SignAll(all, func(b []byte) ([]byte, error) { return ed25519.Sign(nd.key, b), nil })
	if err != nil {
		panic(err)
	}
	ev.Author, ev.Signature = nd.peer, signed[len(all)-1]
}

// deliver hands an event to this node's task service.
func (nd *node) deliver(from string, ev *eventv1.Event) (*taskv1.Delivered, error) {
	nd.mu.Lock()
	nd.seen = append(nd.seen, ev)
	offered := nd.offered
	nd.mu.Unlock()
	r, err := nd.try(&taskv1.SessionRequest{Command: &taskv1.SessionRequest_Deliver{Deliver: &taskv1.DeliverEvent{FromPeer: from, Event: ev, OwnPeerId: nd.peer, Candidates: offered}}})
	if err != nil {
		return nil, err
	}
	if f := r.GetFault(); f != nil {
		return nil, fmt.Errorf("%s: %s", f.GetReason(), f.GetMessage())
	}
	return r.GetDelivered(), nil
}

// saw tells whether an event of a type was delivered to this node.
func (nd *node) saw(typ eventv1.EventType) bool {
	nd.mu.Lock()
	defer nd.mu.Unlock()
	return slices.ContainsFunc(nd.seen, func(ev *eventv1.Event) bool { return ev.GetType() == typ })
}

// heard is how many events of a type were delivered to this node.
func (nd *node) heard(typ eventv1.EventType) (n int) {
	nd.mu.Lock()
	defer nd.mu.Unlock()
	for _, ev := range nd.seen {
		if ev.GetType() == typ {
			n++
		}
	}
	return n
}

// respin makes a result of this provider's that is encrypted to nobody, and signs it.
func (nd *node) respin(ev *eventv1.Event) {
	var m eventv1.TaskResult
	if err := proto.Unmarshal(ev.GetPayload(), &m); err != nil {
		nd.t.Error(err)
	}
	ev.Attachment = []byte("this is no age file")
	sum := sha256.Sum256(ev.Attachment)
	m.ResultHash, m.ResultSize = sum[:], uint64(len(ev.Attachment))
	ev.Payload, _ = proto.Marshal(&m)
	nd.sign(ev)
}
