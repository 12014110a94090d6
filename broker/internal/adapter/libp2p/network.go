package libp2p

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/pnet"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/shallot-net/shallot/broker/internal/app"
	"github.com/shallot-net/shallot/kit/fault"
)

// Config of a Network. OnHost may be left out.
type Config struct {
	ListenAddrs []string // multiaddrs
	// AnnounceAddrs are told to others beside those that are listened on, and in place of loopback: where something forwards to these.
	AnnounceAddrs []string
	// NetworkKey is the pre-shared key of a private network; nil: an open one.
	NetworkKey []byte
	Traffic    Traffic // may be left out
	// Patience is how long a peer may be silent within a frame; default 30 s.
	Patience time.Duration
	// GossipRate is how many messages of gossip of one peer are looked at in a second; default 100. What is handed on is in proportion.
	GossipRate int
	// Routing is the role of the node's own persona in the routing table, one of app's; empty: none, and none for other personas.
	Routing string
	Log     *slog.Logger
	// OnHost is given each host before it listens, the moment to set further protocol handlers; OffHost when it is about to close.
	OnHost  func(persona string, h host.Host) error
	OffHost func(persona string) error
	// OnLane is given the hosts for content of a persona, by their numbers from 0, each before it listens or dials; OffLane when one is about to close. Nil: there are none.
	OnLane  func(persona string, lane int, h host.Host) error
	OffLane func(persona string, lane int) error
	// Granted tells whether a persona has content that a peer may have; nil: nobody knows.
	Granted func(persona, peer string) bool
	// Onion makes it anonymous mode; nil: open mode.
	Onion *Onion
}

// Onion is what anonymous mode needs on this machine.
type Onion struct {
	SOCKS string // the path of tor's SOCKS socket
	Dir   string // where tor brings what comes in, to sockets that nobody else can reach
	// Service says that the node's own persona can be reached; all others only dial.
	Service  bool
	Services OnionServices
	// Authorize is onion.Config's.
	Authorize func(ctx context.Context, serviceID string) error
}

// OnionServices keeps onion services at tor, whatever becomes of tor meanwhile. The methods do not block.
type OnionServices interface {
	// Keep makes a service whose streams come to a socket. Its key is the seed's.
	Keep(seed []byte, serviceID, socket string)
	Drop(serviceID string)
}

// Network makes hosts, all with one profile.
type Network struct {
	cfg     Config
	profile profile
	traffic *reporter
	listen  []ma.Multiaddr

	mu    sync.Mutex
	hosts map[string]*Host // the open ones, by persona
}

// NewNetwork makes hosts of open mode or, where Onion is set, of anonymous mode.
func NewNetwork(cfg Config) (*Network, error) {
	n := &Network{cfg: cfg, profile: open(), traffic: newReporter(cfg.Traffic), hosts: make(map[string]*Host)}
	if cfg.Onion != nil {
		n.profile = anonymous()
		if len(cfg.ListenAddrs)+len(cfg.AnnounceAddrs) > 0 {
			return nil, fault.InvalidArgument("LISTEN_ADDR_INVALID", "listen addresses were given: in anonymous mode a node listens at its onion service only")
		}
	}
	n.profile.psk = cfg.NetworkKey
	if n.cfg.Patience <= 0 {
		n.cfg.Patience = 30 * time.Second
	}
	if n.cfg.Log == nil {
		n.cfg.Log = slog.New(slog.DiscardHandler)
	}
	var err error
	if n.listen, err = tcpAddrs(cfg.ListenAddrs, "listen", "/ip4/0.0.0.0/tcp/4001"); err != nil {
		return nil, err
	}
	if len(cfg.AnnounceAddrs) > maxAnnounced {
		return nil, fault.InvalidArgument("LISTEN_ADDR_INVALID", "there are %d addresses to announce, and may be %d", len(cfg.AnnounceAddrs), maxAnnounced)
	}
	n.profile.announce, err = tcpAddrs(cfg.AnnounceAddrs, "announced", "/ip4/192.0.2.7/tcp/4001")
	return n, err
}

// maxAnnounced leaves room for those that are listened on in what a node tells of itself.
const maxAnnounced = 8

func tcpAddrs(list []string, what, example string) ([]ma.Multiaddr, error) {
	var out []ma.Multiaddr
	for _, s := range list {
		a, err := ma.NewMultiaddr(s)
		if err != nil {
			return nil, fault.InvalidArgument("LISTEN_ADDR_INVALID", "%s address %q is not a multiaddr such as %s", what, s, example).Because(err)
		}
		if port, err := a.ValueForProtocol(ma.P_TCP); err != nil || what == "announced" && (len(a) != 2 || port == "0") {
			return nil, fault.InvalidArgument("LISTEN_ADDR_INVALID", "%s address %q: in open mode it is a host and a TCP port, such as %s", what, s, example)
		}
		out = append(out, a)
	}
	return out, nil
}

