// Package signature is how events are signed: one by one, or many with one signature.
//
// A signature of one event is Ed25519 (RFC 8032), 64 bytes, over Message. Where several events are to be signed at the same time,
// the signature is over the root of a Merkle tree (RFC 9162 §2.1) of their messages, and each event has it with its own path to
// that root:
//
//	64 bytes: Ed25519 over "shallot-events-v1" 0x00 | root | 1 byte: events | 1 byte: which one, from 0 | up to 6 × 32 bytes: its path
//
// So each can be checked by itself, by anybody, whatever becomes of the others; and who receives many of one tree verifies
// one signature, which costs a hundred times what a path does.
package signature

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"math/bits"
	"sync"
)

const (
	onePrefix  = "shallot-event-v1\x00"
	manyPrefix = "shallot-events-v1\x00"

	// MaxEvents is how many events one signature may cover.
	MaxEvents = 1 << maxPath
	// MaxSize is the most bytes that a signature has.
	MaxSize = headSize + maxPath*sha256.Size

	maxPath  = 6
	headSize = ed25519.SignatureSize + 2
)

var headRoom [headSize]byte

// Message is what an event's signature vouches for: prefix | type, 4 bytes big endian | SHA-256 of the payload.
func Message(eventType int32, payload []byte) []byte {
	b := make([]byte, 0, len(onePrefix)+4+sha256.Size)
	b = append(b, onePrefix...)
	b = binary.BigEndian.AppendUint32(b, uint32(eventType))
	sum := sha256.Sum256(payload)
	return append(b, sum[:]...)
}

// SignAll signs messages, MaxEvents at most, by one call of sign, and returns a signature for each. An error is sign's.
func SignAll(messages [][]byte, sign func([]byte) ([]byte, error)) ([][]byte, error) {
	switch {
	case len(messages) == 0:
		return nil, nil
	case len(messages) > MaxEvents:
		return nil, errors.New("too many messages for one signature")
	case len(messages) == 1:
		s, err := sign(messages[0])
		return [][]byte{s}, err
	}
	leaves := make([]hash, len(messages))
	out := make([][]byte, len(messages))
	for i, m := range messages {
		leaves[i] = leaf(m)
		out[i] = append(make([]byte, 0, MaxSize), headRoom[:]...)
		out[i][headSize-2], out[i][headSize-1] = byte(len(messages)), byte(i)
	}
	s, err := sign(rootMessage(tree(leaves, out)))
	if err != nil {
		return nil, err
	}
	for i := range out {
		copy(out[i], s)
	}
	return out, nil
}

type hash [sha256.Size]byte

// The two kinds of hashes begin differently, so that none can be taken for the other.
func leaf(message []byte) hash {
	return sha256.Sum256(append(append(make([]byte, 0, 64), 0), message...))
}

func node(left, right *hash) hash {
	var b [1 + 2*sha256.Size]byte
	b[0] = 1
	copy(b[1:], left[:])
	copy(b[1+sha256.Size:], right[:])
	return sha256.Sum256(b[:])
}

// split is how many of n leaves, 2 or more, are in the left half of their tree.
func split(n int) int { return 1 << (bits.Len(uint(n-1)) - 1) }

// tree is the hash of the tree of leaves. It appends to each leaf's path, from below.
func tree(leaves []hash, paths [][]byte) hash {
	if len(leaves) == 1 {
		return leaves[0]
	}
	k := split(len(leaves))
	left, right := tree(leaves[:k], paths[:k]), tree(leaves[k:], paths[k:])
	for i := range paths {
		if i < k {
			paths[i] = append(paths[i], right[:]...)
		} else {
			paths[i] = append(paths[i], left[:]...)
		}
	}
	return node(&left, &right)
}

func rootMessage(root hash) []byte { return append([]byte(manyPrefix), root[:]...) }

// Verify tells whether the key's owner signed the message, alone or with others.
func Verify(key ed25519.PublicKey, message, signature []byte) bool {
	return (*Verifier)(nil).Verify(key, message, signature)
}

// known is how many verified roots a Verifier remembers: those of some seconds, 128 bytes each.
const known = 256

type root struct {
	key       [ed25519.PublicKeySize]byte
	signature [ed25519.SignatureSize]byte
	hash      hash
}

// Verifier is Verify with a memory of the trees whose signature it has verified lately. The zero value works, and it is safe
// for concurrent use.
type Verifier struct {
	mu       sync.Mutex
	verified map[root]struct{}
	order    [known]root // the oldest is overwritten
	next     int
}

// Verify tells whether the key's owner signed the message, alone or with others.
func (v *Verifier) Verify(key ed25519.PublicKey, message, signature []byte) bool {
	if len(key) != ed25519.PublicKeySize {
		return false
	}
	if len(signature) == ed25519.SignatureSize {
		return ed25519.Verify(key, message, signature)
	}
	r, ok := rootOf(key, message, signature)
	if !ok {
		return false
	}
	if v.seen(r) {
		return true
	}
	if !ed25519.Verify(key, rootMessage(r.hash), signature[:ed25519.SignatureSize]) {
		return false
	}
	v.remember(r)
	return true
}

// rootOf computes the root that the message's path leads to.
func rootOf(key ed25519.PublicKey, message, signature []byte) (r root, ok bool) {
	if len(signature) < headSize || len(signature) > MaxSize || (len(signature)-headSize)%sha256.Size != 0 {
		return root{}, false
	}
	size, at := int(signature[headSize-2]), int(signature[headSize-1])
	if size < 2 || size > MaxEvents || at >= size {
		return root{}, false
	}
	r.hash = leaf(message)
	path := signature[headSize:]
	if !climb(&r.hash, size, at, &path) || len(path) > 0 {
		return root{}, false
	}
	copy(r.key[:], key)
	copy(r.signature[:], signature)
	return r, true
}

// climb computes the hash of a tree of so many leaves from that of one of them and its path, of which it leaves what is too much.
func climb(h *hash, size, at int, path *[]byte) bool {
	if size == 1 {
		return true
	}
	k := split(size)
	left := at < k
	if left {
		size = k
	} else {
		size, at = size-k, at-k
	}
	if !climb(h, size, at, path) || len(*path) < sha256.Size {
		return false
	}
	other := hash((*path)[:sha256.Size])
	*path = (*path)[sha256.Size:]
	if left {
		*h = node(h, &other)
	} else {
		*h = node(&other, h)
	}
	return true
}

func (v *Verifier) seen(r root) bool {
	if v == nil {
		return false
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	_, ok := v.verified[r]
	return ok
}

func (v *Verifier) remember(r root) {
	if v == nil {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.verified == nil {
		v.verified = make(map[root]struct{}, known)
	}
	delete(v.verified, v.order[v.next])
	v.order[v.next] = r
	v.verified[r] = struct{}{}
	v.next = (v.next + 1) % known
}
