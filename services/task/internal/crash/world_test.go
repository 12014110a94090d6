// Package crash_test ends processes between any two commits, and looks at what users see.
package crash_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shallot-net/shallot/services/task/internal/adapter/crypt"
	"github.com/shallot-net/shallot/services/task/internal/adapter/executor"
	"github.com/shallot-net/shallot/services/task/internal/adapter/files"
	"github.com/shallot-net/shallot/services/task/internal/adapter/memstore"
	"github.com/shallot-net/shallot/services/task/internal/adapter/wire"
	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/app/consumer"
	"github.com/shallot-net/shallot/services/task/internal/app/provider"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

const (
	consumerPeer = "12D3KooWconsumer"
	providerPeer = "12D3KooWprovider"
	keeperPeer   = "12D3KooWkeeper"
)

// world is a consumer and a provider whose nodes and network are a few lines of this file.
type world struct {
	t        testing.TB
	repo     *repo
	consumer *side
	provider *side
	keeper   *side // another provider, which keeps results: where a test wants one
	key      *crypt.SealingKey
	execute  app.Executor
	dir      string

	mu   sync.Mutex
	over bool // nothing more is begun: what is left of a process may still have something to say
	wg   sync.WaitGroup
}

func (w *world) begin(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.over {
		w.wg.Go(f)
	}
}

// side is one node: its store outlives its process.
type side struct {
	w     *world
	peer  string
	store *memstore.Store
	start func(*side) (app.Role, func(context.Context) error)

	mu      sync.Mutex
	fence   *fenced // of the process that runs
	role    app.Role
	stop    func()
	crashed chan struct{} // closed by the store when the process has to end
	ended   map[string]domain.State
	changes map[string]int // how often a task ended, as told
}

func newWorld(t testing.TB, ex app.Executor) *world {
	secret, err := crypt.NewSecret()
	if err != nil {
		t.Fatal(err)
	}
	key, err := crypt.ParseSealingKey(secret)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, repo: &repo{content: make(map[string][]byte), pins: make(map[app.Pinned]bool)}, key: key, execute: ex, dir: t.TempDir()}
	w.consumer = &side{w: w, peer: consumerPeer, store: memstore.New(), start: newConsumer, ended: make(map[string]domain.State), changes: make(map[string]int)}
	w.provider = &side{w: w, peer: providerPeer, store: memstore.New(), start: newProvider, ended: make(map[string]domain.State), changes: make(map[string]int)}
	for _, s := range []*side{w.provider, w.consumer} {
		s.run()
	}
	t.Cleanup(func() {
		w.consumer.end()
		w.provider.end()
		if w.keeper != nil {
			w.keeper.end()
		}
		w.mu.Lock()
		w.over = true
		w.mu.Unlock()
		w.wg.Wait()
	})
	return w
}

func (w *world) addKeeper() {
	w.keeper = &side{w: w, peer: keeperPeer, store: memstore.New(), start: newProvider, ended: make(map[string]domain.State), changes: make(map[string]int)}
	w.keeper.run()
}

func newConsumer(s *side) (app.Role, func(context.Context) error) {
	w := s.w
	results, err := files.NewResults(w.dir + "/results")
	if err != nil {
		w.t.Fatal(err)
	}
	logs, err := files.NewLogs(w.dir + "/logs")
	if err != nil {
		w.t.Fatal(err)
	}
	uploads, err := files.NewUploads(w.dir+"/uploads", time.Hour, 1<<20)
	if err != nil {
		w.t.Fatal(err)
	}
	inputs, err := files.NewInputs(w.dir+"/jobs", uploads)
	if err != nil {
		w.t.Fatal(err)
	}
	c := consumer.New(consumer.Config{Uploads: uploads, Inputs: inputs, Store: s.fence, Codec: wire.Codec{}, Cipher: crypt.NewCipher(), Keys: crypt.NewKeys(0), Repository: w.repo, Verifier: trusting{},
		Results: results, Logs: logs, Pusher: s, Lease: 300 * time.Millisecond})
	if err := c.Load(context.Background()); err != nil {
		w.t.Fatal(err)
	}
	return c, c.Run
}

