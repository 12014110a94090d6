package domain

import (
	"encoding/binary"
	"math"
	"math/bits"
)

// Puzzle is what a provider asks of strangers for a submission: their identities are free, so their work has to be the price.
type Puzzle struct {
	Nonce  Nonce
	Effort uint32 // evaluations that a solution takes in the mean; 0: nothing is asked
}

// Nonce is what of the provider ages, so that nobody solves ahead.
type Nonce [16]byte

// MaxEffort bounds the efforts that can be spoken of: days of a machine.
const MaxEffort = 1 << 24

// ValidEffort tells whether n may be an effort: 0, or a power of two.
func ValidEffort(n uint32) bool { return n <= MaxEffort && n&(n-1) == 0 }

// PuzzleText is what a solution is for: one attempt of one task at one provider.
func PuzzleText(provider, taskID string, attempt uint32) []byte {
	b := append(append([]byte("shallot-puzzle-v1\x00"), provider...), 0)
	return binary.BigEndian.AppendUint32(append(b, taskID...), attempt)
}

// Pays tells whether what an evaluation gave is a solution of that effort, 1 or more.
func Pays(value uint64, effort uint32) bool { return value <= math.MaxUint64/uint64(effort) }

// Payment is what a consumer sends: Found solves the puzzle of that nonce and effort. With effort 0 it pays nothing, and the rest means nothing.
type Payment struct {
	Effort uint32
	Nonce  Nonce
	Found  [16]byte
}

// PaymentSize is the length of an encoded payment, in bytes: the same whatever is paid.
const PaymentSize = 1 + 16 + 16

// Bytes is its encoded form.
func (p Payment) Bytes() []byte {
	b := append(make([]byte, 0, PaymentSize), byte(bits.Len32(p.Effort)))
	return append(append(b, p.Nonce[:]...), p.Found[:]...)
}

// ParsePayment reads an encoded payment. No bytes at all are one that pays nothing.
func ParsePayment(b []byte) (p Payment, ok bool) {
	if len(b) == 0 {
		return p, true
	}
	if len(b) != PaymentSize || int(b[0]) > bits.Len32(MaxEffort) {
		return p, false
	}
	if b[0] > 0 {
		p.Effort = 1 << (b[0] - 1)
	}
	copy(p.Nonce[:], b[1:])
	copy(p.Found[:], b[17:])
	return p, true
}
