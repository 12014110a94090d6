package onion

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/libp2p/go-libp2p/core/transport"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/net/upgrader"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
)

// limit is how long the swarm gives a dial.
const limit = 90 * time.Second

// slow is a tor whose circuits take time, and a peer behind it, in virtual time.
type slow struct {
	*Transport
	id     peer.ID
	server transport.Upgrader

	mu     sync.Mutex
	tokens []string
	at     []time.Duration // of the tries, from the beginning
	open   int             // connections that the peer has
	begun  time.Time
	// circuit is what becomes of a try, by its number: it is waited for, and then answered by the peer.
	circuit func(ctx context.Context, try int, far net.Conn) error
}

func layersOf(t *testing.T, key crypto.PrivKey) Layers {
	t.Helper()
	muxers := []upgrader.StreamMuxer{{ID: yamux.ID, Muxer: yamux.DefaultTransport}}
	secure, err := noise.New(noise.ID, key, muxers)
	if err != nil {
		t.Fatal(err)
	}
	u, err := upgrader.New([]sec.SecureTransport{secure}, muxers, nil, nil, nil, upgrader.WithAcceptTimeout(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	return Layers{Security: secure, Muxer: muxers[0], Upgrader: u}
}

func newSlow(t *testing.T, circuit func(*slow, context.Context, int, net.Conn) error) *slow {
	t.Helper()
	key, id := newPeer(t)
	own, self := newPeer(t)
	s := &slow{id: id, server: layersOf(t, key).Upgrader, begun: time.Now()}
	s.circuit = func(ctx context.Context, try int, far net.Conn) error { return circuit(s, ctx, try, far) }
	s.Transport = NewTransport(Config{Self: self, connect: s.connect}, layersOf(t, own), &network.NullResourceManager{})
	return s
}

func (s *slow) connect(ctx context.Context, token, _ string) (net.Conn, error) {
	s.mu.Lock()
	s.tokens, s.at = append(s.tokens, token), append(s.at, time.Since(s.begun))
	try := len(s.tokens)
	s.mu.Unlock()
	near, far := net.Pipe()
	if err := s.circuit(ctx, try, far); err != nil {
		_ = far.Close()
		return nil, err
	}
	s.opened(1)
	return &counted{Conn: near, closed: func() { s.opened(-1) }}, nil
}

func (s *slow) opened(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open += n
}

// counted is a connection whose end is heard of.
type counted struct {
	net.Conn
	once   sync.Once
	closed func()
}

func (c *counted) Close() error {
	c.once.Do(c.closed)
	return c.Conn.Close()
}

// answers is the peer as it should be.
func (s *slow) answers(far net.Conn) {
	go func() {
		c, err := s.server.Upgrade(context.Background(), s.Transport, conn{newCorked(far), marker, marker}, network.DirInbound, "", &network.NullScope{})
		if err == nil {
			_, _ = c.AcceptStream() // until it is closed
			_ = c.Close()
		}
	}()
}

// after waits for a circuit.
func after(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// later is a circuit that takes time.
func (s *slow) later(ctx context.Context, d time.Duration, far net.Conn) error {
	err := after(ctx, d)
	if err == nil {
		s.answers(far)
	}
	return err
}

// dialled dials with the swarm's limit and returns how long that took. Nothing may be left but the connection that was asked for.
func (s *slow) dialled(t *testing.T) (took time.Duration, err error) {
	t.Helper()
	at, err := Address(s.id)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	begin := time.Now()
	c, err := s.Dial(ctx, at, s.id)
	took = time.Since(begin).Round(10 * time.Millisecond) // what is small is written a moment later, see corked
	synctest.Wait()
	want := 0
	if err == nil {
		want = 1
	}
	if s.open != want {
		t.Errorf("%d connections are open, want %d", s.open, want)
	}
	seen := map[string]bool{}
	for _, token := range s.tokens {
		if seen[token] {
			t.Error("two tries share their circuits")
		}
		seen[token] = true
	}
	if err == nil {
		if got := c.RemotePeer(); got != s.id {
			t.Errorf("it is connected to %s", got)
		}
		_ = c.Close()
		synctest.Wait()
	}
	return took, err
}

// What a peer or the way to it may do to a dial, and when that ends.
func TestDialsEnd(t *testing.T) {
	for name, test := range map[string]struct {
		circuit func(s *slow, ctx context.Context, try int, far net.Conn) error
		took    time.Duration
		tries   int
		err     error
	}{
		"it answers at once": {func(s *slow, ctx context.Context, _ int, far net.Conn) error {
			return s.later(ctx, time.Second, far)
		}, time.Second, 1, nil},
		"the first circuit is dead": {func(s *slow, ctx context.Context, try int, far net.Conn) error {
			if try == 1 {
				return after(ctx, time.Hour)
			}
			return s.later(ctx, time.Second, far)
		}, 16 * time.Second, 2, nil},
		"two circuits are dead": {func(s *slow, ctx context.Context, try int, far net.Conn) error {
			if try < 3 {
				return after(ctx, time.Hour)
			}
			return s.later(ctx, time.Second, far)
		}, 46 * time.Second, 3, nil},
		"it answers after a minute": {func(s *slow, ctx context.Context, _ int, far net.Conn) error {
			return s.later(ctx, time.Minute, far)
		}, time.Minute, 3, nil},
		"it answers after five minutes": {func(s *slow, ctx context.Context, _ int, far net.Conn) error {
			return s.later(ctx, 5*time.Minute, far)
		}, limit, 3, context.DeadlineExceeded},
		"half a handshake": {func(_ *slow, _ context.Context, _ int, far net.Conn) error {
			go func() {
				_, _ = far.Write([]byte("\x13/multistream/1.0.0\n\x07/noi"))
				_, _ = io.Copy(io.Discard, far)
			}()
			return nil
		}, limit, 3, context.DeadlineExceeded},
		"half a handshake, and then a whole one": {func(s *slow, _ context.Context, try int, far net.Conn) error {
			if try == 1 {
				go func() { _, _ = io.Copy(io.Discard, far) }()
				return nil
			}
			s.answers(far)
			return nil
		}, 15 * time.Second, 2, nil},
		"nobody is there": {func(_ *slow, ctx context.Context, _ int, _ net.Conn) error {
			if err := after(ctx, 2*time.Second); err != nil {
				return err
			}
			return ErrNoService
		}, 2 * time.Second, 1, ErrNoService},
		"the second try fails, the first one gets there": {func(s *slow, ctx context.Context, try int, far net.Conn) error {
			if try > 1 {
				return ErrUnreachable
			}
			return s.later(ctx, 20*time.Second, far)
		}, 20 * time.Second, 2, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSlow(t, test.circuit)
				took, err := s.dialled(t)
				if !errors.Is(err, test.err) || test.err == nil && err != nil {
					t.Errorf("%v, want %v", err, test.err)
				}
				if took != test.took {
					t.Errorf("it took %v, want %v", took, test.took)
				}
				if len(s.at) != test.tries {
					t.Errorf("it was tried at %v", s.at)
				}
			})
		})
	}
}

