package libp2p

import (
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"golang.org/x/time/rate"

	"github.com/shallot-net/shallot/broker/internal/app"
	"github.com/shallot-net/shallot/kit/bounded"
)

// What one peer may do in a second, and at once. Honest peers are far below; what is above is let go where it can be, and a second of it is an
// offence. Directed events have rates of their own (app.Limits), and wait.
const (
	// Streams of events and of gossip live for minutes: an honest peer opens one, and another when that broke.
	opensPerSecond = 2
	opensBurst     = 64
	// A stream of content carries a few blocks at most: 1000 a second are a gigabyte of large ones.
	contentOpensPerSecond = 1000
	contentOpensBurst     = 4000
	// Pings, of which an honest peer sends a few every half minute.
	pingsPerSecond = 50
	pingsBurst     = 500
	// All that is no event, gossip, content or ping: identification, and what is said to agree on a stream's protocol. It is small, so each read
	// counts as smallRead bytes at least. A stream takes some six reads to agree: the rate is that of the streams above, and a third more.
	smallRead      = 64
	smallPerSecond = 512 << 10
	smallBurst     = 4 << 20
	maxMetered     = 2048 // peers whose rates are remembered
	maxOver        = 1000 // that is too much within a second and counts as another: a flood is to end before it has cost a second
)

// meters are the rates of one peer.
type meters struct {
	opens, content *rate.Limiter
	pings, small   *rate.Limiter
	gossip         gossipMeters
	charged        time.Time // when a flood was last held against it
	over           int       // what was too much since
}

// meter keeps the rates of a host's peers. Peers that have gone are remembered for as long as there is room, so that who reconnects gains nothing.
type meter struct {
	mu     sync.Mutex
	peers  *bounded.Map[peer.ID, *meters]
	gossip int // messages a second; 0: gossipPerSecond
	tell   chan<- offence
}

// offence is something that a peer did, on its way to whoever holds it against it.
type offence struct {
	peer peer.ID
	what app.Misconduct
}

func newMeter(tell chan<- offence) *meter {
	return &meter{peers: bounded.New[peer.ID, *meters](maxMetered), tell: tell}
}

// of finds or makes a peer's. Under m.mu.
func (m *meter) of(p peer.ID) *meters {
	return m.peers.GetOrMake(p, func() *meters {
		return &meters{
			opens:   rate.NewLimiter(opensPerSecond, opensBurst),
			content: rate.NewLimiter(contentOpensPerSecond, contentOpensBurst),
			pings:   rate.NewLimiter(pingsPerSecond, pingsBurst),
			small:   rate.NewLimiter(smallPerSecond, smallBurst),
			gossip:  newGossipMeters(m.gossip),
		}
	})
}

// flooded says so, once a second for each peer and once for every maxOver. Under m.mu.
func (m *meter) flooded(p peer.ID, x *meters, now time.Time) {
	if x.over++; now.Sub(x.charged) < time.Second && x.over < maxOver {
		return
	}
	x.charged, x.over = now, 0
	m.say(p, app.Flooded)
}

// say never blocks: when many offend at once, some are told of a moment later.
func (m *meter) say(p peer.ID, what app.Misconduct) {
	select {
	case m.tell <- offence{p, what}:
	default:
	}
}

// opened counts a stream that a peer has opened, and tells whether it may.
func (m *meter) opened(p peer.ID, id protocol.ID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	x, now := m.of(p), time.Now()
	l := x.opens
	if kindOf(id) == kindContent {
		l = x.content
	}
	if l.AllowN(now, 1) {
		return true
	}
	m.flooded(p, x, now)
	return false
}

// read counts bytes of the small protocols.
func (m *meter) read(p peer.ID, kind int, n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	x, now := m.of(p), time.Now()
	if kind == kindPing && !x.pings.AllowN(now, 1) || kind != kindPing && !x.small.AllowN(now, int(min(max(n, smallRead), smallBurst))) {
		m.flooded(p, x, now)
	}
}

// metered is a reporter that also tells a host's meter.
type metered struct {
	*reporter
	meter *meter
}

// LogRecvMessageStream counts what came in.
func (r metered) LogRecvMessageStream(n int64, p protocol.ID, from peer.ID) {
	if r.reporter != nil {
		r.reporter.LogRecvMessageStream(n, p, from)
	}
	switch kind := kindOf(p); kind {
	case kindPing, kindIdentify, kindBulk, kindOther:
		r.meter.read(from, kind, n)
	}
}

// LogSentMessageStream counts what went out.
func (r metered) LogSentMessageStream(n int64, p protocol.ID, to peer.ID) {
	if r.reporter != nil {
		r.reporter.LogSentMessageStream(n, p, to)
	}
}
