package libp2p

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/core/pnet"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/libp2p/go-libp2p/core/transport"
	basichost "github.com/libp2p/go-libp2p/p2p/host/basic"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	"github.com/libp2p/go-libp2p/p2p/host/peerstore/pstoremem"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/net/connmgr"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/libp2p/go-libp2p/p2p/net/upgrader"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/shallot-net/shallot/broker/internal/adapter/onion"
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
	transport     func(parts, onion.Layers) (transport.Transport, error)
	book          func(peerstore.Peerstore) peerstore.Peerstore // nil: all addresses are kept
	dialable      func(peer.ID, ma.Multiaddr) bool              // nil: all are
	addressRates  bool                                          // bound what one IP address may do; what has no IP address would all be taken for one
	signedRecords bool                                          // tell peers one's addresses under a signature
	atOnce        bool                                          // open streams of events without waiting for what the peer says that it speaks: a round trip less
	watchIdentify bool                                          // close connections whose peer has not said in time what it speaks: they are of no use, and nothing tries again
	dials         *dialBudgets                                  // of the node's own persona, by what is known of who is dialled; nil: as many as there are
	dialTimeout   time.Duration
	acceptTimeout time.Duration // of an inbound handshake
	negotiation   time.Duration // of a stream's protocol
	connLow       int           // connections above connHigh are trimmed to connLow, protected ones never
	connHigh      int
	connGrace     time.Duration
	yamuxTimeout  time.Duration // of writes, and of the answer to a keep-alive
	yamuxAlive    time.Duration
	yamuxWindow   uint32
	yamuxFirst    uint32 // a stream's window before anything is known of the way; 0: the library's 256 KiB
	lanes         int    // hosts for content beside the one of events; 0: that one has both
	ping          bool   // answer pings, and measure round trips by them
	resolve       bool   // look up the names in addresses that were typed
	heartbeat     time.Duration
	history       int // heartbeats
	historyGossip int
	iwantFollowup time.Duration
	graftFlood    time.Duration
	unsubBackoff  time.Duration
	gossipDial    time.Duration
	fanoutTTL     time.Duration
	psk           pnet.PSK // of a private network: who has another, or none, gets not one byte that it can read
	seenTTL       time.Duration
	announce      []ma.Multiaddr // beside the addresses that are listened on
	kad           kadProfile
}

// open is the profile of open mode: TCP, for a lab, a LAN, a private swarm. The heartbeat is the library's, and so is what counts heartbeats: a peer gets into the mesh with the
// first one after it connects, and until then is told what there is by the questions of discovery.
func open() profile {
	return profile{
		transport: func(w parts, layers onion.Layers) (transport.Transport, error) {
			return tcp.NewTCPTransport(layers.Upgrader, w.rm, nil, tcp.DisableReuseport())
		},
		addressRates: true, signedRecords: true,
		dialTimeout: 5 * time.Second, acceptTimeout: 10 * time.Second, negotiation: 10 * time.Second,
		connLow: 160, connHigh: 256, connGrace: 30 * time.Second, // 130 nodes may all know each other
		yamuxTimeout: 10 * time.Second, yamuxAlive: 15 * time.Second, yamuxWindow: 4 << 20,
		ping: true, resolve: true,
		heartbeat: time.Second, history: 5, historyGossip: 3, iwantFollowup: 3 * time.Second,
		graftFlood: 10 * time.Second, unsubBackoff: 10 * time.Second, gossipDial: 10 * time.Second, fanoutTTL: time.Minute, seenTTL: 2 * time.Minute,
		kad: openKad(),
	}
}

// anonymous is the profile of anonymous mode: onion services, and nothing else. A round trip takes 0.7 to 3 s there and a dial three to ten of them, which is what the
// times are for; tor shares its circuits among all that a host does, so windows are small, lest a large transfer keeps everything else waiting.
//
// What a stock host would give away is not switched off here but absent: see build. The rest is in this table.
func anonymous() profile {
	return profile{
		transport: func(w parts, layers onion.Layers) (transport.Transport, error) {
			return onion.NewTransport(w.onion, layers, w.rm), nil
		},
		book:     func(b peerstore.Peerstore) peerstore.Peerstore { return onion.Book{Peerstore: b} },
		dialable: func(p peer.ID, a ma.Multiaddr) bool { return onion.IsAddressOf(a, p) },
		// An address follows from the peer id: there is nothing to sign.
		signedRecords: false, watchIdentify: true, atOnce: true,
		// Who is told of peers dials them: so somebody who invents peers would have this node make circuits, as many as it takes to find its guard.
		dials:       &dialBudgets{hearsay: {10 * time.Second, 48, 6}, vouched: {3 * time.Second, 48, 4}, typed: {time.Second, 64, 6}},
		dialTimeout: 90 * time.Second, acceptTimeout: time.Minute, negotiation: time.Minute,
		connLow: 64, connHigh: 96, connGrace: 5 * time.Minute,
		yamuxTimeout: time.Minute, yamuxAlive: time.Minute, yamuxWindow: 2 << 20,
		lanes: 4,                     // one circuit has what its slowest relay can spare: several side by side have more, and none of them is that of events
		ping:  false, resolve: false, // a ping is a fingerprint of the way; names are asked of whoever runs the resolver
		// An IWANT comes a round trip and a heartbeat after the IHAVE: the message has to be there still.
		heartbeat: 2 * time.Second, history: 12, historyGossip: 5, iwantFollowup: 15 * time.Second,
		graftFlood: 30 * time.Second, unsubBackoff: 20 * time.Second, gossipDial: 90 * time.Second, fanoutTTL: 2 * time.Minute, seenTTL: 10 * time.Minute,
		kad: openKad(), // for those who switch it on: each step of a query is a dial to a stranger
	}
}

