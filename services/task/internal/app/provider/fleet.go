package provider

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shallot-net/shallot/kit/crew"
	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// fleet is what a replica remembers of those that share its journal. One of them leads: it alone has sessions with nodes, so everything that the network says comes to it, and everything that
// is to be said goes by it. It knows each open entry as a single replica does; what has no slot with it waits in the journal, where whoever has one claims it. The others run, and nothing else.
type fleet struct {
	Fleet
	lease time.Duration
	kicks chan struct{} // there may be something to claim
	news  *app.Work     // entries that others have changed, by keyName
	ended chan error    // why this replica cannot go on

	leads  atomic.Bool // what is to be said goes by this replica
	ready  atomic.Bool // and it knows everything that it has to
	lead   *crew.Term  // for how long the store's last word on that holds
	left   atomic.Bool // a replica has left since the last beat
	missed atomic.Bool // something was not heard, or could not be read

	// Guarded by Service.mu.
	slots            int // of all replicas
	waiting, running int // entries that are elsewhere
}

// Where an entry is that is known here.
type place uint8

const (
	here    place = iota
	waits         // in the journal, for whoever claims it
	runsFar       // at another replica
)

const (
	beatsPerLease = 4
	leaveTimeout  = 2 * time.Second
)

func newFleet(s *Service, f Fleet, lease time.Duration) *fleet {
	if f == nil {
		return nil
	}
	fl := &fleet{Fleet: f, lease: lease, kicks: make(chan struct{}, 1), ended: make(chan error, 1), slots: s.cfg.Policy.Slots}
	fl.lead = crew.NewTerm(func() {
		s.cfg.Log.Warn("this replica does not lead for now: the store has not answered it for as long as its lease, and another one may lead")
		s.watch.Tell(queueKey) // who watches the queue looks for one that leads
	})
	fl.news = app.NewWork(4, func(name string) { s.refresh(keyOf(name)) })
	return fl
}

// Leading tells whether this replica is the one that nodes talk to. A single one always is. One of several is not while the store has not answered it for a lease: another one may lead by
// then. Sessions that stand are kept all the same: when it is the store that is away, nobody leads, and what this replica says of its running tasks keeps their consumers from giving them to
// others. A node has WatchQueue to look for a leader meanwhile, and takes its session there.
func (s *Service) Leading() bool {
	return s.fleet == nil || s.fleet.ready.Load() && s.fleet.lead.Holds()
}

// speaks tells whether what is said here reaches anybody.
func (s *Service) speaks() bool { return s.fleet == nil || s.fleet.leads.Load() }

// holds says that an entry which this replica writes down is its own.
func (f *fleet) holds(w *app.EntryWrite) {
	if f != nil {
		w.Holder, w.Lease = f.Name(), f.lease
	}
}

// writeHolder says in an entry's first write who works on it. far: whoever claims it.
func (s *Service) writeHolder(h *held, w *app.EntryWrite) (far bool) {
	if s.fleet == nil {
		return false
	}
	s.mu.Lock()
	far = h.at != here
	s.mu.Unlock()
	if far {
		w.Told = s.fleet.Name()
	} else {
		s.fleet.holds(w)
	}
	return far
}

// told has the leader hear of a write that it did not make itself.
func (f *fleet) told(w *app.EntryWrite) {
	if f != nil && !f.leads.Load() {
		w.Told = f.Name()
	}
}

func (f *fleet) kick() {
	if f == nil {
		return
	}
	select {
	case f.kicks <- struct{}{}:
	default:
	}
}

// put says where an entry is. s.mu is held.
func (s *Service) put(h *held, at place) {
	if s.fleet == nil {
		return
	}
	count := func(p place, n int) {
		switch p {
		case waits:
			s.fleet.waiting += n
		case runsFar:
			s.fleet.running += n
		}
	}
	count(h.at, -1)
	h.at = at
	count(at, 1)
}

// runFleet does a replica's part of the fleet's work until ctx ends, or until another one leads in its place.
func (s *Service) runFleet(ctx context.Context) error {
	f := s.fleet
	var beside sync.WaitGroup
	defer beside.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	beside.Go(func() { _ = f.Listen(ctx, s.hear) })
	beat := time.NewTicker(f.lease / beatsPerLease)
	defer beat.Stop()
	for {
		select {
		case <-f.kicks:
			if !f.left.Swap(false) {
				break
			}
			if err := s.beat(ctx); err != nil {
				return err
			}
		case <-beat.C:
			if err := s.beat(ctx); err != nil {
				return err
			}
		case <-ctx.Done():
			return nil
		}
		s.claim(ctx)
	}
}

