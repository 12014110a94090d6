package repository

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

func TestWants(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	t.Run("a fetch", func(t *testing.T) {
		w := newWants()
		for n := range 1000 {
			if wait, ok, flooding := w.take("p", 16, now.Add(time.Duration(n)*10*time.Millisecond)); wait > 0 || !ok || flooding {
				t.Fatalf("message %d: waits %v, admitted %v, flooding %v", n, wait, ok, flooding)
			}
		}
	})
	t.Run("one that waits its time", func(t *testing.T) {
		w := newWants()
		at, flooded := now, 0
		for at.Sub(now) < 10*time.Second {
			wait, ok, flooding := w.take("p", 2000, at)
			if !ok {
				t.Fatal("who waits is admitted")
			}
			if flooding {
				flooded++
			}
			at = at.Add(wait)
		}
		if flooded < 3 || flooded > 10 {
			t.Errorf("told of %d times in ten seconds", flooded)
		}
	})
	t.Run("one with many streams", func(t *testing.T) {
		w := newWants()
		refused, flooded := 0, 0
		for range 100 {
			_, ok, flooding := w.take("p", wantsBurst, now)
			if !ok {
				refused++
			}
			if flooding {
				flooded++
			}
		}
		if refused < 90 || flooded != 1 {
			t.Errorf("%d of 100 refused, told of %d times in one moment", refused, flooded)
		}
		if wait, ok, _ := w.take("another", 100, now); wait > 0 || !ok {
			t.Error("another peer pays for it")
		}
	})
	t.Run("bounded", func(t *testing.T) {
		w := newWants()
		for n := range 3 * maxWanters {
			w.take(peer.ID(binary.BigEndian.AppendUint32(nil, uint32(n))), 1, now)
		}
		if w.peers.Len() > maxWanters {
			t.Errorf("%d peers are remembered", w.peers.Len())
		}
	})
}