func newProvider(s *side) (app.Role, func(context.Context) error) {
	w := s.w
	work, err := files.NewWorkspace(w.dir + "/work " + s.peer)
	if err != nil {
		w.t.Fatal(err)
	}
	parts, err := files.NewParts(w.dir+"/parts "+s.peer, 1<<20)
	if err != nil {
		w.t.Fatal(err)
	}
	p, err := provider.New(provider.Config{Parts: parts, Store: s.fence, Codec: wire.Codec{}, Cipher: crypt.NewCipher(), Key: w.key, Repository: w.repo, Verifier: trusting{},
		Executors: []app.Executor{w.execute}, Evaluator: domain.Local{}, Workspace: work, Pusher: s, Progress: 50 * time.Millisecond, Express: 5 * time.Millisecond, ReplicaDelay: 5 * time.Millisecond,
		Policy: provider.Policy{Slots: 2}})
	if err != nil {
		w.t.Fatal(err)
	}
	if err := p.Load(context.Background()); err != nil {
		w.t.Fatal(err)
	}
	return p, p.Run
}

// trusting believes every signature: nobody lies here.
type trusting struct{}

func (trusting) Verify(*domain.Event) bool { return true }

// fenced is the store as one process has it: when that has ended, what is left of it writes nothing more.
type fenced struct {
	*memstore.Store
	mu   sync.RWMutex
	gone bool
}

func (f *fenced) end() {
	f.mu.Lock() // after every commit that has begun
	defer f.mu.Unlock()
	f.gone = true
}

// Commit implements app.Committer.
func (f *fenced) Commit(ctx context.Context, w *app.Writes) error {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.gone {
		return errCrash
	}
	return f.Store.Commit(ctx, w)
}

// Later implements app.Committer.
func (f *fenced) Later(w *app.Writes) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if !f.gone {
		f.Store.Later(w)
	}
}

// run starts the process.
func (s *side) run() {
	fence := &fenced{Store: s.store}
	s.mu.Lock()
	s.fence = fence
	s.mu.Unlock()
	role, background := s.start(s)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = background(ctx)
	}()
	s.mu.Lock()
	s.role = role
	s.crashed = make(chan struct{})
	s.stop = func() { cancel(); <-done }
	s.mu.Unlock()
	s.w.begin(func() {
		_ = role.Sync(ctx, func(r app.Reply) error { s.handle(r); return nil })
	})
}

// end ends the process; nothing that it does afterwards counts.
func (s *side) end() {
	s.mu.Lock()
	stop := s.stop
	s.role, s.stop = nil, nil
	fence := s.fence
	s.mu.Unlock()
	fence.end()
	if stop != nil {
		stop()
	}
}

var errCrash = errors.New("the process has ended")

// crashAt makes the process end at its nth commit from now: before it is written, or after.
func (s *side) crashAt(n int, written bool) {
	s.mu.Lock()
	crashed := s.crashed
	s.mu.Unlock()
	var once sync.Once
	left := n
	s.store.FailWith(func(w *app.Writes) error { // under the store's lock
		if left--; left > 0 {
			return nil
		}
		if left == 0 && written {
			return nil
		}
		once.Do(func() {
			s.mu.Lock()
			s.role = nil // a process that has ended is delivered nothing, also before its end is noticed
			s.mu.Unlock()
			close(crashed)
		})
		return errCrash
	})
}

// restartAfterCrash waits for the end of the process, and starts another. It is false when ok came first.
func (s *side) restartAfterCrash(ok func() bool) bool {
	s.mu.Lock()
	crashed := s.crashed
	s.mu.Unlock()
	deadline := time.Now().Add(time.Minute)
	for {
		select {
		case <-crashed:
			s.store.Crash()
			s.end()
			s.store.FailWith(nil)
			s.run()
			return true
		case <-time.After(time.Millisecond):
			if ok() {
				s.store.FailWith(nil)
				return false
			}
			if time.Now().After(deadline) {
				s.w.t.Fatal("neither crashed nor done")
			}
		}
	}
}

func (s *side) get() app.Role {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.role
}

// Push implements app.Pusher.
func (s *side) Push(_ context.Context, r app.Reply) { s.handle(r) }

