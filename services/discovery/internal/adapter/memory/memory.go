// Package memory is a store that lives as long as its process: for tests and simulations.
package memory

import (
	"context"
	"sync"

	"github.com/shallot-net/shallot/services/discovery/internal/app"
	"github.com/shallot-net/shallot/services/discovery/internal/domain"
)

// Store is an app.Store. The zero value is empty and ready.
type Store struct {
	mu       sync.Mutex
	peers    map[string]domain.Peer
	reserved uint64
	self     *app.Self
	fail     error
	left     int // calls before the one that fails
}

var _ app.Store = (*Store)(nil)

// FailAfter lets so many calls through that could fail, and makes the next one do so.
func (s *Store) FailAfter(calls int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail, s.left = err, calls
}

func (s *Store) failed() error {
	if s.left > 0 {
		s.left--
		return nil
	}
	err := s.fail
	s.fail = nil
	return err
}

// LoadPeers returns the rows.
func (s *Store) LoadPeers(context.Context) ([]domain.Peer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]domain.Peer, 0, len(s.peers))
	for _, p := range s.peers {
		out = append(out, p)
	}
	return out, s.failed()
}

// SavePeers replaces and deletes rows.
func (s *Store) SavePeers(put []domain.Peer, del []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.peers == nil {
		s.peers = map[string]domain.Peer{}
	}
	for _, p := range put {
		p.Connected, p.RTT, p.Vouched = false, 0, false
		s.peers[p.PeerID] = p
	}
	for _, id := range del {
		delete(s.peers, id)
	}
}

// ReserveVersions takes versions.
func (s *Store) ReserveVersions(_ context.Context, n, atLeast uint64) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.failed(); err != nil {
		return 0, err
	}
	first := max(s.reserved, atLeast, 1)
	s.reserved = first + n
	return first, nil
}

// LoadSelf returns what was saved.
func (s *Store) LoadSelf(context.Context) (app.Self, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.failed(); err != nil || s.self == nil {
		return app.Self{}, false, err
	}
	return *s.self, true, nil
}

// SaveSelf saves it.
func (s *Store) SaveSelf(_ context.Context, self app.Self) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.failed(); err != nil {
		return err
	}
	s.self = &self
	return nil
}
