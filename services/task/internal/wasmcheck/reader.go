package wasmcheck

import (
	"errors"
	"io"
	"strings"
)

// bufferSize bounds what is in memory at a time, in bytes.
const bufferSize = 2 << 10

// reader decodes from a position up to an end, and never reads beyond.
type reader struct {
	r      io.ReaderAt
	at     int64 // of the first byte in buf[next:have]
	end    int64
	next   int
	have   int
	buffer [bufferSize]byte
}

// seek begins anew.
func (r *reader) seek(at, end int64) { r.at, r.end, r.next, r.have = at, end, 0, 0 }

func (r *reader) pos() int64 { return r.at }

// fill reads some more; it is called when the buffer is empty.
func (r *reader) fill() error {
	n := min(int64(bufferSize), r.end-r.at)
	if n <= 0 {
		return r.cutOff()
	}
	k, err := r.r.ReadAt(r.buffer[:n], r.at)
	r.next, r.have = 0, k
	switch {
	case k > 0:
		return nil
	case errors.Is(err, io.EOF) || err == nil:
		return r.cutOff()
	}
	return err
}

func (r *reader) cutOff() error {
	return fail(ReasonNotWasm, "the module is cut off or broken at byte %d", r.at)
}

func (r *reader) byte() (byte, error) {
	if r.next == r.have {
		if err := r.fill(); err != nil {
			return 0, err
		}
	}
	b := r.buffer[r.next]
	r.next++
	r.at++
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
			if v>>bits != 0 {
				break
			}
			return v, nil
		}
	}
	return 0, fail(ReasonNotWasm, "the module is broken: the number before byte %d has more than %d bits", r.at, bits)
}

// read fills b.
func (r *reader) read(b []byte) error {
	for len(b) > 0 {
		if r.next == r.have {
			if err := r.fill(); err != nil {
				return err
			}
		}
		n := copy(b, r.buffer[r.next:r.have])
		r.next, r.at, b = r.next+n, r.at+int64(n), b[n:]
	}
	return nil
}

// skip passes n bytes over without reading them.
func (r *reader) skip(n int64) error {
	if n > r.end-r.at {
		return r.cutOff()
	}
	if n <= int64(r.have-r.next) {
		r.next, r.at = r.next+int(n), r.at+n
		return nil
	}
	r.seek(r.at+n, r.end)
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
		return "", fail(ReasonTooLarge, "the module has a name of %d bytes at byte %d, and one may have %d", n, r.at, maxName)
	}
	b := make([]byte, min(n, shownName))
	if err := r.read(b); err != nil {
		return "", err
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