func (s *side) handle(r app.Reply) {
	if r.Task != nil && r.Task.State.Terminal() {
		what := r.Task.ID
		if s == s.w.provider { // to it each attempt is a task, and one that lost its lease may be followed by another here
			what += fmt.Sprint("/", r.Task.Attempts)
		}
		s.mu.Lock()
		if old, ok := s.ended[what]; ok && old != r.Task.State {
			s.w.t.Errorf("task %s was told to be %s and then %s", what, old, r.Task.State)
		}
		s.ended[what] = r.Task.State
		s.mu.Unlock()
	}
	for _, o := range r.Outbox {
		if !o.Withdrawn {
			s.w.begin(func() { s.send(o) })
		}
	}
	if p := r.Placement; p != nil {
		s.w.begin(func() {
			if role := s.get(); role != nil && p.Excluded[providerPeer] == "" {
				if r, err := role.Place(context.Background(), p.TaskID, s.w.candidate(), ""); err == nil {
					s.handle(r)
				}
			}
		})
	}
}

func (w *world) candidate() app.Candidate {
	c := app.Candidate{Peer: providerPeer, SealingKey: w.key.Recipient()}
	if w.keeper != nil {
		c.Replicas = []domain.Replica{{Peer: keeperPeer}}
	}
	return c
}

func (s *side) send(o app.Outgoing) {
	to := s.w.consumer
	switch o.Peer {
	case providerPeer:
		to = s.w.provider
	case keeperPeer:
		to = s.w.keeper
	}
	if o.Sign {
		o.Event.Author = s.peer
	}
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); {
		if s.get() == nil { // nobody is left who could say it
			return
		}
		if role := to.get(); role != nil {
			r := role.Deliver(context.Background(), app.Delivery{From: s.peer, OwnPeer: to.peer, Event: o.Event})
			if to.get() == role { // else its words are lost with it
				to.handle(r)
				if r.Delivered.Verdict != app.Again {
					if mine := s.get(); mine != nil {
						mine.MarkSent(context.Background(), []uint64{o.ID})
					}
					return
				}
			}
		}
		<-time.After(2 * time.Millisecond)
	}
	if mine := s.get(); mine != nil && o.Timeout > 0 {
		if r, err := mine.SendFailed(context.Background(), o.ID, "UNREACHABLE", "nobody is there"); err == nil {
			s.handle(r)
		}
	}
}

// repo is a repository in memory.
type repo struct {
	mu      sync.Mutex
	content map[string][]byte
	pins    map[app.Pinned]bool
}

func (r *repo) PutSmall(_ context.Context, _ string, data []byte, pin app.Pin) (string, error) {
	cid := app.SmallCID(sha256.Sum256(data))
	r.mu.Lock()
	defer r.mu.Unlock()
	r.content[cid] = data
	r.pins[app.Pinned{CID: cid, Owner: pin.Owner}] = true
	return cid, nil
}

func (r *repo) Put(ctx context.Context, _ string, src io.Reader, pin app.Pin) (string, error) {
	b, err := io.ReadAll(src)
	if err != nil {
		return "", err
	}
	return r.PutSmall(ctx, "", b, pin)
}

func (r *repo) Get(_ context.Context, _, cid string, _ []string, _ int64) (io.ReadCloser, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return io.NopCloser(io.LimitReader(&reader{r.content[cid]}, 1<<30)), nil
}

func (r *repo) Renew(_ context.Context, _, cid string, _ app.Pin) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.content[cid] == nil {
		return app.ErrNotFound
	}
	return nil
}

func (r *repo) Unpin(_ context.Context, pins ...app.Pinned) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range pins {
		delete(r.pins, p)
	}
	return nil
}

// kept tells whether anybody has a replica pinned.
func (r *repo) kept() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for p := range r.pins {
		if strings.HasPrefix(p.Owner, "replica:") {
			return true
		}
	}
	return false
}

func (r *repo) Pinned(context.Context, string, int) ([]app.Pinned, error) { return nil, nil }

type reader struct{ b []byte }

func (r *reader) Read(p []byte) (int, error) {
	if len(r.b) == 0 {
		return 0, io.EOF
	}
	n := copy(p, r.b)
	r.b = r.b[n:]
	return n, nil
}

// slow is sum, after a while, so that the task is acknowledged before it ends.
type slow struct {
	executor.Sum
	wait time.Duration
	size int
}

func (s slow) Execute(ctx context.Context, run app.Run, sink app.Sink) (app.Outcome, error) {
	select {
	case <-time.After(s.wait):
	case <-ctx.Done():
		return app.Outcome{Reason: app.ReasonCancelled}, nil
	}
	if s.size > 0 {
		if err := sink.Output("output:large", make([]byte, s.size)); err != nil {
			return app.Outcome{Reason: app.ReasonOutputLimit}, nil
		}
	}
	return s.Sum.Execute(ctx, run, sink)
}
