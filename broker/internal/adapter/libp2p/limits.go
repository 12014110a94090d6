package libp2p

import (
	"math"
	"net/netip"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/libp2p/go-libp2p/x/rate"
)

// The numbers, and why.
//
// A settled host keeps about eight streams with each of up to 256 peers: two of events, two of gossip, two to four of content; identify and ping come and go. The library's
// defaults allow a peer and a protocol some dozens of streams and grow with the machine's memory, so that 64 callers that open a stream each are reset on a small machine and not on a large one.
// Here one peer may have 256 streams, which is ten times what an honest one needs and far from the thousand of one that floods; all together may have 8,192.
//
// yamux accounts 256 KiB of memory for every stream's window when it opens, although nothing is allocated until a peer really sends that much
// unread: 256 peers × 8 streams × 256 KiB = 512 MiB on paper. The memory limits below are in that coin: a peer's is what its streams come to,
// and the system's lets 256 such peers be.
//
// Many nodes may share one address: a machine with 130 of them, a NAT, a cluster. The limits by subnet leave room for that; what they stop is one address that
// opens connections as fast as it can.
const (
	maxConns        = 640
	maxConnsIn      = 512
	maxConnsOut     = 384
	maxStreams      = 8192
	maxMemory       = 2 << 30
	maxPeerConns    = 8 // more than one while two peers dial each other, and while a connection that broke is not known to be broken
	maxPeerStreams  = 256
	maxPeerIn       = 160
	maxPeerMemory   = (maxPeerStreams + 64) * 256 << 10
	maxHandshakes   = 256
	maxPerAddress   = 256 // connections from one IPv4 address or IPv6 /64
	connsPerSecond  = 50  // from all addresses together
	connsBurst      = 512
	addressPerSec   = 10
	addressBurst    = 256
	eventStreamsIn  = 4 // of one peer: one, and those that it is about to replace
	gossipStreamsIn = 4
	kadStreamsIn    = 4 // a peer has one and uses it again; each holds maxKadRequest at most
)

// limits is the limiter's configuration. Everything that is not stated is blocked or bounded by what is around it.
func limits(event, gossip protocol.ID) rcmgr.ConcreteLimitConfig {
	fd := rcmgr.LimitVal(maxConns + maxHandshakes)
	whole := rcmgr.ResourceLimits{
		Conns: maxConns, ConnsInbound: maxConnsIn, ConnsOutbound: maxConnsOut, FD: fd,
		Streams: maxStreams, StreamsInbound: maxStreams, StreamsOutbound: maxStreams, Memory: maxMemory,
	}
	unproven := rcmgr.ResourceLimits{ // connections and streams whose peer or protocol is not known yet
		Conns: maxHandshakes, ConnsInbound: maxHandshakes, ConnsOutbound: maxHandshakes, FD: maxHandshakes,
		Streams: 1024, StreamsInbound: 1024, StreamsOutbound: 1024, Memory: 512 << 20,
	}
	peer := rcmgr.ResourceLimits{
		Conns: maxPeerConns, ConnsInbound: maxPeerConns, ConnsOutbound: maxPeerConns, FD: maxPeerConns,
		Streams: maxPeerStreams, StreamsInbound: maxPeerIn, StreamsOutbound: maxPeerStreams, Memory: maxPeerMemory,
	}
	protocols := rcmgr.ResourceLimits{Streams: maxStreams, StreamsInbound: maxStreams, StreamsOutbound: maxStreams, Memory: maxMemory}
	few := func(in rcmgr.LimitVal) rcmgr.ResourceLimits {
		return rcmgr.ResourceLimits{Streams: 2 * in, StreamsInbound: in, StreamsOutbound: in, Memory: maxPeerMemory}
	}
	cfg := rcmgr.PartialLimitConfig{
		System: whole, Transient: unproven, AllowlistedSystem: whole, AllowlistedTransient: unproven,
		ServiceDefault: protocols, ServicePeerDefault: peer,
		ProtocolDefault: protocols, ProtocolPeerDefault: few(64),
		ProtocolPeer: map[protocol.ID]rcmgr.ResourceLimits{event: few(eventStreamsIn), gossip: few(gossipStreamsIn), KadProtocol: few(kadStreamsIn)},
		PeerDefault:  peer,
		Conn:         rcmgr.ResourceLimits{Conns: 1, ConnsInbound: 1, ConnsOutbound: 1, FD: 1, Memory: maxPeerMemory},
		Stream:       rcmgr.ResourceLimits{Streams: 1, StreamsInbound: 1, StreamsOutbound: 1, Memory: 16 << 20},
	}
	return cfg.Build(rcmgr.InfiniteLimits)
}

// resourceManager bounds what a host takes on. Without addressRates nothing is told apart by where it comes from: what has no IP address would all be one and the
// same to the library, which lets 16 connections be made at once and then one in 5 s.
func resourceManager(addressRates bool, event, gossip protocol.ID) (network.ResourceManager, error) {
	limiter := rcmgr.NewFixedLimiter(limits(event, gossip))
	all := rate.Limit{RPS: connsPerSecond, Burst: connsBurst}
	if !addressRates {
		return rcmgr.NewResourceManager(limiter, rcmgr.WithMetricsDisabled(), rcmgr.WithConnRateLimiters(&rate.Limiter{GlobalLimit: all}))
	}
	loopback4, loopback6 := netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")
	burst := rate.Limit{RPS: addressPerSec, Burst: addressBurst}
	return rcmgr.NewResourceManager(limiter,
		rcmgr.WithMetricsDisabled(),
		rcmgr.WithNetworkPrefixLimit(
			[]rcmgr.NetworkPrefixLimit{{Network: loopback4, ConnCount: math.MaxInt}},
			[]rcmgr.NetworkPrefixLimit{{Network: loopback6, ConnCount: math.MaxInt}}),
		rcmgr.WithLimitPerSubnet(
			[]rcmgr.ConnLimitPerSubnet{{PrefixLength: 32, ConnCount: maxPerAddress}},
			[]rcmgr.ConnLimitPerSubnet{{PrefixLength: 64, ConnCount: maxPerAddress}}),
		rcmgr.WithConnRateLimiters(&rate.Limiter{
			GlobalLimit:         all,
			NetworkPrefixLimits: []rate.PrefixLimit{{Prefix: loopback4}, {Prefix: loopback6}},
			SubnetRateLimiter: rate.SubnetLimiter{
				IPv4SubnetLimits: []rate.SubnetLimit{{PrefixLength: 32, Limit: burst}},
				IPv6SubnetLimits: []rate.SubnetLimit{{PrefixLength: 64, Limit: burst}},
				GracePeriod:      time.Minute,
			},
		}))
}
