package libp2p

import (
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/net/connmgr"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
)

// What every host says of itself, whatever the build: versions would tell nodes apart.
const (
	userAgent       = "shallot"
	protocolVersion = "shallot/1"
)

// Protocols of this package.
const (
	EventProtocol  = protocol.ID("/shallot/event/1.0.0")
	GossipProtocol = protocol.ID("/shallot/meshsub/1.2.0")
)

// profile is what a mode decides. Another mode is another value of it, and no line elsewhere.
type profile struct {
	transports    []libp2p.Option
	dialTimeout   time.Duration
	connLow       int // connections above connHigh are trimmed to connLow, protected ones never
	connHigh      int
	connGrace     time.Duration
	yamuxTimeout  time.Duration // of writes, and of the answer to a keep-alive
	yamuxAlive    time.Duration
	yamuxWindow   uint32
	ping          bool // answer pings, and measure round trips by them
	resolve       bool // look up the names in addresses that this node's own services gave
	heartbeat     time.Duration
	history       int // heartbeats
	historyGossip int
	iwantFollowup time.Duration
	graftFlood    time.Duration
	unsubBackoff  time.Duration
	gossipDial    time.Duration
	fanoutTTL     time.Duration
	seenTTL       time.Duration
}

// open is the profile of open mode: TCP, for a lab, a LAN, a private swarm. The heartbeat is a fraction of the library's second, because a peer gets into the mesh with the
// first heartbeat after it connects and a small network should talk at once; what counts heartbeats is scaled with it, so that the memory of messages stays as long.
func open() profile {
	return profile{
		transports:  []libp2p.Option{libp2p.Transport(tcp.NewTCPTransport, tcp.DisableReuseport())},
		dialTimeout: 5 * time.Second,
		connLow:     160, connHigh: 256, connGrace: 30 * time.Second, // 130 nodes may all know each other
		yamuxTimeout: 10 * time.Second, yamuxAlive: 15 * time.Second, yamuxWindow: 4 << 20,
		ping: true, resolve: true,
		heartbeat: 400 * time.Millisecond, history: 12, historyGossip: 5, iwantFollowup: 3 * time.Second,
		graftFlood: 10 * time.Second, unsubBackoff: 10 * time.Second, gossipDial: 10 * time.Second, fanoutTTL: time.Minute, seenTTL: 2 * time.Minute,
	}
}

// options is every switch of a host. The comment says what the library does without it.
func (p profile) options(key crypto.PrivKey, rm network.ResourceManager, gate *gater, names network.MultiaddrDNSResolver) ([]libp2p.Option, error) {
	conns, err := connmgr.NewConnManager(p.connLow, p.connHigh, connmgr.WithGracePeriod(p.connGrace))
	if err != nil {
		return nil, err
	}
	mux := *yamux.DefaultTransport
	mux.ConnectionWriteTimeout, mux.KeepAliveInterval, mux.MaxStreamWindowSize = p.yamuxTimeout, p.yamuxAlive, p.yamuxWindow
	options := []libp2p.Option{
		libp2p.Identity(key),
		libp2p.NoListenAddrs,                                            // listens on TCP, QUIC, WebRTC; here Listen does it once all handlers are set, because changes are pushed to every peer at a bounded rate
		libp2p.Security(noise.ID, noise.New),                            // offers TLS first
		libp2p.Muxer(yamux.ID, &mux),                                    // windows of 16 MiB a stream
		libp2p.ResourceManager(rm),                                      // limits by the machine's memory
		libp2p.ConnectionManager(conns),                                 // trims from 192 connections on
		libp2p.ConnectionGater(gate),                                    // dials whatever a peer says
		libp2p.MultiaddrResolver(names),                                 // resolves names that peers made up
		libp2p.UserAgent(userAgent),                                     // module path, version and revision
		libp2p.ProtocolVersion(protocolVersion),                         // ipfs/0.1.0
		libp2p.DisableRelay(),                                           // dials and accepts through relays
		libp2p.ForceReachabilityPrivate(),                               // asks peers whether it can be reached (AutoNAT)
		libp2p.DisableIdentifyAddressDiscovery(),                        // believes what peers say its address is
		libp2p.DisableMetrics(),                                         // counts in the global registry
		libp2p.WithDialTimeout(p.dialTimeout),                           // 15 s
		libp2p.SwarmOpts(swarm.WithDialRanker(swarm.NoDelayDialRanker)), // waits between addresses, for the sake of QUIC
		libp2p.UDPBlackHoleSuccessCounter(nil),                          // watches for UDP that gets nowhere
		libp2p.IPv6BlackHoleSuccessCounter(nil),                         // and stops to dial IPv6 after some failures
		libp2p.Ping(p.ping),                                             // answers pings
	}
	// Never: EnableNATService, NATPortMap, EnableAutoNATv2, EnableHolePunching, EnableAutoRelay, EnableRelayService; no mDNS service is started.
	return append(options, p.transports...), nil
}
