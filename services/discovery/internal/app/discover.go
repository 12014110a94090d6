package app

import (
	"bytes"
	"context"
	"math/bits"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/shallot-net/shallot/kit/logging"
	"github.com/shallot-net/shallot/kit/marks"
	"github.com/shallot-net/shallot/services/discovery/internal/domain"
)

const (
	maxSample     = 32        // announcements of others in one answer
	maxAnswerSize = 200 << 10 // bytes of announcements in one answer: an event has 256 KiB
	regularSample = 8         // that are asked for again and again, to mend what gossip lost
	enoughKnown   = 64        // who knows so many available peers asks a new neighbour for no more than regularSample either
	maxAnswers    = 64        // answers and hand-overs under way
	maxAsking     = 64        // questions under way
	maxAsked      = 256       // questions that wait for an answer
	maxTaken      = maxSample + 2
	markedUpTo    = 4 // times what the table holds: a larger network is asked without marks
	mendOften     = 4 * time.Second
	mendSeldom    = time.Minute
	askTimeout    = 5 * time.Second
	answerWithin  = 15 * time.Second
	answerSoon    = 300 * time.Millisecond // in which most answers are there
	introductions = 8                      // neighbours that are told of a newcomer
	// A neighbour's discovery service may start seconds after its broker; a consumer has none, and is not asked for ever.
	askFor = 12 * time.Second
)

// query is a Discover that waits for its answer.
type query struct {
	peer  string
	until time.Time
}

// Verdict is what became of an event.
type Verdict int

// The verdicts.
const (
	Applied Verdict = iota
	Ignored
	Rejected
	Retry
)

// ask asks a new neighbour who is out there, until it is heard: one that has just started may have nothing to say of itself yet.
func (s *Service) ask(id string) {
	s.mu.Lock()
	busy := s.asking[id]
	if !busy {
		s.asking[id] = true
	}
	s.mu.Unlock()
	if busy {
		return
	}
	limit := maxSample
	s.mu.Lock()
	if s.table.CountAvailable() >= enoughKnown { // 100 KB for each of a well-known node's connections would be its largest expense
		limit = regularSample
		if len(s.table.Neighbours()) >= s.cfg.Neighbours { // it wants to know who this is, and little more
			limit = 1
		}
	}
	s.mu.Unlock()
	started := s.spawn(s.asks, func(ctx context.Context) {
		defer s.doneAsking(id)
		wait := newWait(30*time.Millisecond, 2*time.Second)
		for began := time.Now(); time.Since(began) < askFor && s.isConnected(id); {
			pause := wait.NextBackOff()
			asked := s.askNow(ctx, id, limit) == nil
			if asked {
				pause = max(pause, answerSoon)
			}
			if !sleep(ctx, pause, nil) || asked && s.knows(id) {
				return
			}
		}
	})
	if !started {
		s.doneAsking(id)
	}
}

func (s *Service) doneAsking(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.asking, id)
}

func (s *Service) knows(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.table.Get(id)
	return ok
}

func (s *Service) isConnected(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.table.IsConnected(id)
}

// askOne asks a peer once, not waiting for anything.
func (s *Service) askOne(id string, limit int) {
	s.spawn(s.asks, func(ctx context.Context) { _ = s.askNow(ctx, id, limit) })
}

func (s *Service) askNow(ctx context.Context, id string, limit int) error {
	q := Question{ID: newID(), Limit: limit}
	s.mu.Lock()
	if len(s.asked) < maxAsked {
		s.asked[q.ID] = query{id, time.Now().Add(s.cfg.Ask + answerWithin - askTimeout)}
	}
	q.Has = s.marksLocked(q.ID)
	s.mu.Unlock()
	call, cancel := context.WithTimeout(ctx, s.cfg.Ask)
	defer cancel()
	err := s.ev.SendDiscover(call, id, q)
	if err != nil {
		s.mu.Lock()
		delete(s.asked, q.ID)
		s.mu.Unlock()
	}
	return err
}

