package app

import (
	"encoding/binary"
	"fmt"
	"io"

	"github.com/shallot-net/shallot/kit/padding"
)

// maxHeader bounds a header: options of at most 4 MiB and 1,024 parts.
const maxHeader = 5 << 20

// WriteHeader begins a plaintext: the header's length as 4 bytes big endian, and the header.
func WriteHeader(w io.Writer, header []byte) error {
	var n [4]byte
	binary.BigEndian.PutUint32(n[:], uint32(len(header)))
	if _, err := w.Write(n[:]); err != nil {
		return err
	}
	_, err := w.Write(header)
	return err
}

// paddingField is what the length of padding takes in the encoding of a header, in bytes.
const paddingField = 9

// CiphertextOverhead is about what encryption adds to a small plaintext, in bytes: header, stanza, nonce, tag. So that the ciphertext, which is what others see, is no longer
// than a class, and not just longer.
const CiphertextOverhead = 256

// Padding is how many zeros have to follow a plaintext of total bytes, whose header says nothing of padding yet, and how long it is with them and what
// the header will say of them: so long that its ciphertext has the length of a class, or less. The padding is never 0: a header would not say that.
func Padding(total int64) (pad, padded int64) {
	n := total + paddingField
	padded = padding.Size(n+1+CiphertextOverhead) - CiphertextOverhead
	return padded - n, padded
}

// ReadHeader reads what WriteHeader wrote; total is how large the whole plaintext can be at most, so that a length alone
// costs no memory.
func ReadHeader(r io.Reader, total int64) ([]byte, error) {
	var n [4]byte
	if _, err := io.ReadFull(r, n[:]); err != nil {
		return nil, fmt.Errorf("the header's length cannot be read: %w", err)
	}
	size := int64(binary.BigEndian.Uint32(n[:]))
	if size > maxHeader || size > total {
		return nil, fmt.Errorf("the header has %d bytes: at most %d are possible", size, min(maxHeader, total))
	}
	b := make([]byte, size)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, fmt.Errorf("the header is cut off: %w", err)
	}
	return b, nil
}
