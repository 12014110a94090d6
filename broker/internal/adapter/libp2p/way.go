package libp2p

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/shallot-net/shallot/broker/internal/adapter/onion"
	"github.com/shallot-net/shallot/kit/fault"
)

// ErrNoWay is a number of which there is no way to a peer: it or this node has no such lane, or neither of the two can be reached.
var ErrNoWay = errors.New("there is no such way to the peer")

// Way is a connection between a lane of a persona and one of a peer. Its lane is not closed before Release.
type Way struct {
	b       *bulk
	lane    *lane
	peer    peer.ID
	gone    chan struct{}
	release sync.Once
}

// Lane is the number of this persona's lane.
func (w *Way) Lane() int { return w.lane.number }

// Peer is the id of the peer's lane.
func (w *Way) Peer() string { return w.peer.String() }

// Gone is closed when the connection has ended.
func (w *Way) Gone() <-chan struct{} { return w.gone }

// Heard is when bytes last came; zero: never.
func (w *Way) Heard() time.Time { return w.lane.since(w.peer) }

// Close ends the connection, so that the next one has a circuit of its own.
func (w *Way) Close() { _ = w.lane.host.Network().ClosePeer(w.peer) }

// Release says that the way is not used any more. It may be called again.
func (w *Way) Release() { w.release.Do(func() { w.b.release(w.lane) }) }

func (n *Network) bulkOf(persona string) *bulk {
	n.mu.Lock()
	defer n.mu.Unlock()
	if h := n.hosts[persona]; h != nil {
		return h.bulk
	}
	return nil
}

// Way makes sure of one of the ways by which content travels between a persona and a peer, which is named as at the hosts of events; number counts them from 0. It blocks for
// seconds. ErrNoWay: there are no more.
func (n *Network) Way(ctx context.Context, persona, id string, number int) (*Way, error) {
	b := n.bulkOf(persona)
	if b == nil {
		return nil, fault.NotFound("PERSONA_UNKNOWN", "there is no persona %q: open it first", persona)
	}
	p, err := peer.Decode(id)
	if err != nil {
		return nil, fault.InvalidArgument("PEER_INVALID", "%.80q is not a peer id", id).Because(err)
	}
	return b.way(ctx, p, number)
}

// Owner is the peer, as it is named at the hosts of events, for whom a lane speaks that is connected to one of a persona's; empty: nobody.
func (n *Network) Owner(persona, lane string) string {
	id, err := peer.Decode(lane)
	b := n.bulkOf(persona)
	if b == nil || err != nil {
		return ""
	}
	owner := b.owner(id)
	if owner == "" {
		return ""
	}
	return owner.String()
}

// Expect prepares for peers who are about to fetch from a persona that they cannot dial: one lane dials them now, and so they need not ask for it. It does not block.
func (n *Network) Expect(persona string, peers []string) {
	b := n.bulkOf(persona)
	if b == nil || b.reachable() {
		return
	}
	for _, id := range peers {
		p, err := peer.Decode(id)
		if err != nil {
			continue
		}
		go func() {
			ctx, cancel := context.WithTimeout(b.h.ctx, laneComes)
			defer cancel()
			if w, err := b.way(ctx, p, 0); err == nil {
				w.Release()
			}
		}()
	}
}

func (b *bulk) way(ctx context.Context, p peer.ID, number int) (*Way, error) {
	if number >= len(b.ids) {
		return nil, ErrNoWay
	}
	there := func(c *claim) bool { // the lane has come, or need not
		if c.reachable || number >= len(c.lanes) {
			return true
		}
		b.mu.Lock()
		l := b.lanes[0]
		b.mu.Unlock()
		return l != nil && l.connected(c.lanes[number])
	}
	c, err := b.greet(ctx, p, there, number+1)
	switch {
	case err != nil:
		return nil, err
	case c.reachable:
		return b.dial(ctx, number, c.lanes[0])
	case number >= len(c.lanes) || !b.reachable():
		return nil, ErrNoWay
	}
	return b.await(ctx, c.lanes[number])
}

// dial makes sure of a connection from a lane of this persona to a peer's that can be reached.
func (b *bulk) dial(ctx context.Context, number int, to peer.ID) (*Way, error) {
	at, err := onion.Address(to)
	if err != nil {
		return nil, err
	}
	l, err := b.open(number)
	if err != nil {
		return nil, err
	}
	if err := l.host.Connect(ctx, peer.AddrInfo{ID: to, Addrs: []ma.Multiaddr{at}}); err != nil {
		b.release(l)
		return nil, err
	}
	return b.stands(l, to)
}

// await waits for a lane of a peer to come to the first of this persona.
func (b *bulk) await(ctx context.Context, from peer.ID) (*Way, error) {
	l, err := b.open(0)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, laneComes)
	defer cancel()
	for {
		b.mu.Lock()
		news := b.news
		b.mu.Unlock()
		if l.connected(from) {
			return b.stands(l, from)
		}
		select {
		case <-news:
		case <-ctx.Done():
			b.release(l)
			return nil, context.Cause(ctx)
		case <-b.h.ctx.Done():
			b.release(l)
			return nil, context.Cause(b.h.ctx)
		}
	}
}

var errGone = errors.New("the connection has ended as soon as it stood")

// stands makes a way of a connection.
func (b *bulk) stands(l *lane, p peer.ID) (*Way, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !l.connected(p) {
		l.users--
		return nil, errGone
	}
	gone := l.gone[p]
	if gone == nil {
		gone = make(chan struct{})
		l.gone[p] = gone
	}
	return &Way{b: b, lane: l, peer: p, gone: gone}, nil
}
