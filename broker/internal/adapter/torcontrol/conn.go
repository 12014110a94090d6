// Package torcontrol speaks tor's control protocol, over two connections: one for commands, one for what tor tells by itself. The connection, its
// authentication and the form of keys are bine's; its events, its services and its way of starting tor are not used.
package torcontrol

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/textproto"
	"os"
	"syscall"
	"time"

	"github.com/cretz/bine/control"

	"github.com/shallot-net/shallot/broker/internal/app/onions"
)

const (
	patience = 30 * time.Second // for one answer: a tor with many services on a busy machine was seen to take more than ten seconds; one that dies closes the connection
	maxReply = 256 << 10        // bytes of one: the ids of 4,000 services
)

// conn is a connection whose every exchange has a time limit and a number of bytes.
type conn struct {
	*control.Conn // without a DebugWriter: keys would be written to it
	text          *textproto.Conn
	raw           *bounded
	socket        string
}

// bounded ends a connection on which the other side says more than was asked for. Only one goroutine reads.
type bounded struct {
	net.Conn
	left int // bytes until the next allow; negative: no limit
}

var errTooMuch = errors.New("more than an answer may have")

func (b *bounded) Read(p []byte) (int, error) {
	if b.left < 0 {
		return b.Conn.Read(p)
	}
	if b.left == 0 {
		return 0, errTooMuch
	}
	n, err := b.Conn.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

// dial connects; nothing is said yet.
func (t *Tor) dial(ctx context.Context) (*conn, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	c, err := t.cfg.Dial(ctx)
	if err != nil {
		return nil, t.dialTrouble(err)
	}
	b := &bounded{Conn: c}
	text := textproto.NewConn(b)
	return &conn{Conn: control.NewConn(text), text: text, raw: b, socket: t.cfg.Socket}, nil
}

func (t *Tor) dialTrouble(err error) error {
	info, statErr := os.Stat(t.cfg.Socket)
	switch {
	case errors.Is(statErr, fs.ErrNotExist):
		return unreachable("there is no control socket %s: is tor running, with ControlPort unix:%[1]s in its torrc?", t.cfg.Socket)
	case statErr == nil && info.Mode()&fs.ModeSocket == 0:
		return unreachable("%s is no socket: give the path of tor's control socket with --control unix:PATH, as its torrc has it", t.cfg.Socket)
	case errors.Is(err, fs.ErrPermission) || errors.Is(statErr, fs.ErrPermission):
		return unreachable("this user may not use the control socket %s: put it into the group that may (debian-tor where Debian's tor is used), or have its own tor", t.cfg.Socket)
	case errors.Is(err, syscall.ECONNREFUSED):
		return unreachable("nobody answers on the control socket %s: is tor running?", t.cfg.Socket)
	}
	return unreachable("the control socket %s cannot be connected to", t.cfg.Socket)
}

// ask is one exchange. What tor answers in words is in no error: keys and addresses may be in it.
func (c *conn) ask(ctx context.Context, do func() error) error {
	c.raw.left = maxReply
	_ = c.raw.SetDeadline(time.Now().Add(patience)) // what fails here fails below
	stop := context.AfterFunc(ctx, func() { _ = c.raw.SetDeadline(time.Unix(1, 0)) })
	err := do()
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	return c.wrong(err)
}

// send is ask with one line.
func (c *conn) send(ctx context.Context, format string, args ...any) (*control.Response, error) {
	var r *control.Response
	err := c.ask(ctx, func() (err error) {
		r, err = c.SendRequest(format, args...)
		return err
	})
	return r, err
}

// wrong turns what a connection can give into what the keeper knows: a *onions.Rejected for an answer that is a no, else a *onions.Trouble.
func (c *conn) wrong(err error) error {
	var no *textproto.Error
	var notTor textproto.ProtocolError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &no):
		return &onions.Rejected{Code: no.Code}
	case errors.As(err, &notTor), errors.Is(err, errTooMuch):
		return refused("what answers at %s does not speak as tor's control port does: give the path of tor's control socket with --control unix:PATH", c.socket)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return unreachable("nothing answers at %s within %s: tor hangs, or this is not its control socket", c.socket, patience)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, io.ErrClosedPipe), errors.Is(err, net.ErrClosed):
		return unreachable("tor closed its control connection at %s: it has stopped, or it restarts", c.socket)
	}
	return unreachable("the connection to %s broke", c.socket)
}

func (c *conn) close() { _ = c.raw.Close() }