// marksLocked are of what this node has. Where the network is far larger than its table, hardly any would be of a peer that the other would tell of.
func (s *Service) marksLocked(question string) []uint32 {
	if s.networkLocked() > markedUpTo*s.cfg.MaxPeers {
		return nil
	}
	has := s.table.Versions(marks.Most - 1)
	out := make([]uint32, 0, len(has)+1)
	if s.own.Version > 0 {
		out = append(out, marks.Of(question, s.own.PeerID, s.own.Version))
	}
	for id, version := range has {
		out = append(out, marks.Of(question, id, version))
	}
	return out
}

// mendLoop asks a neighbour for what gossip has lost: often while there is news, then less and less. An answer holds only what this node has not, so that it
// costs little where nothing was lost. Where not all peers have a place in the table, there is always news, and it is left to the announcements.
func (s *Service) mendLoop(ctx context.Context) error {
	wait := newWait(mendOften, mendSeldom)
	had := 0
	for sleep(ctx, wait.NextBackOff(), nil) {
		s.mu.Lock()
		told := s.table.Neighbours()
		have, all := s.table.CountAvailable(), s.networkLocked() <= s.cfg.MaxPeers
		s.mu.Unlock()
		if have > had {
			wait.Reset()
		}
		if had = have; all && len(told) > 0 {
			s.askOne(told[rand.IntN(len(told))], maxSample)
		}
	}
	return nil
}

// HandleDiscover answers a peer's question.
func (s *Service) HandleDiscover(from string, q Question) Verdict {
	s.cfg.Counter.Count(CountDiscover)
	ok := s.spawn(s.answers, func(ctx context.Context) {
		call, cancel := context.WithTimeout(ctx, s.cfg.Ask)
		defer cancel()
		if err := s.ev.SendDiscoverResponse(call, from, s.answer(from, q)); err != nil {
			s.log.Debug("answer not delivered", logging.Peer(from), logging.Err(err))
		}
	})
	if !ok {
		return Retry
	}
	return Applied
}

func (s *Service) answer(from string, q Question) DiscoverResponse {
	if q.Limit <= 0 || q.Limit > maxSample {
		q.Limit = maxSample
	}
	has := marks.NewSet(q.ID, q.Has)
	s.mu.Lock()
	defer s.mu.Unlock()
	r := DiscoverResponse{InReplyTo: q.ID, Puzzle: s.puzzle, Known: s.size.Told(time.Now(), s.table.CountAvailable()+1)}
	if s.cfg.Coarse { // the next power of two
		r.Known = 1 << bits.Len(uint(r.Known-1))
	}
	size := 0
	add := func(signed []byte) {
		if len(signed) > 0 && size+len(signed) <= maxAnswerSize {
			r.Signed = append(r.Signed, signed)
			size += len(signed)
		}
	}
	add(s.signed)
	if q.Own {
		return r
	}
	news := func(p *domain.Peer) bool { return p.PeerID != from && !has.Has(p.PeerID, p.Version) }
	for _, p := range s.table.Sample(q.Limit, q.Types, news) {
		add(p.Signed)
	}
	// What the asker once said of itself: when its store was lost, it must count on from there.
	if p, ok := s.table.Get(from); ok && !has.Has(from, p.Version) {
		add(p.Signed)
	}
	return r
}

// Heard is one announcement that passed the checks of envelope, signature and shape.
type Heard struct {
	Announcement domain.Announcement
	Signed       []byte
}

// Expects tells whether an answer of this peer to this question is waited for.
func (s *Service) Expects(from, inReplyTo string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	q, ok := s.asked[inReplyTo]
	return ok && q.peer == from
}

// Has tells whether this is what a peer was last heard to say, with its signature.
func (s *Service) Has(peer string, signed []byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.table.Get(peer)
	return ok && len(signed) > 0 && bytes.Equal(p.Signed, signed)
}

// HandleDiscoverResponse takes the answer to a question of this node's; others are ignored.
func (s *Service) HandleDiscoverResponse(from, inReplyTo string, heard []Heard, known int) Verdict {
	s.mu.Lock()
	q, ok := s.asked[inReplyTo]
	if !ok || q.peer != from {
		s.mu.Unlock()
		return Ignored
	}
	delete(s.asked, inReplyTo)
	s.size.Hint(time.Now(), from, known)
	s.mu.Unlock()
	if slices.ContainsFunc(heard, s.misplaced) { // who hands it on should not have taken it
		return Rejected
	}
	for _, h := range heard[:min(len(heard), maxTaken)] {
		src := domain.FromSample
		if h.Announcement.PeerID == from {
			src = domain.FromItself
		}
		s.observe(from, h, src)
	}
	return Applied
}