// pipes is a listener of what a test brings.
type pipes struct {
	conns chan net.Conn
	once  sync.Once
	ended chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.ended:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.ended) })
	return nil
}

func (p *pipes) Addr() net.Addr { return addr("onion") }

// Who dials this node and stops in the middle is hung up on when his time is over, and keeps nobody else out.
func TestHalfAHandshakeHoldsNobodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key, id := newPeer(t)
		up := layersOf(t, key).Upgrader
		in := &pipes{conns: make(chan net.Conn), ended: make(chan struct{})}
		tr := NewTransport(Config{Self: id}, Layers{Upgrader: up}, &network.NullResourceManager{})
		l := up.UpgradeGatedMaListener(tr, up.GateMaListener(&listener{in, marker}))
		defer l.Close()
		begin := time.Now()
		var hungUp sync.WaitGroup
		for _, said := range []string{"", "\x13/multi", "\x13/multistream/1.0.0\n", "\x13/multistream/1.0.0\n\x07/noise\n\x00"} {
			near, far := net.Pipe()
			in.conns <- far
			hungUp.Go(func() {
				if said != "" { // a pipe would hand over nothing as a read of nothing
					_, _ = near.Write([]byte(said))
				}
				_, _ = io.Copy(io.Discard, near)
				if took := time.Since(begin); took != time.Minute {
					t.Errorf("who said %q was hung up on after %v", said, took)
				}
			})
		}
		other, _ := newPeer(t)
		near, far := net.Pipe()
		in.conns <- far
		go func() {
			c, err := layersOf(t, other).Upgrader.Upgrade(context.Background(), tr, conn{newCorked(near), marker, marker}, network.DirOutbound, id, &network.NullScope{})
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = c.AcceptStream()
			_ = c.Close()
		}()
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begin); took > time.Second {
			t.Errorf("an honest peer waited for %v", took)
		}
		hungUp.Wait()
		_ = c.Close()
	})
}
