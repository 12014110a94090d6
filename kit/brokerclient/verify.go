package brokerclient

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"

	"github.com/mr-tron/base58"

	"github.com/shallot-net/shallot/kit/signature"
	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
)

// The broker verifies what travels by itself. Signed events that travel inside another's payload (announcements in an
// answer, a submission that was handed on) are for the service that reads them to verify.

// inlineKey is what a peer id begins with that holds its Ed25519 key: an identity multihash of 36 bytes, which are a
// protobuf with key type 1 and the key's 32 bytes.
var inlineKey = []byte{0x00, 0x24, 0x08, 0x01, 0x12, 0x20}

// Why Verify refuses.
var (
	ErrUnsigned       = errors.New("the event is not signed")
	ErrAuthorUnusable = errors.New("the author is not the id of an Ed25519 key")
	ErrSignature      = errors.New("the signature does not fit the author and the payload")
)

// Verify checks that the event's author signed its type and payload.
func Verify(ev *eventv1.Event) error {
	if ev.GetAuthor() == "" || len(ev.GetSignature()) == 0 {
		return ErrUnsigned
	}
	key, err := publicKey(ev.GetAuthor())
	if err != nil {
		return err
	}
	if !signature.Verify(key, SignedBytes(ev), ev.GetSignature()) {
		return ErrSignature
	}
	return nil
}

// SignedBytes is what the signature of an event covers.
func SignedBytes(ev *eventv1.Event) []byte {
	return signature.Message(int32(ev.GetType()), ev.GetPayload())
}

// PeerID is the peer id of an Ed25519 public key.
func PeerID(key ed25519.PublicKey) string {
	return base58.Encode(append(bytes.Clone(inlineKey), key...))
}

func publicKey(peerID string) (ed25519.PublicKey, error) {
	if len(peerID) > 64 { // such an id has 52; decoding is quadratic
		return nil, ErrAuthorUnusable
	}
	b, err := base58.Decode(peerID)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrAuthorUnusable, err)
	}
	if len(b) != len(inlineKey)+ed25519.PublicKeySize || !bytes.HasPrefix(b, inlineKey) {
		return nil, ErrAuthorUnusable
	}
	return ed25519.PublicKey(b[len(inlineKey):]), nil
}
