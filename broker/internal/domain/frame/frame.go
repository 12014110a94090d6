// Package frame is what two brokers say to each other on a stream of directed events: length-prefixed frames, each an event or
// the acknowledgement of one.
//
//	frame = length, 4 bytes big endian | kind, 1 byte | body, length-1 bytes
//	event = the encoded envelope
//	ack   = event id, 16 bytes | status, 1 byte | detail, 0 to 64 bytes of A-Z 0-9 _
//
// The length of a frame says what it is likely to be, to those who see how much travels. So a frame may be padded: its kind has the highest bit set, and
// its body is
//
//	padded = length of the true body, 4 bytes big endian | the true body | zeros
//
// A reader takes both forms at any time. Kinds that are not known are skipped, so that later versions can add some.
package frame

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/shallot-net/shallot/broker/internal/domain/event"
)

// Kind says what a frame's body is.
type Kind uint8

// Kinds.
const (
	KindEvent Kind = 1
	KindAck   Kind = 2

	padded Kind = 0x80 // a bit of it
)

// MaxBody is the largest body, in bytes. Envelopes are bounded by their own rule; the slack is so that one that is a little too large gets
// an answer instead of a broken stream.
const MaxBody = event.MaxSize + 4<<10

const (
	header = Overhead
	inner  = 4 // the length of a padded frame's true body
	// What padding may come to: smaller frames are of a few sizes, and larger ones grow by an eighth at most.
	leastPad = 1 << 10
	maxBody  = inner + MaxBody + MaxBody/8
)

// Overhead is what a frame has beside its body, in bytes.
const Overhead = 5

// PadOverhead is by how much a frame grows at the least when it is padded, in bytes.
const PadOverhead = inner

// ErrMalformed is the cause of every failure to decode that is the other side's fault.
var ErrMalformed = errors.New("malformed frame")

// AppendEvent appends a frame with an encoded envelope.
func AppendEvent(b, envelope []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(envelope)+1))
	b = append(b, byte(KindEvent))
	return append(b, envelope...)
}

// AppendAck appends an acknowledgement. A detail that other nodes may not be told is replaced.
func AppendAck(b []byte, id event.ID, o event.Outcome) []byte {
	detail := event.Detail(o.Detail)
	b = binary.BigEndian.AppendUint32(b, uint32(1+len(id)+1+len(detail)))
	b = append(b, byte(KindAck))
	b = append(b, id[:]...)
	b = append(b, byte(o.Status))
	return append(b, detail...)
}

// Pad makes the frame that b ends with, from start on, one of size bytes: at least PadOverhead more than it has.
func Pad(b []byte, start, size int) []byte {
	body := len(b) - start - header
	pad := size - len(b) + start - inner
	if body < 0 || pad < 0 {
		panic(fmt.Sprintf("a frame of %d bytes cannot be padded to %d", len(b)-start, size))
	}
	b = append(b, 0, 0, 0, 0)
	at := start + header
	copy(b[at+inner:], b[at:])
	binary.BigEndian.PutUint32(b[start:], uint32(size-header+1))
	b[start+header-1] |= byte(padded)
	binary.BigEndian.PutUint32(b[at:], uint32(body))
	return append(b, make([]byte, pad)...) // without an allocation where there is room
}

// unpad finds the true body of a padded frame. What it holds beside it must be zeros and no more than there is a use for: nobody looks there.
func unpad(body []byte) ([]byte, error) {
	if len(body) < inner {
		return nil, fmt.Errorf("%w: a padded body of %d bytes", ErrMalformed, len(body))
	}
	n, rest := binary.BigEndian.Uint32(body), body[inner:]
	if int64(n) > int64(len(rest)) || n > MaxBody || len(rest)-int(n) > max(leastPad, int(n)/8+inner+header) {
		return nil, fmt.Errorf("%w: a body of %d bytes padded to %d", ErrMalformed, n, len(rest))
	}
	for _, c := range rest[n:] {
		if c != 0 {
			return nil, fmt.Errorf("%w: padding that is not zero", ErrMalformed)
		}
	}
	return rest[:n:n], nil
}

// ParseAck reads an acknowledgement's body.
func ParseAck(body []byte) (event.ID, event.Outcome, error) {
	var id event.ID
	if len(body) < len(id)+1 || len(body) > len(id)+1+event.MaxDetail {
		return id, event.Outcome{}, fmt.Errorf("%w: an acknowledgement of %d bytes", ErrMalformed, len(body))
	}
	copy(id[:], body)
	o := event.Outcome{Status: event.Status(body[len(id)]), Detail: string(body[len(id)+1:])}
	if !event.ValidDetail(o.Detail) {
		return id, event.Outcome{}, fmt.Errorf("%w: the detail of an acknowledgement", ErrMalformed)
	}
	return id, o, nil
}

// Reader reads frames.
type Reader struct {
	r *bufio.Reader
	// Begun, when set, is called when a frame has begun to come and is not all there yet: the moment from which a slow sender
	// can be held to a deadline. Ended is called when such a frame is all there.
	Begun, Ended func()

	size int
}

// Size is how many bytes the body of the last frame had as it came, its padding included: what it cost.
func (r *Reader) Size() int { return r.size }

// NewReader buffers r with the given number of bytes.
func NewReader(r io.Reader, buffer int) *Reader {
	return &Reader{r: bufio.NewReaderSize(r, buffer)}
}

// Next blocks for the next frame. Its body is the caller's. io.EOF means that the other side ended the stream between frames.
func (r *Reader) Next() (Kind, []byte, error) {
	if _, err := r.r.Peek(1); err != nil {
		return 0, nil, err
	}
	late := r.r.Buffered() < header
	if late && r.Begun != nil {
		r.Begun()
	}
	h, err := r.r.Peek(header)
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return 0, nil, err
	}
	n, kind := binary.BigEndian.Uint32(h), Kind(h[4])
	most := uint32(MaxBody)
	if kind&padded != 0 {
		most = maxBody
	}
	if n < 1 || n > most+1 {
		return 0, nil, fmt.Errorf("%w: a length of %d", ErrMalformed, n)
	}
	_, _ = r.r.Discard(header) // it was peeked
	body := make([]byte, n-1)
	if !late && r.r.Buffered() < len(body) {
		late = true
		if r.Begun != nil {
			r.Begun()
		}
	}
	if _, err := io.ReadFull(r.r, body); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return 0, nil, err
	}
	if late && r.Ended != nil {
		r.Ended()
	}
	r.size = len(body)
	if kind&padded != 0 {
		if body, err = unpad(body); err != nil {
			return 0, nil, err
		}
		kind &^= padded
	}
	return kind, body, nil
}
