package libp2p

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/multiformats/go-multistream"

	"github.com/shallot-net/shallot/broker/internal/adapter/onion"
	"github.com/shallot-net/shallot/broker/internal/app"
	"github.com/shallot-net/shallot/kit/fault"
)

// Bounds of what services may ask for.
const (
	maxAddresses  = 16
	maxAddress    = 256 // bytes
	maxProtected  = 1024
	maxTags       = 64
	rememberedFor = 2 * time.Hour
	measureEvery  = 30 * time.Second
	pingTimeout   = 5 * time.Second
)

// watch passes on who comes and goes.
func (h *Host) watch() error {
	sub, err := h.host.EventBus().Subscribe(new(event.EvtPeerConnectednessChanged), eventbus.BufSize(1024))
	if err != nil {
		return err
	}
	h.wg.Go(func() {
		defer sub.Close()
		for {
			select {
			case <-h.ctx.Done():
				return
			case e, ok := <-sub.Out():
				if !ok {
					return
				}
				c := e.(event.EvtPeerConnectednessChanged)
				if c.Connectedness == network.Connected && !h.gate.admitted(c.Peer) { // it came while the lists changed
					_ = h.host.Network().ClosePeer(c.Peer)
				}
				h.handlers.Changed(c.Peer.String(), c.Connectedness == network.Connected)
				if c.Connectedness == network.Connected {
					h.handlers.Reached(c.Peer.String(), h.dialled(c.Peer))
					h.measure(c.Peer)
				}
			}
		}
	})
	return nil
}

// dialled are the addresses of the connections to a peer that this host made.
func (h *Host) dialled(id peer.ID) (addrs []string) {
	for _, c := range h.host.Network().ConnsToPeer(id) {
		if c.Stat().Direction == network.DirOutbound {
			addrs = append(addrs, c.RemoteMultiaddr().String())
		}
	}
	return addrs
}

// parse reads a target: every address may end in /p2p/ID, and all must name the same peer.
func (h *Host) parse(t app.Target) (peer.AddrInfo, error) {
	var info peer.AddrInfo
	if t.Peer != "" {
		id, err := peer.Decode(t.Peer)
		if err != nil {
			return info, fault.InvalidArgument("PEER_ID_INVALID", "%.80q is not a peer id", t.Peer)
		}
		info.ID = id
	}
	if len(t.Addresses) > maxAddresses {
		return info, fault.InvalidArgument("TOO_MANY_ADDRESSES", "%d addresses were given: %d at most", len(t.Addresses), maxAddresses)
	}
	for _, s := range t.Addresses {
		a, id, err := parseAddress(s)
		if err != nil {
			return info, err
		}
		switch {
		case id == "" && info.ID == "":
			return info, fault.InvalidArgument("ADDRESS_INVALID", "address %q does not end in /p2p/ID, and no peer id was given", s)
		case id != "" && info.ID != "" && id != info.ID:
			return info, fault.InvalidArgument("PEER_MISMATCH", "address %q is of another peer than the one that is asked for", s)
		case id != "":
			info.ID = id
		}
		if a != nil && !h.usable(info.ID, a, t.Peer != "") {
			return info, fault.InvalidArgument("ADDRESS_NOT_ONION", "address %q is not the onion address of its peer: in anonymous mode nothing else is dialled; it has the form /onion3/SERVICE:%d/p2p/ID", s, onion.Port)
		}
		if a != nil {
			info.Addrs = append(info.Addrs, a)
		}
	}
	if info.ID == "" {
		return info, fault.InvalidArgument("PEER_MISSING", "neither a peer id nor an address was given")
	}
	if info.ID == h.host.ID() {
		return info, app.ErrSelf
	}
	return info, nil
}

// usable tells whether an address may be given. What peers say of themselves, told, may hold anything: what cannot be used of it is not kept.
func (h *Host) usable(id peer.ID, a ma.Multiaddr, told bool) bool {
	return told || h.network.profile.dialable == nil || h.network.profile.dialable(id, a)
}

