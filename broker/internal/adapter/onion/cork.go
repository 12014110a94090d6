package onion

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// corkDelay is how long a small write waits for others. Relays send what is less than a segment only once the one before it is acknowledged (Nagle's
	// algorithm, RFC 896), for which the next relay takes 40 ms (delayed acknowledgements, RFC 1122 section 4.2.3.2): two small writes one after the other take so much longer than both together.
	corkDelay = 500 * time.Microsecond
	// corkSize is how many bytes do not wait. An event of some cells is a small write, too, with an acknowledgement after it.
	corkSize = 16 << 10
	// headerSize is that of a message of yamux without data, in a message of Noise: 12 bytes, and 18 of Noise's. It says that a stream begins or ends or has room again, which can wait
	// for something to go with: for holdDelay at most, and not at all while much comes in, because the other side may stop for it.
	headerSize = 12 + 18
	holdDelay  = 60 * time.Millisecond
	muchRead   = 32 << 10
)

// corked is a connection whose small writes go out together with those that come right after them. What fails in doing so is told by the next write.
type corked struct {
	net.Conn

	read atomic.Int64 // bytes since the last write

	mu    sync.Mutex // held while the connection is written to
	buf   []byte
	held  bool        // all that waits are headers
	timer *time.Timer // runs while buf waits
	err   error
}

func newCorked(c net.Conn) *corked {
	out := &corked{Conn: c}
	out.timer = time.AfterFunc(time.Hour, out.expire)
	out.timer.Stop()
	return out
}

// Read counts what comes.
func (c *corked) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.read.Add(int64(n))
	return n, err
}

// Write keeps b, or writes all that is kept.
func (c *corked) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return 0, c.err
	}
	if len(c.buf) == 0 {
		if len(b) >= corkSize {
			c.read.Store(0)
			n, err := c.Conn.Write(b)
			c.err = err
			return n, err
		}
		c.held = true
	}
	switch header := len(b) == headerSize && c.read.Load() < muchRead; {
	case header && len(c.buf) == 0:
		c.timer.Reset(holdDelay)
	case !header && c.held:
		c.held = false
		c.timer.Reset(corkDelay)
	}
	if c.buf = append(c.buf, b...); len(c.buf) < corkSize {
		return len(b), nil
	}
	if err := c.flush(); err != nil {
		return 0, err
	}
	return len(b), nil
}

func (c *corked) expire() {
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = c.flush()
}

// flush writes what is kept; c.mu is held.
func (c *corked) flush() error {
	c.timer.Stop()
	if len(c.buf) == 0 || c.err != nil {
		return c.err
	}
	c.read.Store(0)
	_, c.err = c.Conn.Write(c.buf)
	if c.buf = c.buf[:0]; cap(c.buf) > corkSize+64<<10 { // one large write must not stay
		c.buf = nil
	}
	return c.err
}

// CloseWrite says that nothing comes any more, after what is kept.
func (c *corked) CloseWrite() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	err := c.flush()
	if u, ok := c.Conn.(*net.UnixConn); ok {
		err = errors.Join(err, u.CloseWrite())
	}
	return err
}

// Close writes what is kept, unless a write is under way that does not get on, and hangs up.
func (c *corked) Close() error {
	if c.mu.TryLock() {
		_ = c.Conn.SetWriteDeadline(time.Now().Add(corkDelay))
		_ = c.flush()
		if c.err == nil {
			c.err = net.ErrClosed
		}
		c.mu.Unlock()
	}
	return c.Conn.Close()
}
