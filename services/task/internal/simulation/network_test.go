package simulation_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/shallot-net/shallot/services/task/internal/adapter/wire"
	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/app/provider"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// session is a node that is connected to a process of its task service: it carries events, finds providers, and forgets everything
// when it ends, as one does that is killed.
type session struct {
	l   *life
	ctx context.Context
	end context.CancelFunc

	mu    sync.Mutex
	sends map[uint64]*sending
	tails map[lane]chan struct{} // closed when the last event of a lane is through
}

type lane struct{ peer, task string }

type sending struct {
	withdraw context.CancelFunc
}

// sessions connects one node process after another, until the life ends.
func (l *life) sessions() {
	w, name := l.side.w, l.side.name
	wait(l.ctx, w.dice.span(time.Millisecond, 30*time.Millisecond, w.dice.nth(name+" is found by its node")))
	for !l.gone() {
		s := &session{l: l, sends: make(map[uint64]*sending), tails: make(map[lane]chan struct{})}
		s.ctx, s.end = context.WithCancel(l.ctx)
		l.mu.Lock()
		l.session = s
		l.mu.Unlock()
		if err := l.role.Sync(s.ctx, func(r app.Reply) error { s.handle(r); return s.ctx.Err() }); err != nil && !l.gone() {
			w.failf("%s: sync: %v", name, err)
		}
		l.role.SetOnline(s.ctx, l.side.reachable())
		key := w.dice.nth(name + " has a session")
		var lost <-chan time.Time
		if w.hostile() && w.dice.chance(w.odds.sessions, key) {
			lost = time.After(w.dice.span(10*time.Millisecond, 30*time.Second, key+" for"))
		}
		select {
		case <-lost:
			if w.hostile() {
				w.tracef(l.side, "loses its session")
				w.tally.add("sessions lost", 1)
				w.excuse("session")
			}
		case <-l.crashed:
		case <-l.ctx.Done():
		}
		l.mu.Lock()
		l.session = nil
		l.mu.Unlock()
		s.end()
		if !l.gone() {
			l.role.Lost()
			wait(l.ctx, w.dice.span(5*time.Millisecond, 3*time.Second, key+" and none for"))
		}
	}
}

// Push implements app.Pusher.
func (l *life) Push(_ context.Context, r app.Reply) {
	if s := l.current(); s != nil {
		s.handle(r)
	}
}

// alive tells whether what was said on the session still reaches anybody.
func (s *session) alive() bool { return s.l.current() == s }

// handle does what a node does with what its task service says.
func (s *session) handle(r app.Reply) {
	if !s.alive() {
		return
	}
	if r.Task != nil && s.l.side == s.l.side.w.consumer {
		s.l.side.w.observe(r.Task, r.Stdout, r.HasStdout)
	}
	for _, o := range r.Outbox {
		s.tell(o)
	}
	if p := r.Placement; p != nil {
		go s.place(p)
	}
}

func (s *session) tell(o app.Outgoing) {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.sends[o.ID]
	if o.Withdrawn {
		if was != nil {
			was.withdraw()
		}
		return
	}
	if was != nil {
		return
	}
	ctx, cancel := context.WithCancel(s.ctx)
	s.sends[o.ID] = &sending{cancel}
	w := s.l.side.w
	if o.Event.Type == domain.TypeQuery {
		w.asked()
	}
	key := w.dice.nth(fmt.Sprintf("%s to %s: %s %s", s.l.side.name, w.nameOf(o.Peer), o.Event.Type, w.label(o.TaskID)))
	var before chan struct{}
	through := make(chan struct{})
	if o.TaskID != "" {
		at := lane{o.Peer, o.TaskID}
		before = s.tails[at]
		if w.hostile() && w.dice.chance(w.odds.overtake, key+" overtakes") {
			before = nil
			w.tally.add("overtaking", 1)
			w.excuse("order")
		}
		s.tails[at] = through
	}
	go func() {
		defer close(through)
		defer cancel()
		if before != nil {
			select {
			case <-before: // also where it is withdrawn meanwhile: what follows it must not overtake
			case <-s.ctx.Done():
			}
		}
		s.carry(ctx, o, key)
		s.mu.Lock()
		delete(s.sends, o.ID)
		s.mu.Unlock()
	}()
}

// What became of one try to hand an event over.
type fate int