// bulk is the profile of the mode's hosts for content. They know nobody but those that the host of events has been told of, and have a connection for each lane of each of these.
func (p profile) bulk() profile {
	p.connLow, p.connHigh, p.connGrace = 256, 384, 10*time.Minute // who is not needed any more closes by himself
	p.yamuxFirst = 512 << 10                                      // a block and what is around it: else each ends with a round trip of waiting
	return p
}

// parts are what a host is made of and its owner keeps.
type parts struct {
	key   crypto.PrivKey
	onion onion.Config // anonymous mode
	rm    network.ResourceManager
	gate  *gater
	names *resolver

	traffic *reporter // nil: nobody counts
	meter   *meter
	lane    *lane // a host for content; nil: it is that of events
}

// build puts a host together by hand. libp2p.New would link QUIC, WebRTC, WebTransport and relays, of which no mode wants any: 8 MiB of memory that every node would pay for, and
// so many ways out that would have to be kept shut. What is not in here a host cannot do: no NAT mapping, no AutoNAT, no hole punching, no relays, no mDNS.
//
// It does not listen: that comes once all handlers are set, because a change of them is pushed to every peer, at a rate that peers bound.
func (p profile) build(w parts) (host.Host, error) {
	id, err := peer.IDFromPrivateKey(w.key)
	if err != nil {
		return nil, err
	}
	var book peerstore.Peerstore
	if book, err = pstoremem.NewPeerstore(pstoremem.WithMaxAddresses(maxBookAddresses), pstoremem.WithMaxSignedPeerRecords(maxBookRecords)); err != nil { // a million and 100,000
		return nil, err
	}
	if p.book != nil {
		book = p.book(book)
	}
	if err := errors.Join(book.AddPrivKey(id, w.key), book.AddPubKey(id, w.key.GetPublic())); err != nil {
		return nil, errors.Join(err, book.Close())
	}
	bus := eventbus.NewBus()
	options := []swarm.Option{
		swarm.WithResourceManager(w.rm),
		swarm.WithConnectionGater(w.gate),             // dials and accepts whomever
		swarm.WithMultiaddrResolver(w.names),          // looks up names that peers made up, before it knows whether it can dial them
		swarm.WithDialTimeout(p.dialTimeout),          // 15 s
		swarm.WithDialTimeoutLocal(p.dialTimeout),     // 5 s
		swarm.WithDialRanker(swarm.NoDelayDialRanker), // waits between addresses, for the sake of QUIC
		swarm.WithUDPBlackHoleSuccessCounter(nil),     // watches for UDP that gets nowhere
		swarm.WithIPv6BlackHoleSuccessCounter(nil),    // and stops to dial IPv6 after some failures
		swarm.WithMetrics(w.reporter()),
	}
	swrm, err := swarm.NewSwarm(id, book, bus, options...)
	if err != nil {
		return nil, errors.Join(err, book.Close())
	}
	mux := *yamux.DefaultTransport
	mux.ConnectionWriteTimeout, mux.KeepAliveInterval = p.yamuxTimeout, p.yamuxAlive // 10 s, 30 s
	mux.MaxStreamWindowSize = p.yamuxWindow                                          // 16 MiB a stream
	if p.yamuxFirst > 0 {
		mux.InitialStreamWindowSize = p.yamuxFirst // 256 KiB
	}
	muxers := []upgrader.StreamMuxer{{ID: yamux.ID, Muxer: &mux}}
	secure, err := noise.New(noise.ID, w.key, muxers) // TLS is offered first
	if err != nil {
		return nil, errors.Join(err, swrm.Close(), book.Close())
	}
	up, err := upgrader.New([]sec.SecureTransport{secure}, muxers, p.psk, w.rm, w.gate, upgrader.WithAcceptTimeout(p.acceptTimeout)) // 15 s
	if err != nil {
		return nil, errors.Join(err, swrm.Close(), book.Close())
	}
	only, err := p.transport(w, onion.Layers{Security: secure, Muxer: muxers[0], PSK: p.psk, Gater: w.gate, Upgrader: up})
	if err == nil {
		err = swrm.AddTransport(only)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make the transport: %w", err), swrm.Close(), book.Close())
	}
	conns, err := connmgr.NewConnManager(p.connLow, p.connHigh, connmgr.WithGracePeriod(p.connGrace)) // 160, 192, 1 min
	if err != nil {
		return nil, errors.Join(err, swrm.Close(), book.Close())
	}
	var told func([]ma.Multiaddr) []ma.Multiaddr // nil: what is listened on
	if len(p.announce) > 0 {
		told = func(own []ma.Multiaddr) []ma.Multiaddr {
			// Who is reached from elsewhere is reached by nobody at this machine's loopback, which may be a container's.
			return append(slices.Clone(p.announce), slices.DeleteFunc(slices.Clone(own), manet.IsIPLoopback)...)
		}
	}
	h, err := basichost.NewHost(swrm, &basichost.HostOpts{
		AddrsFactory:       told,
		EventBus:           bus,
		ConnManager:        conns,
		UserAgent:          userAgent,       // module path, version and revision
		ProtocolVersion:    protocolVersion, // ipfs/0.1.0
		EnablePing:         p.ping,
		NegotiationTimeout: p.negotiation, // 10 s, a dial that NewStream makes included

		DisableSignedPeerRecord: !p.signedRecords,
	})
	if err != nil {
		return nil, errors.Join(err, conns.Close(), swrm.Close(), book.Close())
	}
	h.Start()
	return h, nil
}

// What the book of addresses may hold of peers that are not connected: anyone can make up peers.
const (
	maxBookAddresses = 16384
	maxBookRecords   = 4096
)
