// Package padding decides how much is added to a body before it is encrypted or sent, so that its length says less. The classes are those of Padmé
// (Nikitin, Barman, Lueks, Underwood, Hubaux, Ford: "Reducing Metadata Leakage from Encrypted Files and Communication with PURBs", PoPETs 2019,
// section 4): a length of L bytes keeps its leading bits, about log2 log2 L of them, and is rounded up in the others. That costs at most 12 % and leaves
// O(log log L) bits of what a length could tell. Below 4 KiB, where Padmé's classes would be finer than what a cell of Tor's hides anyway (498 bytes, tor-spec section 6.1), they
// are the multiples of Floor.
//
// What it cannot hide: how many bodies there are, and when they come.
package padding

import (
	"errors"
	"fmt"
	"io"
	"math/bits"
)

// Floor is the smallest class, in bytes: all that is smaller is of one size. It is small because what takes more than five cells takes 40 ms longer at each relay that
// waits for an acknowledgement between them, which an event with a small payload must not need.
const Floor = 512

// Cell is how many bytes a cell of Tor's carries (tor-spec section 6.1: 509, less the 11 of a relay message's header).
const Cell = 498

// Cells is the class of a message of n bytes that goes over a circuit with that many bytes of others' headers: what fills whole cells with them, and from 4 KiB on its Size. It panics
// where Size does.
func Cells(n, headers int64) int64 {
	if n < 0 || n+headers > coarse/Cell*Cell {
		return Size(n)
	}
	return (n+headers+Cell-1)/Cell*Cell - headers
}

// coarse is below which length classes are multiples of Floor, in bytes.
const coarse = 4 << 10

// Limit is the largest length that has a class, in bytes: beyond any body, and far from where a sum of lengths overflows.
const Limit = 1 << 60

// Size is the class of a body of n bytes, which is its length when padded: a multiple of Floor, or at most 12 % more than n. The class of a class is
// itself. It panics when n is negative or above Limit: lengths are bounded where they come in.
func Size(n int64) int64 {
	if n < 0 || n > Limit {
		panic(fmt.Sprintf("padding: a body of %d bytes", n))
	}
	if n < coarse {
		return max(Floor, (n+Floor-1)/Floor*Floor)
	}
	return padme(n)
}

// padme clears the low bits of a length, rounding up.
func padme(n int64) int64 {
	if n < 2 {
		return n
	}
	e := bits.Len64(uint64(n)) - 1 // floor(log2 n)
	s := bits.Len64(uint64(e))     // bits that it takes to write e down
	mask := int64(1)<<(e-s) - 1
	return (n + mask) &^ mask
}

// Fits tells whether a body of n bytes may have that much padding. Whoever reads must ask before it believes a length that came from elsewhere.
// It allows what any class could need, not only the one of n, so that classes can change: they were of one kibibyte once.
func Fits(n, pad int64) bool {
	return n >= 0 && n <= Limit && pad >= 0 && pad <= max(most, n/8+1)
}

const most = 1 << 10

// ErrInvalid is the cause of padding that is cut off, or that holds anything but zeros.
var ErrInvalid = errors.New("the padding is not what its length says, or not of zeros")

var zeros [4 << 10]byte

// Write writes padding of n bytes.
func Write(w io.Writer, n int64) error {
	for n > 0 {
		k, err := w.Write(zeros[:min(n, int64(len(zeros)))])
		if err != nil {
			return err
		}
		n -= int64(k)
	}
	return nil
}

// Read reads padding of n bytes, and makes sure that it is nothing else: a place that nobody looks at would be one to put things. An error is
// ErrInvalid or the reader's own.
func Read(r io.Reader, n int64) error {
	var buf [4 << 10]byte
	for n > 0 {
		b := buf[:min(n, int64(len(buf)))]
		if _, err := io.ReadFull(r, b); err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				return ErrInvalid
			}
			return err
		}
		if !Zero(b) {
			return ErrInvalid
		}
		n -= int64(len(b))
	}
	return nil
}

// Zero tells whether b is nothing but zeros.
func Zero(b []byte) bool {
	var or byte
	for _, c := range b {
		or |= c
	}
	return or == 0
}