const (
	arrived   fate = iota
	unreached      // certainly not there
	unknown        // perhaps there
	refused
)

// carry hands an event over, again and again, until it is acknowledged, refused, withdrawn, or its time is over.
func (s *session) carry(ctx context.Context, o app.Outgoing, key string) {
	w := s.l.side.w
	w.tally.add("events", 1)
	deadline := time.Now().Add(o.Timeout)
	uncertain := false
	if o.Sign {
		sign(&o.Event, s.l.side.peer)
	}
	for try := 0; ctx.Err() == nil; try++ {
		n := fmt.Sprintf("%s try %d", key, try+1)
		f := s.try(ctx, o, n)
		if !s.alive() {
			return // and nobody hears of it
		}
		uncertain = uncertain || f == unknown
		switch {
		case f == arrived:
			wait(s.ctx, w.dice.span(time.Millisecond, 25*time.Millisecond, n+" marked")) // marks go together
			if s.alive() {
				s.l.role.MarkSent(s.ctx, []uint64{o.ID})
			}
			return
		case f == refused:
			s.failed(o, "REJECTED")
			return
		case ctx.Err() != nil: // withdrawn
			return
		case o.Timeout > 0 && !time.Now().Before(deadline):
			reason := "UNREACHABLE"
			if uncertain {
				reason = "UNCERTAIN"
			}
			s.failed(o, reason)
			return
		}
		pause := min(100*time.Millisecond<<min(try, 8), 15*time.Second)
		if o.Timeout > 0 {
			pause = min(pause, time.Until(deadline)+time.Millisecond)
		}
		wait(ctx, pause+w.dice.span(0, time.Millisecond, n+" pauses"))
	}
}

func (s *session) failed(o app.Outgoing, reason string) {
	s.l.side.w.tracef(s.l.side, "could not hand over %s %s: %s", o.Event.Type, s.l.side.w.label(o.TaskID), reason)
	r, err := s.l.role.SendFailed(s.ctx, o.ID, reason, "it was not acknowledged")
	if err == nil {
		s.handle(r)
	}
}

// try hands an event over once, with whatever the network does to it.
func (s *session) try(ctx context.Context, o app.Outgoing, key string) fate {
	side := s.l.side
	w := side.w
	to := w.peers[o.Peer]
	most := 10 * time.Millisecond
	hostile := w.hostile()
	if hostile && w.dice.chance(0.1, key+" slow") {
		most = 3 * time.Second
	}
	wait(ctx, w.dice.span(time.Millisecond, most, key+" takes"))
	if ctx.Err() != nil || to == nil || !side.reachable() || !to.reachable() {
		return unreached
	}
	if hostile && w.dice.chance(w.odds.lose, key+" lost") {
		w.tally.add("lost", 1)
		w.tracef(side, "%s is lost", key)
		w.excuse("lost")
		if w.dice.chance(0.3, key+" before it was sent") {
			return unreached
		}
		wait(ctx, w.dice.span(time.Second, 10*time.Second, key+" not answered"))
		return unknown
	}
	if hostile && w.dice.chance(w.odds.late, key+" late") {
		w.tally.add("late", 1)
		w.excuse("late")
		from := side.peer
		go func() {
			wait(w.ctx, w.dice.span(500*time.Millisecond, 60*time.Second, key+" later"))
			if w.ctx.Err() == nil {
				to.deliver(from, o.Event, key+", late,")
			}
		}()
	}
	if hostile && w.dice.chance(w.odds.repeat, key+" twice") {
		w.tally.add("repeated", 1)
		if w.dice.chance(0.5, key+" side by side") {
			go func() {
				wait(w.ctx, w.dice.span(time.Nanosecond, 2*time.Millisecond, key+" beside"))
				to.deliver(side.peer, o.Event, key+", again,")
			}()
		} else {
			to.deliver(side.peer, o.Event, key+", first,")
		}
	}
	f := to.deliver(side.peer, o.Event, key)
	if f == arrived && hostile && w.dice.chance(w.odds.unacked, key+" unacknowledged") {
		w.tally.add("unacknowledged", 1)
		w.tracef(side, "%s is not acknowledged", key)
		wait(ctx, w.dice.span(time.Second, 10*time.Second, key+" not answered"))
		return unknown
	}
	return f
}

