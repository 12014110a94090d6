// Package puzzle is the work that providers ask of strangers: a small evaluation of Argon2id (RFC 9106), which a graphics card or a circuit of one's own does not do
// ten thousands of times faster than the machine of somebody who has a task, as it would a plain hash. SECURITY.md has the figures.
package puzzle

import (
	"encoding/binary"

	"golang.org/x/crypto/argon2"

	"github.com/shallot-net/shallot/services/task/internal/domain"
)

const (
	passes = 1
	memory = 128 // KiB: it fits into a core's second cache, and not many times into a graphics card's fast memory
	lanes  = 1
	bytes  = 8
)

// Work implements app.PuzzleWork.
func Work(text []byte, nonce domain.Nonce, found [16]byte) uint64 {
	password := append(append(make([]byte, 0, len(text)+len(found)), text...), found[:]...)
	return binary.BigEndian.Uint64(argon2.IDKey(password, nonce[:], passes, memory, lanes, bytes))
}
