package repository

import (
	"context"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/time/rate"

	"github.com/shallot-net/shallot/kit/bounded"
)

// How fast a peer may ask for blocks. A fetch here asks for 16 at a time, Kubo for some hundreds; blocks that are really given take longer than
// these rates. What is faster waits before it is looked at, with the stream that it came on. A peer whose every message has had to wait for
// floodAfter is flooding, and so is one whose message would wait for longer than maxWantWait: that is let go.
const (
	wantsPerSecond = 2048
	wantsBurst     = 8192
	maxWantWait    = 5 * time.Second
	floodAfter     = 3 * time.Second
	maxWanters     = 1024 // peers whose rates are remembered
)

// wants are the rates of a persona's peers.
type wants struct {
	mu    sync.Mutex
	peers *bounded.Map[peer.ID, *wanter]
}

func newWants() *wants { return &wants{peers: bounded.New[peer.ID, *wanter](maxWanters)} }

type wanter struct {
	rate  *rate.Limiter
	since time.Time // since when everything has had to wait; zero: the last did not
	told  time.Time // when it was last said to be flooding
}

// of finds or makes a peer's. Under w.mu.
func (w *wants) of(p peer.ID) *wanter {
	return w.peers.GetOrMake(p, func() *wanter { return &wanter{rate: rate.NewLimiter(wantsPerSecond, wantsBurst)} })
}

// take says how long a message with n entries has to wait, whether it may, and whether its sender is to be told of as flooding, which it
// is once a second.
func (w *wants) take(p peer.ID, n int, now time.Time) (wait time.Duration, admitted, flooding bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	x := w.of(p)
	r := x.rate.ReserveN(now, min(n, wantsBurst))
	wait = r.DelayFrom(now)
	if wait == 0 {
		x.since = time.Time{}
		return 0, true, false
	}
	if x.since.IsZero() {
		x.since = now
	}
	if admitted = wait <= maxWantWait; !admitted {
		r.CancelAt(now)
	}
	if flooding = (!admitted || now.Sub(x.since) >= floodAfter) && now.Sub(x.told) >= time.Second; flooding {
		x.told = now
	}
	return wait, admitted, flooding
}

// admit waits until a message with n entries may be looked at; false: it may not.
func (w *watched) admit(ctx context.Context, p peer.ID, n int) bool {
	wait, admitted, flooding := w.wants.take(p, n, time.Now())
	if flooding && w.s.cfg.Flooded != nil {
		w.s.cfg.Flooded(w.persona, w.s.owner(w.persona, p))
	}
	if wait == 0 || !admitted {
		return admitted
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