// leaveFleet gives everything back at the end, so that nobody has to wait for a lease.
func (s *Service) leaveFleet(f *fleet) {
	ctx, cancel := context.WithTimeout(context.Background(), leaveTimeout)
	defer cancel()
	if err := f.Leave(ctx); err != nil {
		s.cfg.Log.Info("the other replicas take over when the lease of this one is over", "error", err.Error())
	}
}

// errSuperseded ends a replica that was away for so long that another one leads: nodes have to look for that one.
var errSuperseded = fault.Unavailable("NOT_LEADING", "another replica leads now, because this one did not answer for longer than its lease: start it again, and it executes")

// own are the entries that this replica works on.
func (s *Service) own() []domain.EntryKey {
	s.mu.Lock()
	defer s.mu.Unlock()
	keep := make([]domain.EntryKey, 0, len(s.held))
	for k, h := range s.held {
		if h.at == here {
			keep = append(keep, k)
		}
	}
	return keep
}

// cancelOwn ends an entry where it is this replica that works on it. It does not block.
func (s *Service) cancelOwn(k domain.EntryKey) {
	s.mu.Lock()
	h := s.held[k]
	mine := h != nil && h.at == here
	s.mu.Unlock()
	if mine {
		s.runs.Go(func() { s.cancelHere(h) })
	}
}

// beat tells the others that this replica is there. An error is final.
func (s *Service) beat(ctx context.Context) error {
	f := s.fleet
	sent := time.Now() // the store counts the lease from later
	p, err := f.Beat(ctx, s.cfg.Policy.Slots, s.own, f.lease)
	if err != nil {
		f.missed.Store(true)
		s.cfg.Log.Debug("the other replicas could not be told that this one is there", "error", err.Error())
		return nil
	}
	s.mu.Lock()
	f.slots = max(p.Slots, s.cfg.Policy.Slots)
	s.mu.Unlock()
	for _, k := range p.Cancelled {
		s.cancelOwn(k)
	}
	if p.Leads && f.lead.Renew(sent.Add(f.lease)) && f.ready.Load() {
		s.cfg.Log.Info("this replica leads on: the store answers again, and no other one has taken the lead")
	}
	switch {
	case p.Leads && !f.ready.Load():
		f.leads.Store(true)
		if err := s.loadOpen(ctx); err != nil {
			s.cfg.Log.Warn("the lead could not be taken, and will be tried again", "error", err.Error())
			return nil
		}
		f.ready.Store(true)
		s.cfg.Log.Info("this replica leads", "replicas", p.Replicas)
		s.runs.Go(func() { // of the leader's life before this one, whoever that was
			s.putAgain(s.ctx)
			s.leftovers.Run(s.ctx)
			s.replicasLeft.Run(s.ctx)
		})
	case !p.Leads && f.leads.Load():
		return errSuperseded
	}
	if f.leads.Load() && f.missed.Swap(false) {
		s.lookAtAll()
	}
	s.watch.Tell(queueKey)
	return nil
}

// lookAtAll reads again what is elsewhere.
func (s *Service) lookAtAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, h := range s.held {
		if h.at != here {
			s.fleet.news.Add(keyName(k))
		}
	}
}

// hear is told what others do. It does not block.
func (s *Service) hear(n Note) {
	f := s.fleet
	switch {
	case n.Missed:
		f.missed.Store(true)
		f.kick()
	case n.Left:
		f.left.Store(true)
		f.kick()
	case n.Waiting:
		f.kick()
	case n.Runs: // most are over before anybody has to know
		time.AfterFunc(startDelay, func() {
			s.mu.Lock()
			known := s.held[n.Key] != nil
			s.mu.Unlock()
			if known || !f.leads.Load() {
				f.news.Add(keyName(n.Key))
			}
		})
	case n.Changed:
		f.news.Add(keyName(n.Key))
	case n.Cancel:
		s.cancelOwn(n.Key)
	}
}

// reserve takes all slots that are free, for what is going to be claimed, and tells how many these are. What comes meanwhile waits for the next one.
func (s *Service) reserve() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping {
		return 0
	}
	n := max(0, s.cfg.Policy.Slots-s.running-len(s.queue)-len(s.remote)-s.staging)
	s.reserved = n
	return n
}

