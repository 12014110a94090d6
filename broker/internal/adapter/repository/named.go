package repository

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/ipfs/boxo/bitswap/message"
	bsnet "github.com/ipfs/boxo/bitswap/network"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"
)

// In anonymous mode a want says what its sender is interested in, so only those are asked who are named for it. That has two halves: the session of a request hears of no
// other providers (namedProviders), and no want leaves for anybody else, whatever a session believes (asked): one that has learned of a peer by a block
// that two requests have in common would ask it for everything.

type namedKey struct{}

// withNamed is a context by which a session finds the peer at the other end of its way.
func withNamed(ctx context.Context, p peer.ID) context.Context {
	return context.WithValue(ctx, namedKey{}, p)
}

// namedProviders is a routing.ContentDiscovery that knows the peer of the way that asks, as long as it is connected. It dials nobody: ways are made elsewhere.
type namedProviders struct{ host host.Host }

// FindProvidersAsync implements routing.ContentDiscovery.
func (n namedProviders) FindProvidersAsync(ctx context.Context, _ cid.Cid, _ int) <-chan peer.AddrInfo {
	out := make(chan peer.AddrInfo, 1)
	if p, ok := ctx.Value(namedKey{}).(peer.ID); ok && n.host.Network().Connectedness(p) == network.Connected {
		out <- peer.AddrInfo{ID: p}
	}
	close(out)
	return out
}

// asked are the blocks that may be asked for, and at whom.
type asked struct {
	mu sync.Mutex
	at map[peer.ID]map[string]int // requests, by block
}

// name lets blocks be asked for at peers until end is called.
func (a *asked) name(peers []peer.ID, cids []cid.Cid) (end func()) {
	a.add(peers, cids, 1)
	return func() { a.add(peers, cids, -1) }
}

func (a *asked) add(peers []peer.ID, cids []cid.Cid, n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.at == nil {
		a.at = make(map[peer.ID]map[string]int)
	}
	for _, p := range peers {
		blocks := a.at[p]
		if blocks == nil {
			blocks = make(map[string]int)
			a.at[p] = blocks
		}
		for _, c := range cids {
			if blocks[keyOf(c)] += n; blocks[keyOf(c)] == 0 {
				delete(blocks, keyOf(c))
			}
		}
		if len(blocks) == 0 {
			delete(a.at, p)
		}
	}
}

// restrict takes out of a message the wants that its receiver is not named for. What was asked may be cancelled at any time.
func (a *asked) restrict(p peer.ID, m message.BitSwapMessage) message.BitSwapMessage {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := m
	for _, e := range m.Wantlist() {
		if e.Cancel || a.at[p][keyOf(e.Cid)] > 0 {
			continue
		}
		if out == m {
			out = m.Clone()
		}
		out.Remove(e.Cid)
	}
	return out
}

// SendMessage implements network.BitSwapNetwork.
func (w *watched) SendMessage(ctx context.Context, p peer.ID, m message.BitSwapMessage) error {
	if w.s.profile.byName {
		if m = w.asked.restrict(p, m); m.Empty() {
			return nil
		}
	}
	return w.BitSwapNetwork.SendMessage(ctx, p, m)
}

// NewMessageSender implements network.BitSwapNetwork.
func (w *watched) NewMessageSender(ctx context.Context, p peer.ID, o *bsnet.MessageSenderOpts) (bsnet.MessageSender, error) {
	s, err := w.BitSwapNetwork.NewMessageSender(ctx, p, o)
	if err != nil || !w.s.profile.byName {
		return s, err
	}
	return &restricted{s, w, p}, nil
}

// restricted sends a peer only the wants that it is named for.
type restricted struct {
	bsnet.MessageSender
	w    *watched
	peer peer.ID
}

// SendMsg implements network.MessageSender.
func (r *restricted) SendMsg(ctx context.Context, m message.BitSwapMessage) error {
	if m = r.w.asked.restrict(r.peer, m); m.Empty() {
		return nil
	}
	return r.MessageSender.SendMsg(ctx, m)
}

var errNoPing = errors.New("round trips are not measured in anonymous mode")

// Ping implements network.BitSwapNetwork.
func (w *watched) Ping(ctx context.Context, p peer.ID) ping.Result {
	if !w.s.profile.ping {
		return ping.Result{Error: errNoPing}
	}
	return w.BitSwapNetwork.Ping(ctx, p)
}

// Latency implements network.BitSwapNetwork.
func (w *watched) Latency(p peer.ID) time.Duration {
	if !w.s.profile.ping {
		return 0
	}
	return w.BitSwapNetwork.Latency(p)
}
