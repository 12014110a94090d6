// Package onion is libp2p over Tor onion services: the addresses, the dial through tor's SOCKS socket and the transport. It speaks to Unix sockets alone, so that it works
// where there is no network at all. What tor is asked for by its control port is the business of another process.
package onion

import (
	"crypto/ed25519"
	"encoding/base32"
	"errors"
	"fmt"
	"strings"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/shallot-net/shallot/broker/internal/domain/onionsvc"
)

// Port is the one under which every node is reached: a choice would tell nodes apart.
const Port = 4001

// ErrNotOnion is what is no address of this form, or not the one of its peer.
var ErrNotOnion = errors.New("not the onion address of the peer")

// Address is where a peer is reached, if it is reached at all: its onion service has the peer's own key. So nobody can say of another where he is, and
// nothing that is said has to be believed. It fails for peers whose id does not hold an Ed25519 key.
func Address(p peer.ID) (ma.Multiaddr, error) {
	key, err := p.ExtractPublicKey()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotOnion, err)
	}
	if key.Type() != crypto.Ed25519 {
		return nil, fmt.Errorf("%w: the peer's key is no Ed25519 key", ErrNotOnion)
	}
	raw, err := key.Raw()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotOnion, err)
	}
	return ma.NewMultiaddr(fmt.Sprintf("/onion3/%s:%d", onionsvc.ID(raw), Port))
}

// IsAddressOf tells whether an address is the one of the peer, and nothing beside it: no relay behind it, no protocol around it.
func IsAddressOf(a ma.Multiaddr, p peer.ID) bool {
	own, err := Address(p)
	return err == nil && a != nil && a.Equal(own)
}

// PeerOf is the peer who is reached at an address.
func PeerOf(a ma.Multiaddr) (peer.ID, error) {
	id, port, err := split(a)
	if err != nil {
		return "", err
	}
	if onionsvc.CheckID(id) != nil || port != fmt.Sprint(Port) {
		return "", ErrNotOnion
	}
	raw, err := base32.StdEncoding.DecodeString(strings.ToUpper(id)) // 35 bytes, the key first
	if err != nil {
		return "", ErrNotOnion
	}
	public, err := crypto.UnmarshalEd25519PublicKey(raw[:ed25519.PublicKeySize])
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrNotOnion, err)
	}
	return peer.IDFromPublicKey(public)
}

func split(a ma.Multiaddr) (id, port string, err error) {
	if len(a) != 1 {
		return "", "", ErrNotOnion
	}
	v, err := a.ValueForProtocol(ma.P_ONION3)
	if err != nil {
		return "", "", ErrNotOnion
	}
	id, port, ok := strings.Cut(v, ":")
	if !ok {
		return "", "", ErrNotOnion
	}
	return id, port, nil
}

// marker stands for where an inbound connection came from, which nobody knows. It is nobody's address: its checksum is wrong.
var marker = ma.StringCast("/onion3/" + strings.Repeat("a", 56) + ":1")

// addr is an address for the net package: what is printed of a connection must not name a socket of this machine.
type addr string

func (addr) Network() string  { return "onion" }
func (a addr) String() string { return string(a) }
