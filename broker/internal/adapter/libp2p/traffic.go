package libp2p

import (
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/metrics"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/protocol/identify"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"
)

// Traffic counts the bytes of streams: it is asked once for each kind of protocol and direction (in, out).
type Traffic func(protocol, direction string) func(bytes int64)

// The kinds of protocols that are told apart. Peers may negotiate names that they made up, so a name itself is no label.
const (
	kindEvent = iota
	kindGossip
	kindContent
	kindRouting
	kindPing
	kindIdentify
	kindBulk
	kindOther
	kinds
)

var kindNames = [kinds]string{"event", "gossip", "content", "routing", "ping", "identify", "bulk", "other"}

func kindOf(p protocol.ID) int {
	switch {
	case p == EventProtocol:
		return kindEvent
	case p == GossipProtocol:
		return kindGossip
	case strings.Contains(string(p), "/bitswap"):
		return kindContent
	case p == KadProtocol:
		return kindRouting
	case p == ping.ID:
		return kindPing
	case p == identify.ID || p == identify.IDPush:
		return kindIdentify
	case p == BulkProtocol:
		return kindBulk
	}
	return kindOther
}

// reporter is all that the swarm wants to tell of, and only counts: the library's own keeps a meter for every peer and protocol.
type reporter struct{ in, out [kinds]func(int64) }

var _ metrics.Reporter = (*reporter)(nil)

// newReporter makes one for all hosts; nil when nobody counts.
func newReporter(t Traffic) *reporter {
	if t == nil {
		return nil
	}
	r := &reporter{}
	for k, name := range kindNames {
		r.in[k], r.out[k] = t(name, "in"), t(name, "out")
	}
	return r
}

// LogSentMessageStream counts what went out.
func (r *reporter) LogSentMessageStream(n int64, p protocol.ID, _ peer.ID) { r.out[kindOf(p)](n) }

// LogRecvMessageStream counts what came in.
func (r *reporter) LogRecvMessageStream(n int64, p protocol.ID, _ peer.ID) { r.in[kindOf(p)](n) }

// The rest is for those who keep more.
func (*reporter) LogSentMessage(int64)                                  {}
func (*reporter) LogRecvMessage(int64)                                  {}
func (*reporter) GetBandwidthForPeer(peer.ID) (s metrics.Stats)         { return s }
func (*reporter) GetBandwidthForProtocol(protocol.ID) (s metrics.Stats) { return s }
func (*reporter) GetBandwidthTotals() (s metrics.Stats)                 { return s }
func (*reporter) GetBandwidthByPeer() map[peer.ID]metrics.Stats         { return nil }
func (*reporter) GetBandwidthByProtocol() map[protocol.ID]metrics.Stats { return nil }
func (*reporter) Reset()                                                {}
func (*reporter) TrimIdle(time.Time)                                    {}