// misplaced tells of an announcement that names addresses which nobody may believe here: this node is in anonymous mode, where all have onion addresses as it has itself.
func (s *Service) misplaced(h Heard) bool {
	s.mu.Lock()
	own := s.identity.Addresses
	s.mu.Unlock()
	return len(own) > 0 && domain.OnionOnly(own) && !domain.OnionOnly(h.Announcement.Addresses)
}

// HandleAnnouncement takes one that was gossiped, or handed over by a peer.
func (s *Service) HandleAnnouncement(from string, gossiped bool, h Heard) Verdict {
	if s.misplaced(h) {
		return Rejected
	}
	src := domain.FromSample
	switch {
	case gossiped:
		src = domain.FromGossip
	case h.Announcement.PeerID == from:
		src = domain.FromItself
	}
	switch s.observe(from, h, src) {
	case domain.Repeated, domain.Old, domain.TooOften:
		return Ignored
	}
	return Applied
}

func (s *Service) observe(from string, h Heard, src domain.Source) domain.Outcome {
	a := h.Announcement
	s.mu.Lock()
	if a.PeerID == s.identity.PeerID {
		s.heardSelfLocked(a)
		s.mu.Unlock()
		return domain.Repeated
	}
	now := time.Now()
	network := s.networkLocked()
	before, _ := s.table.Get(a.PeerID)
	outcome, evicted := s.table.Observe(a, h.Signed, src, network, now)
	switch {
	case outcome == domain.Old: // said again by somebody else: that a peer left before it came back would take it out of the count
	case a.Leaving:
		s.size.Left(now, a.PeerID)
	case src == domain.FromGossip: // what others hand on says nothing of how many speak
		s.size.Heard(now, a.PeerID, a.Clamped().Interval)
	}
	if evicted != "" {
		s.forgottenLocked(evicted)
		s.cfg.Counter.Count(CountEvicted)
	}
	after, _ := s.table.Get(a.PeerID)
	switch outcome {
	case domain.Added, domain.Newer:
		s.book.Remove(a.PeerID)
		s.changedLocked(a.PeerID)
	case domain.Repeated:
		if before.State != after.State {
			s.changedLocked(a.PeerID)
		}
	}
	var tell []string
	if src == domain.FromItself && (outcome == domain.Added || outcome == domain.Newer && !before.Vouched) && !a.Leaving {
		tell = s.table.Neighbours()
	}
	own := s.signed
	unasked := s.cfg.AskKnown && s.table.IsConnected(a.PeerID) && !s.dialled[a.PeerID]
	s.mu.Unlock()
	s.cfg.Counter.Count(outcomeCount[outcome])
	if outcome == domain.Added && !a.Leaving {
		if src == domain.FromItself && own != nil {
			s.push([]string{a.PeerID}, own) // it may have too much to do to ask
		}
		if unasked {
			s.ask(a.PeerID)
		}
		s.introduce(tell, a.PeerID, h.Signed)
		s.greet(network)
		wake(s.redial)
	}
	return outcome
}

// introduce tells neighbours of a newcomer that told this node alone. They do not pass it on: gossip does the rest.
func (s *Service) introduce(neighbours []string, newcomer string, signed []byte) {
	told := neighbours[:0]
	for _, id := range neighbours {
		if id != newcomer {
			told = append(told, id)
		}
	}
	if len(told) > introductions {
		told = told[:introductions]
	}
	s.push(told, signed)
}

// heardSelfLocked looks at what this node is said to have said. A higher version than it knows of is its own from before
// its store was lost: nobody listens until it counts on from there.
func (s *Service) heardSelfLocked(a domain.Announcement) {
	if a.Version <= s.own.Version {
		return
	}
	s.versions.skipTo(a.Version)
	s.wakeAnnounce(true)
}
