package repository

import (
	"context"
	"sync"
	"time"

	"github.com/ipfs/boxo/bitswap/message"
	"github.com/ipfs/boxo/bitswap/network"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shallot-net/shallot/kit/bounded"
)

// A block's name is computed from its bytes when it arrives, so one with wrong bytes is one that nobody asked for. bitswap drops it and
// goes on asking the same peer; here that peer has no part in content for a while.
const (
	refuseFor   = 10 * time.Minute
	maxRefused  = 1024
	maxWantedAt = 1 << 16 // names in each half of the memory: far more than can be on their way
)

// wanted remembers what was asked for lately, also when it has come: it may come from several peers, and late.
type wanted struct {
	mu       sync.Mutex
	now, old map[string]struct{}
}

func (w *wanted) add(cids []cid.Cid) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range cids {
		if w.now == nil || len(w.now) >= maxWantedAt {
			w.old, w.now = w.now, make(map[string]struct{})
		}
		w.now[keyOf(c)] = struct{}{}
	}
}

func (w *wanted) has(c cid.Cid) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, now := w.now[keyOf(c)]
	_, old := w.old[keyOf(c)]
	return now || old
}

// watched is bitswap's network with peers that sent wrong bytes left out.
type watched struct {
	network.BitSwapNetwork
	s       *Store
	persona string
	wants   *wants
	wanted  wanted
	asked   asked // anonymous mode

	mu      sync.Mutex
	refused *bounded.Map[peer.ID, time.Time] // until then
	givers  *bounded.Map[cid.Cid, peer.ID]   // who has sent a block last; anonymous mode
}

// maxGivers is many times what is under way on one host.
const maxGivers = 1024

func (w *watched) gave(p peer.ID, all []blocks.Block) {
	if !w.s.profile.byName || len(all) == 0 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, b := range all {
		w.givers.Put(b.Cid(), p)
	}
}

// giver is who has sent a block; bitswap gives it to all who wait for it here, whomever they asked.
func (w *watched) giver(c cid.Cid) peer.ID {
	w.mu.Lock()
	defer w.mu.Unlock()
	p, _ := w.givers.Get(c)
	return p
}

// Start implements network.BitSwapNetwork.
func (w *watched) Start(receivers ...network.Receiver) {
	guarded := make([]network.Receiver, len(receivers))
	for i, r := range receivers {
		guarded[i] = &guard{r, w}
	}
	w.BitSwapNetwork.Start(guarded...)
}

func (w *watched) allowed(p peer.ID) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	until, ok := w.refused.Get(p)
	if ok && time.Now().After(until) {
		w.refused.Delete(p)
		ok = false
	}
	return !ok
}

func (w *watched) refuse(p peer.ID) {
	w.s.metrics.liars.Inc()
	w.s.log.Warn("a peer sent a block that nobody asked for: it is not asked for content for a while", "for", refuseFor)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.refused.Put(p, time.Now().Add(refuseFor))
}

// guard stands before one receiver.
type guard struct {
	network.Receiver
	w *watched
}

// ReceiveMessage implements network.Receiver.
func (g *guard) ReceiveMessage(ctx context.Context, sender peer.ID, incoming message.BitSwapMessage) {
	if !g.w.allowed(sender) {
		return
	}
	for _, b := range incoming.Blocks() {
		if !g.w.wanted.has(b.Cid()) { // by this persona: what another one wants is nobody's business
			g.w.refuse(sender)
			g.Receiver.PeerDisconnected(sender) // whoever waits for it asks others
			return
		}
	}
	g.w.gave(sender, incoming.Blocks())
	if !g.w.admit(g.w.s.ctx, sender, max(1, len(incoming.Wantlist()))) {
		return
	}
	g.Receiver.ReceiveMessage(asking(ctx, g.w.s.owner(g.w.persona, sender)), sender, incoming)
}

// PeerConnected implements network.Receiver.
func (g *guard) PeerConnected(p peer.ID) {
	if g.w.allowed(p) {
		g.Receiver.PeerConnected(p)
	}
}
