package simulation_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/shallot-net/shallot/services/task/internal/adapter/memstore"
	"github.com/shallot-net/shallot/services/task/internal/adapter/wire"
	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/app/consumer"
	"github.com/shallot-net/shallot/services/task/internal/app/provider"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// side is one node. What is on its disk outlives its processes.
type side struct {
	w       *world
	name    string // in traces, and in what is decided by it
	peer    string
	key     sealingKey // of a provider
	policy  provider.Policy
	price   provider.Price
	store   *memstore.Store
	content *content
	disk    *disk
	dir     string

	mu     sync.Mutex
	life   *life // nil between two
	lives  int
	absent int // how many absences overlap now
	spells []spell
	held   chan struct{} // set: after its end it does not start before this is closed
}

// life is one process of a node's task service.
type life struct {
	side      *side
	number    int
	role      app.Role
	ctx       context.Context // ends when it is killed
	kill      context.CancelFunc
	parts     *parts
	workspace *workspace

	mu      sync.Mutex
	over    bool          // it writes nothing any more, and says nothing
	crashed chan struct{} // closed when it has to be killed
	session *session      // nil between two
}

var errCrash = errors.New("the process has ended")

func (l *life) gone() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.over
}

// end makes a process say and write nothing more. It is false when another did so before.
func (l *life) end() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.endLocked()
}

func (l *life) endLocked() bool {
	if l.over {
		return false
	}
	l.over = true
	close(l.crashed)
	return true
}

// gate is the store as one process has it.
type gate struct {
	*memstore.Store
	l *life
}

// Commit may be where the process ends: before it is written, or after.
func (g gate) Commit(ctx context.Context, w *app.Writes) error {
	g.l.mu.Lock()
	defer g.l.mu.Unlock()
	if g.l.over {
		return errCrash
	}
	s := g.l.side
	what := s.w.describe(w)
	key := s.w.dice.nth(s.name + " commits " + what)
	crash := s.w.hostile() && s.w.dice.chance(s.w.odds.crash, key)
	if crash && s.w.dice.chance(0.5, key+" before") {
		s.w.tracef(s, "ends before it commits %s", what)
		s.w.tally.add("at a commit", 1)
		g.l.endLocked()
		return errCrash
	}
	err := g.Store.Commit(ctx, w)
	if err != nil {
		s.w.tracef(s, "commits %s: %v", what, err)
	} else {
		s.w.tracef(s, "commits %s", what)
	}
	if crash {
		s.w.tracef(s, "ends after it")
		s.w.tally.add("at a commit", 1)
		g.l.endLocked()
		return errCrash
	}
	return err
}

// Later writes soon, unless the process ends before.
func (g gate) Later(w *app.Writes) {
	if g.l.gone() {
		return
	}
	g.Store.Later(w)
	s := g.l.side
	time.AfterFunc(s.w.dice.span(5*time.Millisecond, 60*time.Millisecond, s.w.dice.nth(s.name+" flushes "+s.w.describe(w))), func() {
		g.l.mu.Lock()
		defer g.l.mu.Unlock()
		if !g.l.over {
			g.Store.Flush()
		}
	})
}

// describe names what is written: the same in every run of a seed.
func (w *world) describe(x *app.Writes) string {
	var b []string
	for _, t := range x.Tasks {
		w.know(t.Task.ID, t.Task.RequestID)
		b = append(b, w.label(t.Task.ID)+"="+t.Task.State.String())
	}
	for _, e := range x.Entries {
		k := fmt.Sprintf("%s/%d=%v", w.label(e.Entry.TaskID), e.Entry.Sub.Attempt, e.Entry.State)
		if e.Delete {
			k += " deleted"
		}
		if e.Entry.IsReplica() {
			k += " replica"
		}
		b = append(b, k)
	}
	for _, o := range x.Outbox {
		b = append(b, fmt.Sprintf("+%s %s/%d to %s", o.Type, w.label(o.TaskID), o.Attempt, w.nameOf(o.Peer)))
	}
	if len(x.Sent) > 0 {
		b = append(b, fmt.Sprintf("%d sent", len(x.Sent)))
	}
	for _, r := range x.Releases {
		b = append(b, fmt.Sprintf("+release %s/%d", w.label(r.TaskID), r.Attempt))
	}
	if len(x.Shares) > 0 {
		b = append(b, "+share")
	}
	return strings.Join(b, ", ")
}

// start begins a process.
func (s *side) start() (*life, func(context.Context) error) {
	s.mu.Lock()
	s.lives++
	l := &life{side: s, number: s.lives, crashed: make(chan struct{}), workspace: &workspace{dir: s.dir}}
	s.mu.Unlock()
	l.ctx, l.kill = context.WithCancel(s.w.ctx)
	l.parts = &parts{disk: s.disk, l: l}
	var run func(context.Context) error
	if s.policy.Slots == 0 {
		c := consumer.New(consumer.Config{Store: gate{s.store, l}, Codec: wire.Codec{}, Cipher: cipher{}, Keys: taskKeys{}, Repository: repository{l}, Verifier: signatures{},
			Results: results{s.disk, l}, Uploads: none{}, Logs: logs{s.disk, l}, Inputs: none{}, Pusher: l, Puzzle: sum, Redirect: true, Anonymous: s.w.anonymous, Retention: 24 * time.Hour})
		l.role, run = c, c.Run
		s.must(c.Load(l.ctx), l)
	} else {
		p, err := provider.New(provider.Config{Store: gate{s.store, l}, Codec: wire.Codec{}, Cipher: cipher{}, Key: s.key, Repository: repository{l}, Verifier: signatures{},
			Executors: []app.Executor{&executor{l}}, Evaluator: domain.TwoChoices{Margin: domain.DefaultRounds}, Workspace: l.workspace, Parts: l.parts, Pusher: l, Policy: s.policy, Price: s.price, Anonymous: s.w.anonymous})
		s.must(err, l)
		l.role, run = p, p.Run
		s.must(p.Load(l.ctx), l)
	}
	return l, run
}

