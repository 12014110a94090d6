package libp2p

import (
	"context"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/time/rate"

	"github.com/shallot-net/shallot/broker/internal/app"
	"github.com/shallot-net/shallot/kit/bounded"
	"github.com/shallot-net/shallot/kit/fault"
)

// trust is what is known of a peer that is to be dialled: it costs more to make up the higher it is.
type trust int

const (
	hearsay trust = iota // somebody says that there is such a peer
	vouched              // more than one peer does
	typed                // this node's user has named it: a bootstrap address, an invite, an address that was typed
	trusts
)

// dialBudget bounds the dials of one trust: so many at once, one more in that time, and so many under way.
type dialBudget struct {
	every      time.Duration
	atOnce     int
	inProgress int
}

// dialBudgets are those of a host. Together no more may be under way than the transport dials side by side, so that whoever invents peers that never answer
// keeps none of the others waiting.
type dialBudgets [trusts]dialBudget

// maxTrusted bounds the peers of whom it is remembered what they were dialled as: they are dialled again by whoever has something for them.
const maxTrusted = 1024

// dials keeps a host to its budgets. A nil one has none.
type dials struct {
	of [trusts]struct {
		rate     *rate.Limiter
		underWay chan struct{}
	}
	mu    sync.Mutex
	known *bounded.Map[peer.ID, trust]
}

func newDials(budgets *dialBudgets) *dials {
	if budgets == nil {
		return nil
	}
	d := &dials{known: bounded.New[peer.ID, trust](maxTrusted)}
	for t, b := range budgets {
		d.of[t].rate, d.of[t].underWay = rate.NewLimiter(rate.Every(b.every), b.atOnce), make(chan struct{}, b.inProgress)
	}
	return d
}

func trustOf(t app.Target) trust {
	switch {
	case t.Peer == "":
		return typed
	case t.Vouched:
		return vouched
	}
	return hearsay
}

// trusted is the highest trust under which a peer was dialled, this time included.
func (d *dials) trusted(id peer.ID, t trust) trust {
	d.mu.Lock()
	defer d.mu.Unlock()
	before, _ := d.known.Get(id)
	if t > before {
		d.known.Put(id, t)
	}
	return max(t, before)
}

// begin takes a dial from the budget of its trust, until end. It waits for its turn; for those whom others have told of alone it does so only behind others of
// them, and is refused where they were too many.
func (d *dials) begin(ctx context.Context, id peer.ID, t trust) (end func(), err error) {
	if d == nil {
		return func() {}, nil
	}
	t = d.trusted(id, t)
	b := &d.of[t]
	select {
	case b.underWay <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	end = func() { <-b.underWay }
	if t == hearsay && !b.rate.Allow() {
		end()
		return nil, fault.ResourceExhausted("DIAL_BUDGET", "this node has dialled as many peers that others have told of as it does in a short time: try again in a minute")
	}
	if t > hearsay && b.rate.Wait(ctx) != nil {
		end()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, fault.ResourceExhausted("DIAL_BUDGET", "this node dials so many peers that this one's turn does not come in time: try again in a minute")
	}
	return end, nil
}
