package onion

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// What tor says of a dial that failed, beyond what SOCKS knows (tor's socks-extensions, proposal 304: ExtendedErrors).
var (
	ErrOffline     = errors.New("tor does not answer")
	ErrNoService   = errors.New("no such onion service is known now")
	ErrUnreachable = errors.New("the onion service does not answer")
	ErrForbidden   = errors.New("the onion service is not open to this node")
)

var replies = map[byte]error{
	0x01: fmt.Errorf("%w: tor failed", ErrUnreachable),
	0x02: errors.New("tor's configuration does not allow it"),
	0x03: fmt.Errorf("%w: no route", ErrUnreachable),
	0x04: fmt.Errorf("%w: no host", ErrUnreachable),
	0x05: fmt.Errorf("%w: it refuses", ErrUnreachable),
	0x06: fmt.Errorf("%w: it took too long", ErrUnreachable),
	0xf0: ErrNoService,
	0xf1: fmt.Errorf("%w: what it published is broken", ErrUnreachable),
	0xf2: fmt.Errorf("%w: it could not be introduced to", ErrUnreachable),
	0xf3: fmt.Errorf("%w: it did not come to the rendezvous", ErrUnreachable),
	0xf4: fmt.Errorf("%w: it asks for a key", ErrForbidden),
	0xf5: fmt.Errorf("%w: the key is wrong", ErrForbidden),
	0xf6: errors.New("no onion address"),
	0xf7: fmt.Errorf("%w: the introduction took too long", ErrUnreachable),
}

const (
	socksVersion = 5
	passwordAuth = 2
	authVersion  = 1
	connect      = 1
	domain       = 3
	localTimeout = 10 * time.Second // for what tor answers by itself, without the network
)

// dialSOCKS connects to an onion service through tor's SOCKS socket. Connections with different tokens never share a circuit. It returns once the service is connected, which
// takes seconds.
func dialSOCKS(ctx context.Context, socket, token, serviceID string, port uint16) (net.Conn, error) {
	c, err := askSOCKS(ctx, socket, token, serviceID, port)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	if err = c.answered(); !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		c.Close()
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, err
	}
	return c, nil
}

// asked is a connection that tor was asked for and may not have yet. What is written meanwhile goes with the request to the service, which saves a round trip; reading waits
// for tor's answer.
type asked struct {
	net.Conn
	once sync.Once
	err  error
}

// answered waits for tor's answer, and says why there is no connection.
func (a *asked) answered() error {
	a.once.Do(func() { a.err = answer(a.Conn) })
	return a.err
}

func (a *asked) Read(b []byte) (int, error) {
	if err := a.answered(); err != nil {
		return 0, err
	}
	return a.Conn.Read(b)
}

// askSOCKS asks tor for a connection and does not wait for the answer.
func askSOCKS(ctx context.Context, socket, token, serviceID string, port uint16) (_ *asked, err error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, ErrOffline // the error names the socket's path
	}
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer func() {
		if !stop() && err == nil {
			err = ctx.Err()
		}
		if err != nil {
			c.Close()
			if ctx.Err() != nil {
				err = ctx.Err()
			}
			return
		}
		err = c.SetDeadline(time.Time{})
	}()
	_ = c.SetDeadline(time.Now().Add(localTimeout))
	if err := greet(c, token); err != nil {
		return nil, err
	}
	host := serviceID + ".onion"
	request := append([]byte{socksVersion, connect, 0, domain, byte(len(host))}, host...)
	if _, err := c.Write(append(request, byte(port>>8), byte(port))); err != nil {
		return nil, ErrOffline
	}
	return &asked{Conn: c}, nil
}

// greet agrees on a name and a password, which tor takes for what to keep apart. It is done in steps: tor loses the answer when all is written at once.
func greet(c net.Conn, token string) error {
	if _, err := c.Write([]byte{socksVersion, 1, passwordAuth}); err != nil {
		return ErrOffline
	}
	var got [2]byte
	if _, err := io.ReadFull(c, got[:]); err != nil {
		return ErrOffline
	}
	if got != [2]byte{socksVersion, passwordAuth} {
		return errors.New("what answers is no SOCKS socket of tor that keeps circuits apart (IsolateSOCKSAuth)")
	}
	auth := append([]byte{authVersion, byte(len(token))}, token...)
	if _, err := c.Write(append(auth, 1, '0')); err != nil {
		return ErrOffline
	}
	if _, err := io.ReadFull(c, got[:]); err != nil || got[1] != 0 {
		return ErrOffline
	}
	return nil
}

func answer(c net.Conn) error {
	var head [4]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return ErrOffline
	}
	if head[0] != socksVersion {
		return errors.New("what answers is no SOCKS socket")
	}
	if head[1] != 0 {
		if err, ok := replies[head[1]]; ok {
			return err
		}
		return fmt.Errorf("%w: tor's code is %#x", ErrUnreachable, head[1])
	}
	// The address from where tor has dialled follows, which it does not tell: zeros, in whatever form.
	var rest [256 + 2]byte
	var n int
	switch head[3] {
	case 1:
		n = net.IPv4len
	case 4:
		n = net.IPv6len
	case domain:
		if _, err := io.ReadFull(c, rest[:1]); err != nil {
			return ErrOffline
		}
		n = int(rest[0])
	default:
		return errors.New("what answers is no SOCKS socket")
	}
	if _, err := io.ReadFull(c, rest[:n+2]); err != nil {
		return ErrOffline
	}
	return nil
}

// Probe dials an onion service as a stranger would, and hangs up. It blocks for seconds.
func Probe(ctx context.Context, socket, serviceID string) error {
	c, err := dialSOCKS(ctx, socket, rand.Text(), serviceID, Port) // a token of its own: what circuit there is already proves nothing
	if err != nil {
		return err
	}
	return c.Close()
}
