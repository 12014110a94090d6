package onion

import (
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/core/record"
	ma "github.com/multiformats/go-multiaddr"
)

// Book is a peerstore that keeps no address but a peer's own onion: what peers say of themselves and of each other comes here from many sides, and what is not
// kept is neither dialled nor handed on.
type Book struct {
	peerstore.Peerstore
}

// own is the one address that may be kept, where it is among those that were said.
func own(p peer.ID, addrs []ma.Multiaddr) []ma.Multiaddr {
	for _, a := range addrs {
		if a, _ = peer.SplitAddr(a); IsAddressOf(a, p) {
			return []ma.Multiaddr{a}
		}
	}
	return nil
}

// AddAddr keeps an address.
func (b Book) AddAddr(p peer.ID, a ma.Multiaddr, ttl time.Duration) {
	b.AddAddrs(p, []ma.Multiaddr{a}, ttl)
}

// AddAddrs keeps addresses.
func (b Book) AddAddrs(p peer.ID, addrs []ma.Multiaddr, ttl time.Duration) {
	if addrs = own(p, addrs); len(addrs) > 0 {
		b.Peerstore.AddAddrs(p, addrs, ttl)
	}
}

// SetAddr replaces how long an address is kept.
func (b Book) SetAddr(p peer.ID, a ma.Multiaddr, ttl time.Duration) {
	b.SetAddrs(p, []ma.Multiaddr{a}, ttl)
}

// SetAddrs replaces how long addresses are kept.
func (b Book) SetAddrs(p peer.ID, addrs []ma.Multiaddr, ttl time.Duration) {
	if addrs = own(p, addrs); len(addrs) > 0 {
		b.Peerstore.SetAddrs(p, addrs, ttl)
	}
}

// ConsumePeerRecord keeps the addresses of a signed record, which is not kept itself: it would be handed on with all that is in it. The host looks for the method, and does not start
// without.
func (b Book) ConsumePeerRecord(e *record.Envelope, ttl time.Duration) (bool, error) {
	r, err := e.Record()
	if err != nil {
		return false, err
	}
	rec, ok := r.(*peer.PeerRecord)
	if !ok || !rec.PeerID.MatchesPublicKey(e.PublicKey) {
		return false, nil
	}
	b.AddAddrs(rec.PeerID, rec.Addrs, ttl)
	return true, nil
}

// GetPeerRecord has none.
func (b Book) GetPeerRecord(peer.ID) *record.Envelope { return nil }
