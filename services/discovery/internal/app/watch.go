package app

import (
	"context"
	"crypto/rand"
	"encoding/hex"

	"google.golang.org/grpc/codes"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/services/discovery/internal/domain"
)

// What is counted.
const (
	CountAnnounced       = "announced"
	CountDiscover        = "discover_answered"
	CountUnavailable     = "peer_unavailable"
	CountForgotten       = "peer_forgotten"
	CountEvicted         = "peer_evicted"
	CountJoinFailed      = "join_failed"
	CountAdvertised      = "advertised"
	CountAdvertiseFailed = "advertise_failed"
	CountStranger        = "stranger_met"
	CountDialFailed      = "dial_failed"
	CountSlowWatcher     = "watcher_cut_off"
)

var outcomeCount = map[domain.Outcome]string{
	domain.Repeated: "announcement_repeated", domain.Old: "announcement_old", domain.Full: "announcement_not_kept",
	domain.Newer: "announcement_newer", domain.Added: "announcement_added",
	domain.TooOften: "announcement_too_often",
}

// Counts are all names that a Counter is called with.
func Counts() []string {
	all := []string{CountAnnounced, CountDiscover, CountUnavailable, CountForgotten, CountEvicted, CountJoinFailed, CountDialFailed, CountSlowWatcher, CountAdvertised, CountAdvertiseFailed, CountStranger}
	for _, n := range outcomeCount {
		all = append(all, n)
	}
	return all
}

// watchBuffer is how far a watcher may fall behind: a whole table's worth of changes and more.
const watchBuffer = 1024

// ErrSlowWatcher ends the watch of a reader that fell too far behind.
var ErrSlowWatcher = fault.New(codes.ResourceExhausted, "WATCHER_TOO_SLOW", "the watcher fell more than %d changes behind and was cut off: watch again for the table as it is now", watchBuffer)

// Change is one change of the peer table: a peer as it is now, or the id of one that was forgotten.
type Change struct {
	Peer      domain.Peer
	Forgotten string
}

// Watcher gets changes until it is stopped or too slow; then C is closed and Err says why.
type Watcher struct {
	C   <-chan Change
	c   chan Change
	s   *Service
	err error
}

// Watch returns the table as it is now, and all that changes from then on.
func (s *Service) Watch() ([]domain.Peer, *Watcher) {
	w := &Watcher{c: make(chan Change, watchBuffer), s: s}
	w.C = w.c
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watchers[w] = struct{}{}
	return s.table.All(), w
}

// Stop ends the watch.
func (w *Watcher) Stop() {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	w.endLocked(nil)
}

// Err says why C was closed.
func (w *Watcher) Err() error {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	return w.err
}

func (w *Watcher) endLocked(err error) {
	if _, there := w.s.watchers[w]; there {
		delete(w.s.watchers, w)
		w.err = err
		close(w.c)
	}
}

// changedLocked tells the store and the watchers of a row as it is now.
func (s *Service) changedLocked(id string) {
	p, ok := s.table.Get(id)
	if !ok {
		return
	}
	s.save([]domain.Peer{p}, nil)
	s.tellLocked(Change{Peer: p})
}

func (s *Service) forgottenLocked(id string) {
	s.save(nil, []string{id})
	s.tellLocked(Change{Forgotten: id})
}

// shelveLocked moves a peer that the table has forgotten to the book.
func (s *Service) shelveLocked(p domain.Peer) {
	evicted := s.book.Add(p)
	if evicted != p.PeerID {
		p, _ = s.book.Get(p.PeerID)
		s.save([]domain.Peer{p}, nil)
	}
	if evicted != "" {
		s.save(nil, []string{evicted})
	}
	s.tellLocked(Change{Forgotten: p.PeerID})
}

func (s *Service) tellLocked(c Change) {
	for w := range s.watchers {
		select {
		case w.c <- c:
		default:
			s.cfg.Counter.Count(CountSlowWatcher)
			w.endLocked(ErrSlowWatcher)
		}
	}
}

// Peers returns the peer table, ordered by peer id.
func (s *Service) Peers(context.Context) []domain.Peer {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.table.All()
}

// Peer returns one row.
func (s *Service) Peer(id string) (domain.Peer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.table.Get(id)
	if !ok {
		return domain.Peer{}, fault.NotFound("PEER_UNKNOWN", "no peer with this id is known here: ListPeers has those that are")
	}
	return p, nil
}

// Figures are for gauges.
type Figures struct {
	Known, Available, Neighbours, Network int
}

// Figures are counted now.
func (s *Service) Figures() Figures {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Figures{s.table.Len(), s.table.CountAvailable(), len(s.table.Neighbours()), s.networkLocked()}
}

func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // it never fails
	return hex.EncodeToString(b[:])
}