// claim takes as much as there are slots for.
func (s *Service) claim(ctx context.Context) {
	if ctx.Err() != nil {
		return
	}
	n := s.reserve()
	if n == 0 {
		return
	}
	claimed, err := s.fleet.Claim(ctx, n, s.fleet.lease, s.beginning)
	if err != nil && ctx.Err() == nil {
		s.cfg.Log.Debug("nothing could be claimed", "error", err.Error())
	}
	for _, c := range claimed {
		h, new := s.adopt(c)
		switch {
		case !new:
		case c.Cancelled:
			s.cancelHere(h)
		default:
			s.begin(h)
		}
	}
	s.mu.Lock()
	s.reserved = 0
	s.pump()
	s.mu.Unlock()
}

// beginning is an entry that is claimed, as it is once it runs: one commit, and with it one way to the store, is both. nil: it does not run at once, since what it needs is to be brought first, or
// has to have a place for it.
func (s *Service) beginning(e *domain.Entry) *app.EntryWrite {
	if s.executors[e.Sub.Type] == nil || s.guests[e.Sub.Type] != nil || fetched(e) {
		return nil
	}
	e = e.Clone()
	if e.Start(time.Now()) != nil {
		return nil
	}
	e.Revision++
	w := &app.EntryWrite{Entry: e}
	s.fleet.told(w)
	return w
}

// fetched tells whether an entry's payload has to be brought before it can run.
func fetched(e *domain.Entry) bool { return e.Sub.PayloadCID != "" || e.Sub.RefSize > 0 }

// adopt makes an entry that was claimed this replica's own. false: it was.
func (s *Service) adopt(c Claimed) (h *held, new bool) {
	e, k := c.Entry, c.Entry.Key()
	s.mu.Lock()
	h = s.held[k]
	s.mu.Unlock()
	if h == nil {
		h = s.newHeld(e)
		h.at = waits // not counted: it is known to nobody yet
		s.mu.Lock()
		if s.held[k] == nil {
			s.held[k] = h
			s.perPeer[k.Consumer]++
			s.fleet.waiting++
		}
		h = s.held[k]
		s.mu.Unlock()
	}
	h.mu.Lock() // after the commit of whoever journals it just now
	defer h.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if h.at == here || s.held[k] != h || s.stopping {
		return h, false
	}
	h.entry, h.journaled, h.resumed, h.begun = e, true, true, c.Begun
	if c.Begun {
		h.material = &c.Material
	}
	s.put(h, here)
	return h, true
}

// begin queues an entry that was adopted.
func (s *Service) begin(h *held) {
	if s.speaks() {
		h.logs.open(s, h)
	}
	if h.executor == nil {
		s.runs.Go(func() { s.settle(h, unknownType(), nil) })
		return
	}
	h.mu.Lock()
	far, begun := fetched(h.entry), h.begun
	h.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case begun: // in a slot that was kept free for it
		s.reserved--
		s.turns.began(h.key.Consumer)
		s.start(h)
	case far:
		s.remote = append(s.remote, h)
	default:
		s.queue = append(s.queue, h)
	}
	s.pump()
	s.watch.Tell(queueKey)
}

func unknownType() *domain.Outcome {
	return &domain.Outcome{Cause: domain.CauseProvider, Reason: "TYPE_UNKNOWN", Message: "this provider does not execute the task type any more"}
}

// away are reasons of a store that is well again some time.
var away = []string{"STORE_AWAY", "STORE_READ_ONLY", "STORE_FULL"}

// another tells whether an attempt that could not be begun is one for whoever claims it next: the store was away, or another replica has it, since this one was.
func (s *Service) another(err error) bool {
	if s.fleet == nil || err == nil {
		return false
	}
	var f *fault.Error
	return errors.Is(err, app.ErrConflict) || errors.As(err, &f) && slices.Contains(away, f.Reason)
}

// giveBack leaves an attempt to whoever claims it next; false: this process ends. The next beat gives back the claim.
func (s *Service) giveBack(h *held) bool {
	if s.fleet == nil || s.ctx.Err() != nil {
		return false
	}
	s.mu.Lock()
	known := s.fleet.leads.Load() && s.held[h.key] == h
	if known {
		s.put(h, waits)
	}
	s.mu.Unlock()
	if known {
		s.fleet.news.Add(keyName(h.key)) // it may be over
		return true
	}
	h.stop()
	s.forget(h, false)
	return true
}