// Host is one persona's presence on the network.
type Host struct {
	persona  string
	id       string // the host's, as text: to make it is worth keeping
	host     host.Host
	network  *Network
	handlers app.Handlers
	gate     *gater
	names    *resolver
	inbound  *inbound // nil: the host has no onion service
	dials    *dials   // nil: there is no budget
	texts    peerTexts
	gossip   *gossip // nil on a throw-away persona, which talks to one provider and hears of nobody else
	meter    *meter
	offences chan offence
	kad      *kad  // nil: no routing
	bulk     *bulk // nil: content is no business of other hosts
	log      *slog.Logger

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu        sync.Mutex
	protected map[string]map[peer.ID]struct{}
	measured  map[peer.ID]time.Time // when the round trip was last asked for
	measuring chan struct{}
	closed    bool
}

// Open makes a host that does not listen yet.
func (n *Network) Open(persona string, seed []byte, h app.Handlers) (app.Host, error) {
	if len(seed) != ed25519.SeedSize {
		return nil, fmt.Errorf("a seed of %d bytes", len(seed))
	}
	key, err := crypto.UnmarshalEd25519PrivateKey(ed25519.NewKeyFromSeed(seed))
	if err != nil {
		return nil, err
	}
	out := &Host{persona: persona, network: n, handlers: h, gate: newGater(n.profile.dialable), names: newResolver(n.profile.resolve), log: n.cfg.Log,
		protected: make(map[string]map[peer.ID]struct{}), measured: make(map[peer.ID]time.Time), measuring: make(chan struct{}, 4),
		offences: make(chan offence, 256)}
	if persona == "" { // the others dial whom a task goes to: those were not made up by one peer, and are as few as tasks are
		out.dials = newDials(n.profile.dials)
	}
	out.meter = newMeter(out.offences)
	out.meter.gossip = n.cfg.GossipRate
	w := parts{key: key, gate: out.gate, names: out.names, traffic: n.traffic, meter: out.meter}
	if w.onion, out.inbound, err = n.onion(key, seed, n.socket(persona, "in.sock")); err != nil {
		return nil, err
	}
	if out.host, err = n.build(n.profile, w); err != nil {
		return nil, err
	}
	out.id = out.host.ID().String()
	out.ctx, out.cancel = context.WithCancel(context.Background())
	if n.profile.lanes > 0 && n.cfg.OnLane != nil {
		if out.bulk, err = newBulk(out, seed, n.profile.lanes); err != nil {
			return nil, errors.Join(err, out.Close())
		}
	}
	if err := out.start(); err != nil {
		return nil, errors.Join(err, out.Close())
	}
	return out, nil
}

// build makes a host and what bounds it.
func (n *Network) build(p profile, w parts) (host.Host, error) {
	var err error
	if w.rm, err = resourceManager(p.addressRates, EventProtocol, GossipProtocol); err != nil {
		return nil, err
	}
	h, err := p.build(w)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make the libp2p host: %w", err), w.rm.Close())
	}
	return h, nil
}

// start sets all handlers, so that none has to be told of later.
func (h *Host) start() error {
	h.wg.Go(h.report)
	h.host.SetStreamHandler(EventProtocol, func(s network.Stream) {
		if !h.meter.opened(s.Conn().RemotePeer(), EventProtocol) {
			_ = s.Reset()
			return
		}
		h.handlers.Stream(s.Conn().RemotePeer().String(), deadlined{s})
	})
	h.bulk.handle()
	if err := errors.Join(h.watch(), h.watchIdentified(h.ctx, h.host)); err != nil {
		return err
	}
	var err error
	if h.persona == "" {
		if h.gossip, err = newGossip(h); err != nil {
			return err
		}
	}
	if h.kad, err = newKad(h, h.network.role(h.persona)); err != nil {
		return err
	}
	h.network.mu.Lock()
	h.network.hosts[h.persona] = h
	h.network.mu.Unlock()
	if h.network.cfg.OnHost != nil {
		return h.network.cfg.OnHost(h.persona, h.guarded())
	}
	return nil
}

// guarded is the host for libraries that serve protocols of their own.
func (h *Host) guarded() guarded { return guarded{h.host, h.meter, h.network.cfg.Patience} }

// report tells of offences, from where connections may be closed.
func (h *Host) report() {
	for {
		select {
		case <-h.ctx.Done():
			return
		case o := <-h.offences:
			if h.handlers.Misbehaved != nil {
				h.handlers.Misbehaved(o.peer.String(), o.what)
			}
		}
	}
}

// role is a persona's in the routing table.
func (n *Network) role(persona string) string {
	if persona != "" && n.cfg.Routing != "" && n.cfg.Routing != app.RoutingOff {
		return n.profile.kad.other
	}
	return n.cfg.Routing
}

