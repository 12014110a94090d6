// Package frame is what two brokers say to each other on a stream of directed events: length-prefixed frames, each an event or
// the acknowledgement of one.
//
//	frame = length, 4 bytes big endian | kind, 1 byte | body, length-1 bytes
//	event = the encoded envelope
//	ack   = event id, 16 bytes | status, 1 byte | detail, 0 to 64 bytes of A-Z 0-9 _
//
// Kinds that are not known are skipped, so that later versions can add some.
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
)

// MaxBody is the largest body, in bytes. Envelopes are bounded by their own rule; the slack is so that one that is a little too large gets
// an answer instead of a broken stream.
const MaxBody = event.MaxSize + 4<<10

const header = 5

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
}

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
	if n < 1 || n > MaxBody+1 {
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
	return kind, body, nil
}
