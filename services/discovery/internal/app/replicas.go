package app

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/shallot-net/shallot/kit/crew"
	"github.com/shallot-net/shallot/kit/logging"
	"github.com/shallot-net/shallot/services/discovery/internal/domain"
)

// share makes what this replica has to do with others.
func (s *Service) share() {
	var members crew.Members
	if s.cfg.Shared != nil {
		members = s.cfg.Shared
	}
	s.lead, s.news = crew.New(members, crew.Lease, s.log), newNews()
	if members == nil {
		close(s.news.caughtUp)
	}
	s.reached = reached{tell: s.cfg.Reached, storeOK: true}
	s.lead.Store = s.reached.store
}

// Leads tells whether this replica does.
func (s *Service) Leads() bool { return s.lead.Leads() }

// Led waits until this replica leads, with the table as the one before has left it; false when ctx ended before. A single one leads at once.
func (s *Service) Led(ctx context.Context) bool {
	select {
	case <-s.lead.Led():
	case <-ctx.Done():
		return false
	}
	select {
	case <-s.news.caughtUp:
		return true
	case <-ctx.Done():
		return false
	}
}

// While runs do whenever this replica leads, first with the table as the one before has left it, and ends its context when it does not any more; see crew.Lead. Meanwhile it says and hears
// nothing: what the broker gives to this service goes to one of those that listen, and is lost on one that leads no more.
func (s *Service) While(ctx context.Context, do func(ctx context.Context) error) error {
	if !s.Led(ctx) {
		return nil
	}
	return s.lead.While(ctx, do)
}

// save writes rows where it is this replica's to do so. s.mu is held.
func (s *Service) save(put []domain.Peer, del []string) {
	switch {
	case !s.acts():
	case !s.lead.Leads(): // not even later: another one may have written newer ones by then
		s.unsaved = true
	default:
		s.cfg.Store.SavePeers(put, del)
	}
}

// saveMissed writes down what could not be while this replica did not lead, and nobody else did.
func (s *Service) saveMissed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.unsaved {
		s.unsaved = false
		s.save(slices.Concat(s.book.All(), s.table.All()), nil)
	}
}

// acts tells whether this replica is the one that has to do with the network and writes the table, whenever it leads.
func (s *Service) acts() bool {
	select {
	case <-s.news.caughtUp:
		return true
	default:
		return false
	}
}

func (s *Service) savePuzzle(ctx context.Context, p domain.Puzzle) error {
	if s.cfg.Shared == nil {
		return nil
	}
	s.mu.Lock()
	same := s.puzzle.Effort == p.Effort && string(s.puzzle.Nonce) == string(p.Nonce)
	s.mu.Unlock()
	if same {
		return nil
	}
	return s.cfg.Shared.SavePuzzle(ctx, p)
}

// news are what other replicas have written and this one has not read.
type news struct {
	wake     chan struct{}
	caughtUp chan struct{} // closed once this replica leads and has read everything

	mu    sync.Mutex
	all   bool
	self  bool
	peers map[string]bool
}

func newNews() *news {
	return &news{wake: make(chan struct{}, 1), caughtUp: make(chan struct{}), peers: map[string]bool{}}
}

// maxNews bounds what is noted one by one.
const maxNews = 1024

func (n *news) add(m News) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.all = n.all || m.Missed || len(n.peers) >= maxNews
	n.self = n.self || m.Missed || m.Self
	if m.Peer != "" && !n.all {
		n.peers[m.Peer] = true
	}
	wake(n.wake)
}

func (n *news) take() (all, self bool, peers map[string]bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	all, self, peers = n.all, n.self, n.peers
	n.all, n.self, n.peers = false, false, map[string]bool{}
	return all, self, peers
}

