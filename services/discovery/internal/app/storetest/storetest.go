// Package storetest is what every store of discovery must do.
package storetest

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/shallot-net/shallot/services/discovery/internal/app"
	"github.com/shallot-net/shallot/services/discovery/internal/domain"
)

// Store is one that can be opened again.
type Store struct {
	app.Store
	// Reopen closes the store as a stop of the process does, and returns what the next process finds.
	Reopen func() app.Store
}

// Run tests what open makes: an empty store, each time another. peer makes a row that the store can keep.
func Run(t *testing.T, open func(t *testing.T) Store, peer func(n int) domain.Peer) {
	t.Run("an empty store has nothing", func(t *testing.T) {
		s := open(t)
		if got := load(t, s); len(got) != 0 {
			t.Errorf("%d peers", len(got))
		}
		if _, ok, err := s.LoadSelf(t.Context()); ok || err != nil {
			t.Errorf("LoadSelf = %v, %v", ok, err)
		}
	})
	t.Run("peers survive", func(t *testing.T) { peers(t, open(t), peer) })
	t.Run("self survives", func(t *testing.T) { self(t, open(t), peer(1)) })
	t.Run("versions never repeat", func(t *testing.T) { versions(t, open(t)) })
	t.Run("versions are reserved side by side", func(t *testing.T) { concurrent(t, open(t)) })
}

func load(t *testing.T, s app.Store) []domain.Peer {
	t.Helper()
	got, err := s.LoadPeers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(got, func(a, b domain.Peer) int { return cmp.Compare(a.PeerID, b.PeerID) })
	return got
}

func peers(t *testing.T, s Store, peer func(int) domain.Peer) {
	a, b, c := peer(1), peer(2), peer(3)
	s.SavePeers([]domain.Peer{a, b, c}, nil)
	b.State, b.LastSeen = domain.Unavailable, b.LastSeen.Add(time.Minute)
	b.Connected, b.RTT, b.Vouched = true, time.Second, true
	s.SavePeers([]domain.Peer{b}, []string{c.PeerID, "unknown"})
	next := s.Reopen()
	b.Connected, b.RTT, b.Vouched = false, 0, false
	want := []domain.Peer{a, b}
	slices.SortFunc(want, func(a, b domain.Peer) int { return cmp.Compare(a.PeerID, b.PeerID) })
	got := load(t, next)
	if len(got) != 2 {
		t.Fatalf("%d peers, want 2", len(got))
	}
	for i := range want {
		if err := same(got[i], want[i]); err != nil {
			t.Errorf("peer %d: %v", i, err)
		}
	}
}

func same(got, want domain.Peer) error {
	switch {
	case got.PeerID != want.PeerID || got.Version != want.Version || got.Interval != want.Interval || !got.SameSelf(&want.Announcement):
		return fmt.Errorf("announcement %+v, want %+v", got.Announcement, want.Announcement)
	case got.State != want.State || got.Connected || got.RTT != 0 || got.Vouched:
		return fmt.Errorf("state %s, connected %v, rtt %v, vouched %v, want %s and none of the others", got.State, got.Connected, got.RTT, got.Vouched, want.State)
	case !got.FirstSeen.Equal(want.FirstSeen) || !got.LastSeen.Equal(want.LastSeen):
		return fmt.Errorf("seen %v to %v, want %v to %v", got.FirstSeen, got.LastSeen, want.FirstSeen, want.LastSeen)
	case string(got.Signed) != string(want.Signed):
		return fmt.Errorf("the signed announcement differs")
	}
	return nil
}

func self(t *testing.T, s Store, like domain.Peer) {
	for _, key := range []string{"age1" + like.PeerID, like.SealingKey} {
		if err := s.SaveSelf(t.Context(), app.Self{Capabilities: like.Capabilities, SealingKey: key}); err != nil {
			t.Fatal(err)
		}
	}
	got, ok, err := s.Reopen().LoadSelf(t.Context())
	if err != nil || !ok {
		t.Fatalf("LoadSelf = %v, %v", ok, err)
	}
	if got.SealingKey != like.SealingKey || !slices.EqualFunc(got.Capabilities, like.Capabilities, domain.Capability.Equal) {
		t.Errorf("LoadSelf = %+v", got)
	}
}

func versions(t *testing.T, s Store) {
	next := uint64(1)
	take := func(st app.Store, n, atLeast uint64) {
		t.Helper()
		first, err := st.ReserveVersions(t.Context(), n, atLeast)
		if err != nil {
			t.Fatal(err)
		}
		if first < next || first < atLeast || first == 0 {
			t.Fatalf("reserved %d from %d on, after %d were given out", n, first, next-1)
		}
		next = first + n
	}
	take(s, 10, 0)
	take(s, 1, 0)
	take(s, 256, 5000)
	take(s, 256, 1)
	take(s.Reopen(), 256, 0)
	if next < 5000+3*256 {
		t.Errorf("the counter is at %d", next)
	}
}

func concurrent(t *testing.T, s Store) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	taken := map[uint64]bool{}
	for range 16 {
		wg.Go(func() {
			first, err := s.ReserveVersions(t.Context(), 3, 0)
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			for v := first; v < first+3; v++ {
				if taken[v] {
					t.Errorf("version %d was given out twice", v)
				}
				taken[v] = true
			}
		})
	}
	wg.Wait()
}
