package wasmcheck

import (
	"bufio"
	"errors"
	"io"
	"strings"
)

// bufferSize bounds what is in memory at a time.
const bufferSize = 4 << 10

// reader decodes from start up to end, and never reads beyond.
type reader struct {
	b     *bufio.Reader
	s     *io.SectionReader
	start int64
	n     int64 // bytes read
}

func newReader(r io.ReaderAt, start, end int64) *reader {
	s := io.NewSectionReader(r, start, end-start)
	return &reader{b: bufio.NewReaderSize(s, bufferSize), s: s, start: start}
}

func (r *reader) pos() int64 { return r.start + r.n }

// err makes the end of the bytes the module's fault, and leaves what the storage below says as it is.
func (r *reader) err(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fail(ReasonNotWasm, "the module is cut off or broken at byte %d", r.pos())
	}
	return err
}

func readFull(r io.ReaderAt, b []byte, at int64) error {
	n, err := r.ReadAt(b, at)
	if n == len(b) {
		return nil
	}
	if errors.Is(err, io.EOF) {
		return fail(ReasonNotWasm, "the module is cut off at byte %d", at+int64(n))
	}
	return err
}

func (r *reader) byte() (byte, error) {
	b, err := r.b.ReadByte()
	if err != nil {
		return 0, r.err(err)
	}
	r.n++
	return b, nil
}

// u32 is an unsigned LEB128 number of at most 32 bits.
func (r *reader) u32() (uint32, error) {
	v, err := r.uleb(5, 32)
	return uint32(v), err //nolint:gosec // 32 bits
}

func (r *reader) uleb(most int, bits uint) (uint64, error) {
	var v uint64
	for i := range most {
		b, err := r.byte()
		if err != nil {
			return 0, err
		}
		v |= uint64(b&0x7f) << (7 * i)
		if b < 0x80 {
			if bits < 64 && v>>bits != 0 {
				break
			}
			return v, nil
		}
	}
	return 0, fail(ReasonNotWasm, "the module is broken: the number before byte %d has more than %d bits", r.pos(), bits)
}

func (r *reader) skip(n int64) error {
	for n > 0 {
		k, err := r.b.Discard(int(min(n, 1<<20)))
		r.n += int64(k)
		n -= int64(k)
		if err != nil {
			return r.err(err)
		}
	}
	return nil
}

const shownName = 100

// name reads a name and keeps what can be shown of it, which is all of any name that means something here.
func (r *reader) name() (string, error) {
	n, err := r.u32()
	if err != nil {
		return "", err
	}
	if n > maxName {
		return "", fail(ReasonTooLarge, "the module has a name of %d bytes at byte %d, and one may have %d", n, r.pos(), maxName)
	}
	b := make([]byte, min(n, shownName))
	k, err := io.ReadFull(r.b, b)
	r.n += int64(k)
	if err != nil {
		return "", r.err(err)
	}
	if err := r.skip(int64(n) - int64(len(b))); err != nil {
		return "", err
	}
	s := strings.ToValidUTF8(string(b), "\uFFFD")
	if n > shownName {
		s += "…"
	}
	return s, nil
}
