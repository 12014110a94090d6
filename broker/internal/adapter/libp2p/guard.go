package libp2p

import (
	"os"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/shallot-net/shallot/broker/internal/app"
)

// patiences is how many times the time that a peer may be silent within a frame of gossip or content the whole frame may take: five minutes
// by default, for at most 4 MiB.
const patiences = 10

// guarded is the host that libraries get which serve protocols of their own. They read frames for as long as it takes and end a stream that makes no
// sense to them without a word; here who opens streams too fast is refused, a frame that was begun has to end, and garbage is told of.
type guarded struct {
	host.Host
	meter    *meter
	patience time.Duration
}

// SetStreamHandler implements host.Host.
func (g guarded) SetStreamHandler(id protocol.ID, f network.StreamHandler) {
	g.Host.SetStreamHandler(id, g.guard(id, f))
}

// SetStreamHandlerMatch implements host.Host.
func (g guarded) SetStreamHandlerMatch(id protocol.ID, match func(protocol.ID) bool, f network.StreamHandler) {
	g.Host.SetStreamHandlerMatch(id, match, g.guard(id, f))
}

func (g guarded) guard(id protocol.ID, f network.StreamHandler) network.StreamHandler {
	return func(s network.Stream) {
		if !g.meter.opened(s.Conn().RemotePeer(), id) {
			_ = s.Reset()
			return
		}
		w := &watchedStream{Stream: deadlined{s}, meter: g.meter, patience: g.patience}
		f(w)
		if w.senseless() {
			g.meter.say(s.Conn().RemotePeer(), app.SentGarbage)
		}
	}
}

// watchedStream follows the frames that a peer sends: each is its length as a varint, and so many bytes.
type watchedStream struct {
	network.Stream
	meter    *meter
	patience time.Duration

	reset atomic.Bool // since the last read began

	// Of the reader alone.
	frame   frameClock
	begun   time.Time // when the present frame began
	limited bool      // a deadline is set
	stalled bool      // whoever reads on after a deadline gets nothing more
	heard   bool      // something was read
	broken  bool      // a read has failed: what ended the stream is not what it said
}

// Read holds the peer to the end of a frame that it has begun.
func (s *watchedStream) Read(b []byte) (int, error) {
	s.reset.Store(false)
	if s.stalled {
		return 0, os.ErrDeadlineExceeded
	}
	if s.frame.within() {
		now := time.Now()
		if !s.limited {
			s.begun, s.limited = now, true
		}
		until := now.Add(s.patience)
		if last := s.begun.Add(patiences * s.patience); last.Before(until) {
			until = last
		}
		_ = s.Stream.SetReadDeadline(until)
	} else if s.limited {
		s.limited = false
		_ = s.Stream.SetReadDeadline(time.Time{})
	}
	n, err := s.Stream.Read(b)
	s.frame.take(b[:n])
	s.heard = s.heard || n > 0
	if err != nil {
		s.broken = true
		if s.limited && app.TimedOut(err) {
			s.stalled = true
			s.meter.say(s.Conn().RemotePeer(), app.Stalled)
		}
	}
	return n, err
}

// Reset ends the stream.
func (s *watchedStream) Reset() error {
	s.reset.Store(true)
	return s.Stream.Reset()
}

// senseless is asked when whoever serves the stream is done with it: it has ended the stream by itself, after all that it could read. Another stream's coming
// ends this one as well, but from elsewhere, and is found out by the next read.
func (s *watchedStream) senseless() bool { return s.heard && !s.broken && s.reset.Load() }

// frameClock knows where in a sequence of frames a reader is.
type frameClock struct {
	left  uint64 // bytes of the body that are still to come
	size  uint64 // of a length that is not all there
	shift uint   // bits of it that are there
}

func (c *frameClock) within() bool { return c.left > 0 || c.shift > 0 }

func (c *frameClock) take(b []byte) {
	for len(b) > 0 {
		if c.left > 0 {
			n := min(c.left, uint64(len(b)))
			c.left -= n
			b = b[n:]
			continue
		}
		c.size |= uint64(b[0]&0x7f) << c.shift // a length of more than 64 bits is refused by whoever reads it
		c.shift += 7
		if b[0] < 0x80 || c.shift > 63 {
			c.left, c.size, c.shift = c.size, 0, 0
		}
		b = b[1:]
	}
}
