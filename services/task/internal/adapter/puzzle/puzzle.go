// Package puzzle is the work that providers ask of strangers: a small evaluation of Argon2id (RFC 9106). It wants memory, so that a graphics card is worth hundreds of
// cores and not thousands, and that nobody has circuits for it. SECURITY.md has the figures.
package puzzle

import (
	"encoding/binary"

	"golang.org/x/crypto/argon2"

	"github.com/shallot-net/shallot/services/task/internal/domain"
)

const (
	passes = 1
	memory = 256 // KiB: a core's second cache has room for it, and what is fast of a graphics card's processor has not
	lanes  = 1
	bytes  = 8
)

// Work implements app.PuzzleWork.
func Work(text []byte, nonce domain.Nonce, found [16]byte) uint64 {
	password := append(append(make([]byte, 0, len(text)+len(found)), text...), found[:]...)
	return binary.BigEndian.Uint64(argon2.IDKey(password, nonce[:], passes, memory, lanes, bytes))
}
