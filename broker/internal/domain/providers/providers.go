// Package providers remembers who has said that they offer something: a key's providers. Anybody may say so, for any key, so all of it is bounded.
package providers

import (
	"math/rand/v2"
	"slices"
	"time"
)

// Bounds of a Store.
type Bounds struct {
	Total   int // records
	PerKey  int // providers of one key
	PerPeer int // keys of one provider
	TTL     time.Duration
}

// Default are the bounds of a node. A record takes some 300 bytes, so a full store is well below a mebibyte. A provider offers a few types of
// tasks and some content: see MaxOwn. Nobody needs more than a few dozen providers of anything: which ones is left to chance.
//
// A record lives for three hours and is said again every hour: a node that is gone is named for three hours at most, and two that were
// lost on the way do no harm.
var Default = Bounds{Total: 2048, PerKey: 32, PerPeer: 128, TTL: 3 * time.Hour}

const (
	// MaxOwn is how much content a node says that it has; it leaves room for the rest of what it offers.
	MaxOwn = 96
	// AgainEvery is how often a record is to be said again.
	AgainEvery = time.Hour
	// sweepEvery is the least time between two looks for ended records where there is no room: each is at all of them.
	sweepEvery = time.Minute
)

// Record is one provider of a key.
type Record struct {
	Peer string
	At   time.Time // when it was said last
}

// Store is not safe for concurrent use.
type Store struct {
	bounds Bounds
	keys   map[string][]Record
	peers  map[string][]string // the keys of each provider, in the order in which they came
	len    int
	swept  time.Time
}

// New makes an empty one.
func New(b Bounds) *Store {
	return &Store{bounds: b, keys: make(map[string][]Record), peers: make(map[string][]string)}
}

// Len is the number of records, ended ones that were not swept yet included.
func (s *Store) Len() int { return s.len }

// Holds tells whether a peer is a provider of anything.
func (s *Store) Holds(peer string) bool { return len(s.peers[peer]) > 0 }

// Add notes what a peer says, and tells whether it is kept. A peer that has its share is refused. Where a key has its share, one of its providers
// goes by chance; were it the oldest, or were newcomers refused, whoever has many identities could choose who stays. Where there is no room at all, who has
// the most gives the oldest of it: so a flood is its own victim first.
func (s *Store) Add(key, peer string, at, now time.Time) bool {
	if at.After(now) {
		at = now
	}
	if key == "" || peer == "" || now.Sub(at) > s.bounds.TTL {
		return false
	}
	of := s.keys[key]
	if i := slices.IndexFunc(of, func(r Record) bool { return r.Peer == peer }); i >= 0 {
		if at.After(of[i].At) {
			of[i].At = at
		}
		return true
	}
	if len(s.peers[peer]) >= s.bounds.PerPeer {
		return false
	}
	if len(of) >= s.bounds.PerKey {
		s.remove(key, of[rand.IntN(len(of))].Peer)
	}
	if since := now.Sub(s.swept); s.len >= s.bounds.Total && (since >= sweepEvery || since < 0) {
		s.Expire(now)
	}
	if s.len >= s.bounds.Total {
		fullest := s.fullest()
		s.remove(s.peers[fullest][0], fullest)
	}
	s.keys[key] = append(s.keys[key], Record{Peer: peer, At: at})
	s.peers[peer] = append(s.peers[peer], key)
	s.len++
	return true
}

// fullest is a peer with the most records.
func (s *Store) fullest() (peer string) {
	most := 0
	for p, keys := range s.peers {
		if len(keys) > most {
			peer, most = p, len(keys)
		}
	}
	return peer
}

// Of returns a key's providers, in no order.
func (s *Store) Of(key string, now time.Time) []Record {
	return slices.DeleteFunc(slices.Clone(s.keys[key]), func(r Record) bool { return now.Sub(r.At) > s.bounds.TTL })
}

// Remove forgets one record; one that is not there is no error.
func (s *Store) Remove(key, peer string) {
	if slices.Contains(s.peers[peer], key) {
		s.remove(key, peer)
	}
}

// Expire forgets records that have ended.
func (s *Store) Expire(now time.Time) {
	s.swept = now
	s.forget(func(r Record) bool { return now.Sub(r.At) > s.bounds.TTL })
}

// Keep forgets the records of all peers but those for which keep holds.
func (s *Store) Keep(keep func(peer string) bool) {
	s.forget(func(r Record) bool { return !keep(r.Peer) })
}

func (s *Store) forget(gone func(Record) bool) {
	for key, of := range s.keys {
		for _, r := range slices.Clone(of) {
			if gone(r) {
				s.remove(key, r.Peer)
			}
		}
	}
}

// remove takes out a record that is there.
func (s *Store) remove(key, peer string) {
	if s.keys[key] = slices.DeleteFunc(s.keys[key], func(r Record) bool { return r.Peer == peer }); len(s.keys[key]) == 0 {
		delete(s.keys, key)
	}
	i := slices.Index(s.peers[peer], key)
	if s.peers[peer] = slices.Delete(s.peers[peer], i, i+1); len(s.peers[peer]) == 0 {
		delete(s.peers, peer)
	}
	s.len--
}
