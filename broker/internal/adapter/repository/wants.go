package repository

import (
	"context"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/time/rate"
)

// How fast a peer may ask for blocks. A fetch here asks for 16 at a time, Kubo for some hundreds; blocks that are really given take longer than
// these rates. What is faster waits before it is looked at, with the stream that it came on; who would wait for longer than maxWantWait is
// flooding, and its message is let go.
const (
	wantsPerSecond = 4096
	wantsBurst     = 16384
	maxWantWait    = 2 * time.Second
	maxWanters     = 1024 // peers whose rates are remembered
)

// wants are the rates of a persona's peers.
type wants struct {
	mu    sync.Mutex
	peers map[peer.ID]*rate.Limiter
}

func (w *wants) of(p peer.ID) *rate.Limiter {
	w.mu.Lock()
	defer w.mu.Unlock()
	if l, ok := w.peers[p]; ok {
		return l
	}
	if w.peers == nil {
		w.peers = make(map[peer.ID]*rate.Limiter)
	}
	if len(w.peers) >= maxWanters {
		for q := range w.peers { // any one: a newcomer's allowance is what it gains
			delete(w.peers, q)
			break
		}
	}
	l := rate.NewLimiter(wantsPerSecond, wantsBurst)
	w.peers[p] = l
	return l
}

// admit waits until a message with n entries may be looked at; false: it may not.
func (w *wants) admit(ctx context.Context, p peer.ID, n int) bool {
	now := time.Now()
	r := w.of(p).ReserveN(now, min(n, wantsBurst))
	wait := r.DelayFrom(now)
	if wait == 0 {
		return true
	}
	if wait > maxWantWait {
		r.CancelAt(now)
		return false
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