func (s *side) must(err error, l *life) {
	if err != nil && !l.gone() {
		s.w.failf("%s does not start: %v", s.name, err)
	}
}

// live runs one process after another until the world ends.
func (s *side) live() {
	for s.w.ctx.Err() == nil {
		l, run := s.start()
		s.w.tracef(s, "starts, number %d", l.number)
		ended := make(chan struct{})
		ctx, cancel := context.WithCancel(l.ctx)
		go func() {
			defer close(ended)
			_ = run(ctx)
		}()
		s.mu.Lock()
		s.life = l
		s.mu.Unlock()
		sessions := make(chan struct{})
		go func() {
			defer close(sessions)
			l.sessions()
		}()
		select {
		case <-l.crashed:
		case <-s.w.ctx.Done():
			l.end()
		}
		if s.w.ctx.Err() == nil {
			s.w.tally.add("crashes", 1)
			s.w.excuse("crash")
		}
		s.mu.Lock()
		s.life = nil
		s.mu.Unlock()
		key := s.w.dice.nth(s.name + " is killed")
		if s.w.dice.chance(s.w.odds.flush, key) || s.w.ctx.Err() != nil {
			s.store.Flush()
		} else {
			s.store.Crash()
		}
		cancel()
		l.kill()
		<-ended
		<-sessions
		if held := s.holding(); held != nil {
			select {
			case <-held:
			case <-s.w.ctx.Done():
			}
		}
		wait(s.w.ctx, s.w.dice.span(20*time.Millisecond, pick(s.w.dice, key+" for", 500*time.Millisecond, 5*time.Second, 40*time.Second), key+" exactly"))
	}
}

// again starts the nodes once more, after the world has ended, and gives what ends them.
func (w *world) again() (end func()) {
	w.ctx, w.cancelCtx = context.WithCancel(context.Background())
	var nodes sync.WaitGroup
	for _, s := range append([]*side{w.consumer}, w.providers...) {
		nodes.Go(s.live)
	}
	return func() {
		w.cancelCtx()
		nodes.Wait()
	}
}

func (s *side) holding() chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held
}

// crashes ends the node's processes at any time, in the middle of whatever they do.
func (s *side) crashes() {
	for i := range s.w.odds.crashes {
		key := fmt.Sprintf("%s crashes %d", s.name, i)
		at := s.w.dice.span(time.Second, faultsEnd, key)
		go func() {
			wait(s.w.ctx, at-time.Since(s.w.begin))
			if l := s.current(); l != nil && s.w.ctx.Err() == nil && l.end() {
				s.w.tracef(s, "ends")
			}
		}()
	}
}

func (s *side) current() *life {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.life
}

// absences cut the node off from the network for a while.
func (s *side) absences() {
	for i := range s.w.odds.absences {
		key := fmt.Sprintf("%s is absent %d", s.name, i)
		at, length := s.w.dice.span(0, faultsEnd-20*time.Second, key), s.w.dice.span(time.Second, pick(s.w.dice, key+" for", 3*time.Second, 40*time.Second), key+" exactly")
		go func() {
			wait(s.w.ctx, at-time.Since(s.w.begin))
			s.cut(true)
			wait(s.w.ctx, length)
			s.cut(false)
		}()
	}
}

func (s *side) cut(absent bool) {
	if s.w.ctx.Err() != nil {
		return
	}
	s.mu.Lock()
	was := s.absent > 0
	if absent {
		s.absent++
	} else {
		s.absent--
	}
	is, now, l := s.absent > 0, time.Now(), s.life
	switch {
	case is && !was:
		s.spells = append(s.spells, spell{from: now})
	case was && !is:
		s.spells[len(s.spells)-1].to = now
	}
	s.mu.Unlock()
	if is == was {
		return
	}
	s.w.tracef(s, "absent: %v", is)
	if is {
		s.w.tally.add("absences", 1)
		s.w.excuse("absence")
	}
	if l != nil && l.current() != nil {
		l.role.SetOnline(l.ctx, !is)
	}
}

// spell is a time without network.
type spell struct{ from, to time.Time }

// wasAbsent tells whether the node was cut off at a time, and knew it.
func (s *side) wasAbsent(at time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.spells, func(p spell) bool { return at.After(p.from) && at.Before(p.to) })
}

func (s *side) reachable() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.absent == 0
}

func (l *life) current() *session {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		return nil
	}
	return l.session
}
