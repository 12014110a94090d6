package onion

import (
	"errors"
	"net"
	"sync"
	"time"
)

const (
	// corkDelay is how long a small write waits for others. Relays send what is less than a segment only once the one before it is acknowledged (Nagle's
	// algorithm, RFC 896), for which the next relay takes 40 ms (delayed acknowledgements, RFC 1122 section 4.2.3.2): two small writes one after the other take so much longer than both together.
	corkDelay = 500 * time.Microsecond
	// corkSize is how many bytes do not wait: five of tor's cells.
	corkSize = 5 * 498
)

// corked is a connection whose small writes go out together with those that come right after them. What fails in doing so is told by the next write.
type corked struct {
	net.Conn

	mu    sync.Mutex // held while the connection is written to
	buf   []byte
	timer *time.Timer // runs while buf waits
	err   error
}

func newCorked(c net.Conn) *corked {
	out := &corked{Conn: c}
	out.timer = time.AfterFunc(time.Hour, out.expire)
	out.timer.Stop()
	return out
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
			n, err := c.Conn.Write(b)
			c.err = err
			return n, err
		}
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
	_, c.err = c.Conn.Write(c.buf)
	if c.buf = c.buf[:0]; cap(c.buf) > 2*corkSize+64<<10 { // one large write must not stay
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
