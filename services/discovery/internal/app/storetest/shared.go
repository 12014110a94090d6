package storetest

import (
	"context"
	"testing"
	"time"

	"github.com/shallot-net/shallot/services/discovery/internal/app"
	"github.com/shallot-net/shallot/services/discovery/internal/domain"
)

// SharedStore is one that replicas have in common.
type SharedStore interface {
	app.Store
	app.Shared
}

// RunShared tests what two replicas see of each other over one store. open makes an empty one, each time another.
func RunShared(t *testing.T, open func(t *testing.T) (one, two SharedStore), peer func(n int) domain.Peer) {
	t.Run("one of them leads", func(t *testing.T) { lead(t, open) })
	t.Run("what one writes the other hears of", func(t *testing.T) { news(t, open, peer) })
	t.Run("versions are reserved at both", func(t *testing.T) {
		one, two := open(t)
		taken := map[uint64]bool{}
		for i := range 16 {
			first, err := []SharedStore{one, two}[i%2].ReserveVersions(t.Context(), 2, 0)
			if err != nil {
				t.Fatal(err)
			}
			for v := first; v < first+2; v++ {
				if taken[v] {
					t.Errorf("version %d was given out twice", v)
				}
				taken[v] = true
			}
		}
	})
}

func lead(t *testing.T, open func(t *testing.T) (one, two SharedStore)) {
	one, two := open(t)
	beat := func(s SharedStore, lease time.Duration, leads bool, replicas int) {
		t.Helper()
		p, err := s.Beat(t.Context(), lease)
		if err != nil || p.Leads != leads || p.Replicas != replicas {
			t.Fatalf("Beat = %+v, %v; want leads %v among %d", p, err, leads, replicas)
		}
	}
	beat(one, time.Minute, true, 1)
	beat(two, time.Minute, false, 2)
	beat(one, time.Minute, true, 2)
	if others, err := one.Leave(t.Context()); err != nil || others != 1 {
		t.Fatalf("Leave = %d, %v", others, err)
	}
	if p, err := two.Beat(t.Context(), time.Microsecond); err != nil || !p.Leads { // and is silent then
		t.Fatalf("Beat = %+v, %v", p, err)
	}
	beat(one, time.Minute, true, 1)
	beat(two, time.Minute, false, 2)
}

func news(t *testing.T, open func(t *testing.T) (one, two SharedStore), peer func(n int) domain.Peer) {
	one, two := open(t)
	heard := make(chan app.News, 64)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- two.Listen(ctx, func(n app.News) { heard <- n }) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	expect := func(want app.News) {
		t.Helper()
		select {
		case got := <-heard:
			if got != want {
				t.Fatalf("heard %+v, want %+v", got, want)
			}
		case <-time.After(time.Minute):
			t.Fatalf("never heard %+v", want)
		}
	}
	expect(app.News{Missed: true})
	p := peer(1)
	p.Vouched = true
	one.SavePeers([]domain.Peer{p}, nil)
	expect(app.News{Peer: p.PeerID})
	if got, ok, err := two.Row(t.Context(), p.PeerID); err != nil || !ok || !got.Vouched || got.Version != p.Version {
		t.Errorf("Row = %+v, %v, %v", got, ok, err)
	}
	one.SavePeers(nil, []string{p.PeerID})
	expect(app.News{Peer: p.PeerID})
	if _, ok, err := two.Row(t.Context(), p.PeerID); ok || err != nil {
		t.Errorf("after its end there is a row, or %v", err)
	}
	if err := one.SaveSelf(t.Context(), app.Self{SealingKey: "age1"}); err != nil {
		t.Fatal(err)
	}
	expect(app.News{Self: true})
	puzzle := domain.Puzzle{Nonce: make([]byte, domain.NonceSize), Effort: 8}
	if err := one.SavePuzzle(t.Context(), puzzle); err != nil {
		t.Fatal(err)
	}
	expect(app.News{Self: true})
	if got, err := two.LoadPuzzle(t.Context()); err != nil || got.Effort != 8 || len(got.Nonce) != domain.NonceSize {
		t.Errorf("LoadPuzzle = %+v, %v", got, err)
	}
	if _, err := one.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	expect(app.News{Left: true})
}