// deliver gives an event to whatever process this node has now.
func (to *side) deliver(from string, ev domain.Event, key string) fate {
	l := to.current()
	if l == nil {
		return unreached
	}
	s := l.current()
	if s == nil {
		return unreached
	}
	r := l.role.Deliver(s.ctx, to.delivery(from, ev, l))
	if !s.alive() {
		return unknown // the answer is lost with the process, or with its node
	}
	s.handle(r)
	w := to.w
	w.tracef(to, "got %s: %d %s", key, r.Delivered.Verdict, r.Delivered.Reason)
	switch r.Delivered.Verdict {
	case app.Applied, app.Ignored:
		return arrived
	case app.Misconduct:
		w.failf("%s is misconduct at %s: %s", key, to.name, r.Delivered.Reason)
	case app.Rejected:
		w.tally.add("rejected", 1)
		w.rejected(to, key, r.Delivered.Reason)
		return refused
	}
	return unknown
}

// delivery is what a node adds to an event.
func (to *side) delivery(from string, ev domain.Event, l *life) app.Delivery {
	d := app.Delivery{From: from, OwnPeer: to.peer, Event: ev}
	if p, ok := l.role.(*provider.Service); ok && (ev.Type == domain.TypeSubmission || ev.Type == domain.TypeForceSubmission) {
		d.Own = domain.Resources{Known: true, Queue: p.Queue()}
		for _, other := range to.w.providers {
			if ol := other.current(); other != to && ol != nil {
				d.Candidates = append(d.Candidates, other.candidate())
			}
		}
	}
	return d
}

// candidate is this provider as its metric and its announcement show it.
func (s *side) candidate() app.Candidate {
	c := app.Candidate{Peer: s.peer, SealingKey: s.key.Recipient(), Addresses: []string{"/memory/" + s.name}}
	c.Announcement = domain.Event{ID: app.NewID(), Type: domain.TypeAnnouncement,
		Payload: wire.Codec{}.Encode(&domain.Announcement{PeerID: s.peer, SealingKey: c.SealingKey, Addresses: c.Addresses})}
	sign(&c.Announcement, s.peer)
	if l := s.current(); l != nil {
		if p, ok := l.role.(*provider.Service); ok {
			c.Resources = domain.Resources{Known: true, Queue: p.Queue()}
		}
	}
	c.Version = uint64(time.Now().Unix() / 2)
	return c
}

// place finds a provider for a task, and looks again as long as there is none.
func (s *session) place(p *app.Placement) {
	w := s.l.side.w
	key := w.dice.nth("place " + w.label(p.TaskID))
	wait(s.ctx, w.dice.span(time.Millisecond, 20*time.Millisecond, key))
	if !s.alive() {
		return
	}
	c := w.choose(key, p)
	var r app.Reply
	var err error
	if c == nil {
		r, err = s.l.role.PlacementFailed(s.ctx, p.TaskID, "nobody is left", nil)
	} else {
		w.tracef(s.l.side, "places %s/%d at %s", w.label(p.TaskID), p.Attempt, w.nameOf(c.Peer))
		r, err = s.l.role.Place(s.ctx, p.TaskID, *c, "by lot")
	}
	if err != nil {
		if s.alive() {
			w.failf("place %s: %v", w.label(p.TaskID), err)
		}
		return
	}
	s.handle(r)
}

func (w *world) choose(key string, p *app.Placement) *app.Candidate {
	var able []*side
	for _, s := range w.providers {
		if p.Excluded[s.peer] == "" && (len(p.Only) == 0 || slices.Contains(p.Only, s.peer)) {
			able = append(able, s)
		}
	}
	if len(able) == 0 {
		return nil
	}
	c := able[w.dice.below(len(able), key)].candidate()
	if w.anonymous {
		c.Persona = "t-" + w.label(p.TaskID)
	}
	c.Replicas = w.keepers(key, c.Peer)
	return &c
}

// keepers are the other providers, in some order: who keeps a result, too, if that is wanted.
func (w *world) keepers(key, runner string) []domain.Replica {
	var out []domain.Replica
	first := w.dice.below(len(w.providers), key+" keepers")
	for i := range w.providers {
		if s := w.providers[(first+i)%len(w.providers)]; s.peer != runner {
			out = append(out, domain.Replica{Peer: s.peer, Addresses: []string{"/memory/" + s.name}})
		}
	}
	return out
}
