package app

import (
	"crypto/sha256"
	"errors"
	"hash"
	"io"

	"github.com/shallot-net/shallot/kit/padding"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// HashingReader hashes and counts what is read through it, and remembers how reading failed: a fetch that broke off
// says nothing of what was fetched.
type HashingReader struct {
	src io.Reader
	sum hash.Hash
	N   int64
	Err error
}

// NewHashingReader reads src.
func NewHashingReader(src io.Reader) *HashingReader {
	return &HashingReader{src: src, sum: sha256.New()}
}

func (h *HashingReader) Read(b []byte) (int, error) {
	n, err := h.src.Read(b)
	_, _ = h.sum.Write(b[:n])
	h.N += int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		h.Err = err
	}
	return n, err
}

// Sum is the SHA-256 of what was read.
func (h *HashingReader) Sum() domain.Hash { return domain.Hash(h.sum.Sum(nil)) }

// HashingWriter hashes and counts what is written through it, and remembers how writing failed: a full disk is not to
// be taken for bad data.
type HashingWriter struct {
	dst io.Writer
	sum hash.Hash
	N   int64
	Err error
}

// NewHashingWriter writes to dst.
func NewHashingWriter(dst io.Writer) *HashingWriter {
	return &HashingWriter{dst: dst, sum: sha256.New()}
}

func (h *HashingWriter) Write(b []byte) (int, error) {
	n, err := h.dst.Write(b)
	_, _ = h.sum.Write(b[:n])
	h.N += int64(n)
	if err != nil {
		h.Err = err
	}
	return n, err
}

// Sum is the SHA-256 of what was written.
func (h *HashingWriter) Sum() domain.Hash { return domain.Hash(h.sum.Sum(nil)) }

// Errors of CopyPart that are the data's own.
var (
	ErrCutOff    = errors.New("it is cut off")
	ErrWrongHash = errors.New("it is not what its hash says")
	ErrPadding   = errors.New("its padding is cut off or not of zeros, or the ciphertext is damaged at its end")
	ErrTooLong   = errors.New("something follows the last part, or the ciphertext is damaged at its end")
)

// CopyPart copies one part, and makes sure that it is what its description says. ErrCutOff and ErrWrongHash are the
// source's fault, anything else is the destination's.
func CopyPart(dst io.Writer, src io.Reader, p domain.Part) error {
	w := NewHashingWriter(dst)
	_, err := io.CopyN(w, src, p.Size)
	switch {
	case w.Err != nil:
		return w.Err
	case err != nil:
		return ErrCutOff
	case w.Sum() != p.SHA256:
		return ErrWrongHash
	}
	return nil
}

// AtEnd makes sure that nothing follows but padding of so many bytes, which also proves the end of a ciphertext.
func AtEnd(src io.Reader, pad int64) error {
	if err := padding.Read(src, pad); err != nil {
		return ErrPadding
	}
	var one [1]byte
	if n, err := io.ReadFull(src, one[:]); n != 0 || !errors.Is(err, io.EOF) {
		return ErrTooLong
	}
	return nil
}

// BadData tells whether an error of CopyPart or AtEnd is the data's own.
func BadData(err error) bool {
	return errors.Is(err, ErrCutOff) || errors.Is(err, ErrWrongHash) || errors.Is(err, ErrTooLong) || errors.Is(err, ErrPadding)
}