func parseAddress(s string) (ma.Multiaddr, peer.ID, error) {
	if len(s) > maxAddress {
		return nil, "", fault.InvalidArgument("ADDRESS_INVALID", "an address of %d bytes: %d at most", len(s), maxAddress)
	}
	a, err := ma.NewMultiaddr(s)
	if err != nil {
		return nil, "", fault.InvalidArgument("ADDRESS_INVALID", "%q is not a multiaddr such as /ip4/192.0.2.1/tcp/4001/p2p/ID", s).Because(err)
	}
	a, id := peer.SplitAddr(a)
	return a, id, nil
}

// Remember keeps a target's addresses for later dials.
func (h *Host) Remember(t app.Target) (string, error) {
	info, err := h.parse(t)
	if err != nil {
		if errors.Is(err, app.ErrSelf) {
			return h.ID(), nil // harmless
		}
		return "", err
	}
	h.remember(info, t)
	return info.ID.String(), nil
}

// remember keeps addresses. Who names a peer beside them has them from others, most often from that peer: what was typed by somebody who knows it
// names its peer itself.
func (h *Host) remember(info peer.AddrInfo, t app.Target) {
	if t.Peer == "" {
		h.names.allow(info.Addrs)
	}
	h.host.Peerstore().AddAddrs(info.ID, info.Addrs, rememberedFor)
}

// Connect dials, unless there is a connection.
func (h *Host) Connect(ctx context.Context, t app.Target) (string, error) {
	info, err := h.parse(t)
	if err != nil {
		return "", err
	}
	h.remember(info, t)
	if err := h.dial(ctx, info.ID, trustOf(t)); err != nil {
		var other sec.ErrPeerIDMismatch
		if errors.As(err, &other) {
			return "", fault.FailedPrecondition("PEER_MISMATCH", "another peer answers at the addresses that were given: they are out of date, or somebody else's").Because(err)
		}
		return "", err
	}
	return info.ID.String(), nil
}

// dial makes sure of a connection. The swarm's own memory of failures is cleared: whoever calls waits between attempts, and a peer that restarts must
// not be avoided for seconds.
//
// Each dial is of a budget, by what is known of the peer.
func (h *Host) dial(ctx context.Context, id peer.ID, trust trust) error {
	if h.host.Network().Connectedness(id) == network.Connected {
		return nil
	}
	if !h.gate.admitted(id) {
		return app.ErrNotAdmitted
	}
	if len(h.host.Peerstore().Addrs(id)) == 0 {
		return app.ErrNoAddress
	}
	end, err := h.dials.begin(ctx, id, trust)
	if err != nil {
		return err
	}
	defer end()
	if s, ok := h.host.Network().(*swarm.Swarm); ok {
		s.Backoff().Clear(id)
	}
	if h.network.profile.atOnce {
		_, err := h.host.Network().DialPeer(ctx, id)
		return err
	}
	return h.host.Connect(ctx, peer.AddrInfo{ID: id})
}

// OpenStream opens a stream of directed events.
func (h *Host) OpenStream(ctx context.Context, id string) (app.Stream, error) {
	pid, err := peer.Decode(id)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", app.ErrPeerID, err)
	}
	if err := h.dial(ctx, pid, hearsay); err != nil {
		return nil, err
	}
	if h.network.profile.atOnce {
		s, err := h.host.Network().NewStream(network.WithNoDial(ctx, "dialled just now"), pid)
		if err != nil {
			return nil, err
		}
		if err := s.SetProtocol(EventProtocol); err != nil {
			return nil, errors.Join(err, s.Reset())
		}
		return deadlined{begun{s, multistream.NewMSSelect(s, EventProtocol)}}, nil
	}
	s, err := h.host.NewStream(ctx, pid, EventProtocol)
	if err != nil {
		return nil, err
	}
	return deadlined{s}, nil
}

// begun is a stream that says with the first write what is spoken on it, and reads the other side's assent with the first read. Who does not speak it ends it.
type begun struct {
	network.Stream
	negotiated multistream.LazyConn
}

func (s begun) Read(b []byte) (int, error)  { return s.negotiated.Read(b) }
func (s begun) Write(b []byte) (int, error) { return s.negotiated.Write(b) }

