package onion

import (
	"context"
	"crypto/rand"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/transport"
	ma "github.com/multiformats/go-multiaddr"
)

// beside is after how long without a connection a dial is tried once more, by circuits of its own, beside what is under way. A dial that takes so long most often waits for
// a circuit part of which has died with somebody's tor, and tor gives it up after two minutes; where it is the way that is slow, the first may still be the one that gets there.
// That makes three tries at most, so that who is dialled in vain costs three circuits and no more.
var beside = [...]time.Duration{15 * time.Second, 30 * time.Second}

// Dial connects to a peer, which takes seconds. The address must be the peer's own, see Address. It blocks until a connection stands, all tries have failed, or ctx ends.
func (t *Transport) Dial(ctx context.Context, a ma.Multiaddr, p peer.ID) (transport.CapableConn, error) {
	if !IsAddressOf(a, p) {
		return nil, ErrNotOnion
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // the other tries
	type outcome struct {
		conn transport.CapableConn
		err  error
	}
	outcomes := make(chan outcome)
	try := func() {
		c, err := t.try(ctx, a, p)
		select {
		case outcomes <- outcome{c, err}:
		case <-ctx.Done():
			if c != nil {
				_ = c.Close() // another was first
			}
		}
	}
	go try()
	next := time.NewTimer(beside[0])
	defer next.Stop()
	for tries, left := 1, 1; ; {
		select {
		case o := <-outcomes:
			if left--; o.err == nil || left == 0 { // who calls waits before the next dial: a failure that comes at once is not for here
				return o.conn, o.err
			}
		case <-next.C:
			go try()
			left++
			if tries++; tries <= len(beside) {
				next.Reset(beside[tries-1])
			}
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// try is one dial, and what has to be agreed on before a connection is one.
func (t *Transport) try(ctx context.Context, a ma.Multiaddr, p peer.ID) (transport.CapableConn, error) {
	scope, err := t.rm.OpenConnection(network.DirOutbound, true, a)
	if err != nil {
		return nil, err
	}
	c, err := t.dial(ctx, a, p, scope)
	if err != nil {
		scope.Done()
		return nil, err
	}
	return c, nil
}

func (t *Transport) dial(ctx context.Context, a ma.Multiaddr, p peer.ID, scope network.ConnManagementScope) (transport.CapableConn, error) {
	if err := scope.SetPeer(p); err != nil {
		return nil, err
	}
	select {
	case t.dials <- struct{}{}:
		defer func() { <-t.dials }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	id, _, err := split(a)
	if err != nil {
		return nil, err
	}
	if t.cfg.Authorize != nil {
		if err := t.cfg.Authorize(ctx, id); err != nil {
			return nil, err
		}
	}
	c, err := t.cfg.connect(ctx, rand.Text(), id)
	if err != nil {
		return nil, err
	}
	up, err := t.upgrade(ctx, conn{newCorked(c), marker, a}, p, scope)
	if err == nil {
		return up, nil
	}
	_ = c.Close()
	// A handshake has the context's deadline, too, and may be the first to see it pass.
	if d, ok := ctx.Deadline(); ok && !time.Now().Before(d) {
		return nil, context.DeadlineExceeded
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if a, ok := c.(*asked); ok && a.answered() != nil { // tor's own word on it, in place of where its silence was met
		return nil, a.answered()
	}
	return nil, err
}