// Listen begins to accept connections, and to look for peers in the routing table. A port in use is an error that names the address.
func (h *Host) Listen() error {
	swrm, ok := h.host.Network().(*swarm.Swarm)
	if !ok {
		return fmt.Errorf("a network of type %T", h.host.Network())
	}
	if h.inbound != nil {
		if err := swrm.AddListenAddr(h.inbound.at); err != nil {
			return fault.FailedPrecondition("LISTEN_FAILED", "cannot listen on the socket to which tor is to bring what comes in, %s", h.inbound.socket).Because(err)
		}
		h.network.cfg.Onion.Services.Keep(h.inbound.seed, h.inbound.serviceID, h.inbound.socket)
		if err := h.bulk.listen(); err != nil {
			return err
		}
	}
	for _, a := range h.network.listen { // one by one: Listen is content when any address works
		if err := swrm.AddListenAddr(a); err != nil {
			if errors.Is(err, syscall.EADDRINUSE) {
				return fault.FailedPrecondition("PORT_IN_USE", "the port of listen address %s is in use by another process: stop that, or listen elsewhere (--listen-addrs; of shallot up: --listen)", a).With("address", a.String()).Because(err)
			}
			return fault.FailedPrecondition("LISTEN_FAILED", "cannot listen on %s: does this machine have the address?", a).With("address", a.String()).Because(err)
		}
	}
	// The host learns of its own addresses a moment later; nobody should see it without.
	t := time.NewTicker(time.Millisecond)
	defer t.Stop()
	for deadline := time.Now().Add(2 * time.Second); len(h.network.listen) > 0 && len(h.host.Addrs()) == 0 && time.Now().Before(deadline); {
		<-t.C
	}
	h.kad.run()
	return nil
}

// Close ends everything of the host.
func (h *Host) Close() error {
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		return nil
	}
	h.closed = true
	h.mu.Unlock()
	h.network.mu.Lock()
	if h.network.hosts[h.persona] == h {
		delete(h.network.hosts, h.persona)
	}
	h.network.mu.Unlock()
	var err error
	if h.network.cfg.OffHost != nil {
		err = h.network.cfg.OffHost(h.persona)
	}
	h.cancel()
	if h.inbound != nil {
		h.network.cfg.Onion.Services.Drop(h.inbound.serviceID)
	}
	err = errors.Join(err, h.kad.close(), h.bulk.close(), h.host.Close())
	h.wg.Wait()
	return err
}

// ID is the peer id.
func (h *Host) ID() string { return h.id }

// Addresses are those to announce, without /p2p.
func (h *Host) Addresses() []string { return texts(h.host.Addrs()) }

func texts(addrs []ma.Multiaddr) []string {
	out := make([]string, len(addrs))
	for i, a := range addrs {
		out[i] = a.String()
	}
	return out
}

// Sign signs with the host's key.
func (h *Host) Sign(b []byte) ([]byte, error) {
	return h.host.Peerstore().PrivKey(h.host.ID()).Sign(b)
}

// ParseNetworkKey reads a swarm key file, as go-libp2p's other users have them.
func ParseNetworkKey(r io.Reader) ([]byte, error) { return pnet.DecodeV1PSK(r) }

// CanonicalID returns a peer id in the form in which this package names peers.
func CanonicalID(s string) (string, error) {
	id, err := peer.Decode(s)
	if err != nil {
		return "", err
	}
	return id.String(), nil
}

// Signers finds the public keys that Ed25519 peer ids hold. It is safe for concurrent use.
type Signers struct {
	mu    sync.RWMutex
	known map[string]ed25519.PublicKey // those of late: reading one out of its id takes a third as long as a signature
}

// maxSigners bounds what is kept, at about 150 bytes each.
const maxSigners = 1024

// PublicKey fails for ids of other keys. The key is shared: it must not be changed.
func (s *Signers) PublicKey(author string) (ed25519.PublicKey, error) {
	s.mu.RLock()
	key := s.known[author]
	s.mu.RUnlock()
	if key != nil {
		return key, nil
	}
	key, err := publicKey(author)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known == nil || len(s.known) >= maxSigners { // strangers have filled it: those who matter are back soon
		s.known = make(map[string]ed25519.PublicKey)
	}
	s.known[strings.Clone(author)] = key
	return key, nil
}

func publicKey(author string) (ed25519.PublicKey, error) {
	id, err := peer.Decode(author)
	if err != nil {
		return nil, err
	}
	key, err := id.ExtractPublicKey()
	if err != nil {
		return nil, err
	}
	if key.Type() != crypto.Ed25519 || id.String() != author {
		return nil, errors.New("not the usual form of an Ed25519 peer id")
	}
	return key.Raw()
}
