package libp2p

import (
	"context"
	"errors"

	pb "github.com/libp2p/go-libp2p-kad-dht/pb"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"
)

// Bounds of what peers send. The library takes 4 MiB, and makes room for it when it has read the length: with some hundred streams that is all
// memory there is, for ten bytes each. A request is a key and at most one peer; an answer names some 40 peers.
const (
	maxKadRequest   = 16 << 10
	maxKadAnswer    = 128 << 10
	maxKadAddresses = 8  // of one peer: more are made up, and the book of addresses has an end
	maxKadOwn       = 16 // of one peer, from all its requests
)

var errKadTooLong = errors.New("a message of the routing table is too long")

// kadHost is the host as the table sees it.
type kadHost struct {
	host.Host
	book *kadBook
}

func (h *kadHost) Peerstore() peerstore.Peerstore { return h.book }

func (h *kadHost) SetStreamHandler(id protocol.ID, f network.StreamHandler) {
	h.Host.SetStreamHandler(id, func(s network.Stream) { f(&kadStream{Stream: s, max: maxKadRequest}) })
}

func (h *kadHost) NewStream(ctx context.Context, p peer.ID, ids ...protocol.ID) (network.Stream, error) {
	s, err := h.Host.NewStream(ctx, p, ids...)
	if err != nil {
		return nil, err
	}
	return &kadStream{Stream: s, max: maxKadAnswer}, nil
}

// kadStream ends where a message with a length beyond the bound begins.
type kadStream struct {
	network.Stream
	max   uint64
	left  uint64 // of the message that is being read
	size  uint64 // of the next, as far as its length has been read
	shift uint
}

// Read implements io.Reader.
func (s *kadStream) Read(b []byte) (int, error) {
	n, err := s.Stream.Read(b)
	for rest := b[:n]; len(rest) > 0; {
		if s.left > 0 {
			skip := min(s.left, uint64(len(rest)))
			s.left -= skip
			rest = rest[skip:]
			continue
		}
		s.size |= uint64(rest[0]&0x7f) << s.shift
		s.shift += 7
		if s.size > s.max || s.shift > 28 {
			_ = s.Reset()
			return 0, errKadTooLong
		}
		if rest[0] < 0x80 {
			s.left, s.size, s.shift = s.size, 0, 0
		}
		rest = rest[1:]
	}
	return n, err
}

// fewAddresses are the first of a peer's.
func fewAddresses(addrs []ma.Multiaddr) []ma.Multiaddr {
	return addrs[:min(len(addrs), maxKadAddresses)]
}

// trim leaves of a record what it says of its sender. A peer that has said that it is in many places says nothing new: the addresses are kept for hours.
func (k *kad) trim(from peer.ID, r *pb.Message) {
	for _, p := range r.GetProviderPeers() {
		if peer.ID(p.GetId()) != from {
			continue
		}
		p.Addrs = p.Addrs[:min(len(p.Addrs), maxKadAddresses)]
		if known := k.host.host.Peerstore().Addrs(from); len(known) >= maxKadOwn {
			p.Addrs = [][]byte{known[0].Bytes()}
		}
		r.ProviderPeers = []*pb.Message_Peer{p}
		return
	}
	r.ProviderPeers = nil
}

// kadBook has no addresses to tell of peers that are not shown. The table dials by other methods.
type kadBook struct {
	peerstore.Peerstore
	shown func(peer.ID) bool
}

// PeerInfo is what the table puts into its answers.
func (b *kadBook) PeerInfo(id peer.ID) peer.AddrInfo {
	if !b.shown(id) {
		return peer.AddrInfo{ID: id}
	}
	return b.Peerstore.PeerInfo(id)
}