// Disconnect closes all connections to a peer.
func (h *Host) Disconnect(id string) error {
	pid, err := peer.Decode(id)
	if err != nil {
		return fault.InvalidArgument("PEER_ID_INVALID", "%.80q is not a peer id", id)
	}
	return h.host.Network().ClosePeer(pid)
}

// Refuse keeps a peer out for a time.
func (h *Host) Refuse(id string, d time.Duration) {
	pid, err := peer.Decode(id)
	if err != nil {
		return
	}
	h.gate.refuse(pid, time.Now().Add(d))
	_ = h.host.Network().ClosePeer(pid)
	h.bulk.restrict()
}

// Restrict lets only those in whom the function admits, and closes the connections to others.
func (h *Host) Restrict(admits func(peer string) bool) {
	h.gate.restrict(admits)
	for _, id := range h.host.Network().Peers() {
		if !h.gate.admitted(id) {
			_ = h.host.Network().ClosePeer(id)
		}
	}
	h.kad.restrict()
	h.bulk.restrict()
}

// Connected tells whether a connection stands.
func (h *Host) Connected(id string) bool {
	pid, err := peer.Decode(id)
	return err == nil && h.host.Network().Connectedness(pid) == network.Connected
}

// Peers lists the connected ones. Round trips that were not measured lately are measured for the next call.
func (h *Host) Peers() []app.Peer {
	ids := h.host.Network().Peers()
	out := make([]app.Peer, 0, len(ids))
	for _, id := range ids {
		conns := h.host.Network().ConnsToPeer(id)
		if len(conns) == 0 {
			continue
		}
		oldest := conns[0].Stat()
		for _, c := range conns[1:] {
			if s := c.Stat(); s.Opened.Before(oldest.Opened) {
				oldest = s
			}
		}
		addrs := h.host.Peerstore().Addrs(id)
		if len(addrs) > maxAddresses {
			addrs = addrs[:maxAddresses]
		}
		out = append(out, app.Peer{ID: id.String(), Addresses: texts(addrs), RTT: h.host.Peerstore().LatencyEWMA(id),
			Since: oldest.Opened, Inbound: oldest.Direction == network.DirInbound})
		h.measure(id)
	}
	return out
}

// measure pings a peer in the background, at most every measureEvery; the peerstore keeps the average.
func (h *Host) measure(id peer.ID) {
	if !h.network.profile.ping {
		return
	}
	h.mu.Lock()
	if h.closed || time.Since(h.measured[id]) < measureEvery {
		h.mu.Unlock()
		return
	}
	select {
	case h.measuring <- struct{}{}:
	default: // enough are under way: a later call comes back to it
		h.mu.Unlock()
		return
	}
	if len(h.measured) >= maxProtected {
		clear(h.measured)
	}
	h.measured[id] = time.Now()
	h.wg.Add(1)
	h.mu.Unlock()
	go func() {
		defer h.wg.Done()
		defer func() { <-h.measuring }()
		ctx, cancel := context.WithTimeout(network.WithNoDial(h.ctx, "round trip"), pingTimeout)
		defer cancel()
		<-ping.Ping(ctx, h.host, id) // it records the first round trip; the rest end with ctx
	}()
}

// Protect replaces the peers of a tag.
func (h *Host) Protect(tag string, peers []string) error {
	if len(peers) > maxProtected {
		return fault.InvalidArgument("TOO_MANY_PEERS", "%d peers were given: %d at most", len(peers), maxProtected)
	}
	next := make(map[peer.ID]struct{}, len(peers))
	for _, s := range peers {
		id, err := peer.Decode(s)
		if err != nil {
			return fault.InvalidArgument("PEER_ID_INVALID", "%.80q is not a peer id", s)
		}
		next[id] = struct{}{}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	former := h.protected[tag]
	if former == nil && len(h.protected) >= maxTags {
		return fault.ResourceExhausted("TOO_MANY_TAGS", "%d tags are in use, which is the most", maxTags)
	}
	for id := range former {
		if _, ok := next[id]; !ok {
			h.host.ConnManager().Unprotect(id, tag)
		}
	}
	for id := range next {
		h.host.ConnManager().Protect(id, tag)
	}
	if len(next) == 0 {
		delete(h.protected, tag)
	} else {
		h.protected[tag] = next
	}
	return nil
}
