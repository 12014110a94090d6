// Package identity checks signatures of events that are inside other events. The broker checks those of envelopes.
package identity

import (
	"bytes"
	"crypto/ed25519"

	"github.com/mr-tron/base58"

	"github.com/shallot-net/shallot/kit/signature"
	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// Verifier implements app.Verifier for peer ids that hold their Ed25519 key: 12D3Koo….
type Verifier struct{}

var _ app.Verifier = Verifier{}

// prefix begins such a peer id: the identity multihash of 36 bytes, which are an encoded public key of type Ed25519.
var prefix = []byte{0x00, 0x24, 0x08, 0x01, 0x12, 0x20}

// maxLength is above what 38 bytes take in base 58.
const maxLength = 64

// key is the public key in a peer id; nil when there is none.
func key(peer string) ed25519.PublicKey {
	if len(peer) > maxLength {
		return nil
	}
	b, err := base58.Decode(peer)
	if err != nil || len(b) != len(prefix)+ed25519.PublicKeySize || !bytes.HasPrefix(b, prefix) {
		return nil
	}
	return b[len(prefix):]
}

// Verify tells whether Author signed the event.
func (Verifier) Verify(ev *domain.Event) bool {
	k := key(ev.Author)
	return k != nil && signature.Verify(k, SignedBytes(ev), ev.Signature)
}

// SignedBytes are what an event's signature is over.
func SignedBytes(ev *domain.Event) []byte { return signature.Message(int32(ev.Type), ev.Payload) }

// PeerID is the peer id that holds a public key.
func PeerID(k ed25519.PublicKey) string {
	return base58.Encode(append(append([]byte(nil), prefix...), k...))
}