// mirrorLoop keeps this replica's table the same as that of the one that leads; who leads reads only what node has told another replica.
func (s *Service) mirrorLoop(ctx context.Context) error {
	if s.cfg.Shared == nil {
		return nil
	}
	var listening sync.WaitGroup
	defer listening.Wait()
	listening.Go(func() {
		_ = s.cfg.Shared.Listen(ctx, func(m News) {
			if m.Left {
				s.lead.Kick()
				return
			}
			s.news.add(m)
		})
	})
	led := s.lead.Led()
	pause := newWait(100*time.Millisecond, 5*time.Second)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-led:
			if s.mirror(ctx, true, true, nil) {
				led = nil
				close(s.news.caughtUp)
				continue
			}
		case <-s.news.wake:
			all, self, peers := s.news.take()
			if s.mirror(ctx, all, self, peers) {
				pause.Reset()
				continue
			}
			s.news.add(News{Missed: true})
		}
		if !sleep(ctx, pause.NextBackOff(), nil) {
			return nil
		}
	}
}

// mirror reads what has changed; false when the store did not answer.
func (s *Service) mirror(ctx context.Context, all, self bool, peers map[string]bool) bool {
	if self {
		if err := s.mirrorSelf(ctx); err != nil {
			s.log.Debug("what another replica was told could not be read", logging.Err(err))
			return false
		}
	}
	if s.acts() {
		return true
	}
	if all {
		rows, err := s.cfg.Shared.Rows(ctx)
		if err != nil {
			s.log.Debug("the peer table could not be read", logging.Err(err))
			return false
		}
		s.mirrorAll(rows)
		return true
	}
	for id := range peers {
		p, there, err := s.cfg.Shared.Row(ctx, id)
		if err != nil {
			s.log.Debug("a row of the peer table could not be read", logging.Err(err))
			return false
		}
		s.mu.Lock()
		s.mirrorLocked(id, p, there)
		s.mu.Unlock()
	}
	return true
}

func (s *Service) mirrorAll(rows []domain.Peer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	there := make(map[string]bool, len(rows))
	for _, p := range rows {
		there[p.PeerID] = true
	}
	for _, p := range slices.Concat(s.book.All(), s.table.All()) { // first: there has to be room
		if !there[p.PeerID] {
			s.mirrorLocked(p.PeerID, p, false)
		}
	}
	for _, p := range rows {
		s.mirrorLocked(p.PeerID, p, true)
	}
}

func (s *Service) mirrorLocked(id string, p domain.Peer, there bool) {
	if !there || p.State == domain.Forgotten {
		s.book.Remove(id)
		if there {
			s.book.Add(p)
		}
		if s.table.Drop(id) {
			s.tellLocked(Change{Forgotten: id})
		}
		return
	}
	s.book.Remove(id)
	if s.table.Mirror(p) {
		p, _ = s.table.Get(id)
		s.tellLocked(Change{Peer: p})
	}
}

func (s *Service) mirrorSelf(ctx context.Context) error {
	self, ok, err := s.cfg.Store.LoadSelf(ctx)
	if err != nil {
		return err
	}
	p, err := s.cfg.Shared.LoadPuzzle(ctx)
	if err != nil {
		return err
	}
	s.mu.Lock()
	news := ok && !(s.hasSelf && sameSelf(s.self, self))
	if news {
		s.self, s.hasSelf = self, true
	}
	s.mu.Unlock()
	if news {
		s.wakeAnnounce(true)
	}
	s.setPuzzle(p)
	return nil
}

// reached joins what is needed to be of use.
type reached struct {
	tell func(bool)

	mu                sync.Mutex
	brokerOK, storeOK bool
	told, last        bool
}

func (r *reached) broker(ok bool) { r.set(&r.brokerOK, ok) }
func (r *reached) store(ok bool)  { r.set(&r.storeOK, ok) }

func (r *reached) set(which *bool, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	*which = ok
	if now := r.brokerOK && r.storeOK; !r.told || now != r.last {
		r.told, r.last = true, now
		if r.tell != nil {
			r.tell(now)
		}
	}
}
