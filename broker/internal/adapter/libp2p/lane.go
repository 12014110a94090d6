package libp2p

import (
	"context"
	"crypto/ed25519"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/metrics"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"

	"github.com/shallot-net/shallot/kit/fault"
)

// A lane that nobody uses is closed after laneIdle, or up to twice as long: each at a time of its own, because what closes together belongs together.
const laneIdle = time.Minute

// lane is one host for content. It has connections only to hosts that peers have named as theirs at the host of events.
type lane struct {
	number int
	host   host.Host
	gate   *gater
	meter  *meter
	in     *inbound // its onion service; nil: it only dials
	idle   time.Duration
	cancel context.CancelFunc // of what watches it
	moved  atomic.Int64       // when bytes last moved, in nanoseconds

	// Guarded by bulk.mu.
	users int
	gone  map[peer.ID]chan struct{} // closed when the last connection to the peer ends
	heard sync.Map                  // of peer.ID: *atomic.Int64, when bytes last came from it
}

// newLane makes a host that does not listen yet, and gives it to whoever serves and fetches content.
func (b *bulk) newLane(number int) (_ *lane, err error) {
	n := b.h.network
	seed := b.seeds[number]
	key, err := crypto.UnmarshalEd25519PrivateKey(ed25519.NewKeyFromSeed(seed))
	if err != nil {
		return nil, err
	}
	offences := make(chan offence, 64)
	l := &lane{number: number, gate: newGater(n.profile.dialable), meter: newMeter(offences), idle: laneIdle + rand.N(laneIdle), gone: make(map[peer.ID]chan struct{})}
	l.moved.Store(time.Now().UnixNano())
	l.gate.restrict(b.admits)
	w := parts{key: key, gate: l.gate, names: newResolver(false), traffic: n.traffic, meter: l.meter, lane: l}
	socket := ""
	if number == 0 {
		socket = n.socket(b.h.persona, "bulk.sock")
	}
	if w.onion, l.in, err = n.onion(key, seed, socket); err != nil {
		return nil, err
	}
	if l.host, err = n.build(n.profile.bulk(), w); err != nil {
		return nil, err
	}
	l.host.Network().Notify(&network.NotifyBundle{
		ConnectedF:    func(network.Network, network.Conn) { b.changed() },
		DisconnectedF: func(_ network.Network, c network.Conn) { b.disconnected(l, c.RemotePeer()) },
	})
	var ctx context.Context
	ctx, l.cancel = context.WithCancel(b.h.ctx)
	if err := errors.Join(b.h.watchIdentified(ctx, l.host), n.cfg.OnLane(b.h.persona, number, guarded{l.host, l.meter, n.cfg.Patience})); err != nil {
		l.cancel()
		return nil, errors.Join(err, l.host.Close())
	}
	b.h.wg.Go(func() { b.report(ctx, offences) })
	return l, nil
}

// listen opens the host to those whom tor brings.
func (l *lane) listen(n *Network) error {
	swrm, ok := l.host.Network().(*swarm.Swarm)
	if !ok || l.in == nil {
		return nil
	}
	if err := swrm.AddListenAddr(l.in.at); err != nil {
		return fault.FailedPrecondition("LISTEN_FAILED", "cannot listen on the socket to which tor is to bring who wants content, %s", l.in.socket).Because(err)
	}
	n.cfg.Onion.Services.Keep(l.in.seed, l.in.serviceID, l.in.socket)
	return nil
}

func (l *lane) connected(p peer.ID) bool {
	return l.host.Network().Connectedness(p) == network.Connected
}

// since is when bytes last came from a peer; zero: never.
func (l *lane) since(p peer.ID) time.Time {
	if v, ok := l.heard.Load(p); ok {
		return time.Unix(0, v.(*atomic.Int64).Load())
	}
	return time.Time{}
}

// reporter is what the swarm tells of bytes.
func (w parts) reporter() metrics.Reporter {
	m := metered{w.traffic, w.meter}
	if w.lane == nil {
		return m
	}
	return laneMetered{m, w.lane}
}

// laneMetered also notes when a lane was last used.
type laneMetered struct {
	metered
	lane *lane
}

// LogRecvMessageStream counts what came in.
func (r laneMetered) LogRecvMessageStream(n int64, p protocol.ID, from peer.ID) {
	now := time.Now().UnixNano()
	r.lane.moved.Store(now)
	v, ok := r.lane.heard.Load(from)
	if !ok {
		v, _ = r.lane.heard.LoadOrStore(from, new(atomic.Int64))
	}
	v.(*atomic.Int64).Store(now)
	r.metered.LogRecvMessageStream(n, p, from)
}

// LogSentMessageStream counts what went out.
func (r laneMetered) LogSentMessageStream(n int64, p protocol.ID, to peer.ID) {
	r.lane.moved.Store(time.Now().UnixNano())
	r.metered.LogSentMessageStream(n, p, to)
}
