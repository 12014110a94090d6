package libp2p

import (
	"errors"
	"net"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	impl "github.com/libp2p/go-yamux/v5"

	"github.com/shallot-net/shallot/broker/internal/app"
)

// muxed is a stream of the multiplexer alone.
type muxed struct {
	network.Stream
	inner network.MuxedStream
}

func (m muxed) Read(b []byte) (int, error)  { return m.inner.Read(b) }
func (m muxed) Write(b []byte) (int, error) { return m.inner.Write(b) }

// unread opens a stream on a connection whose other end reads nothing at all, as after a cable was pulled.
func unread(t *testing.T) (deadlined, network.MuxedStream) {
	t.Helper()
	near, far := net.Pipe()
	t.Cleanup(func() { _ = far.Close() })
	cfg := *yamux.DefaultTransport
	cfg.ConnectionWriteTimeout, cfg.EnableKeepAlive = 300*time.Millisecond, false
	session, err := impl.Client(near, cfg.Config(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = session.Close() })
	conn := yamux.NewMuxedConn(session)
	s, err := conn.OpenStream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return deadlined{muxed{inner: s}}, s
}

// A connection that dies is nobody's delay, although the multiplexer says so.
func TestADeadConnectionIsNoDeadline(t *testing.T) {
	s, raw := unread(t)
	_ = raw.SetWriteDeadline(time.Now().Add(patience))
	var err error
	for err == nil {
		_, err = s.Write([]byte{1}) // small ones wait for the connection before they fill the stream's window
	}
	var timeout net.Error
	if !errors.Is(err, impl.ErrConnectionWriteTimeout) || !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Fatalf("not the error that this is about: %v", err)
	}
	if app.TimedOut(err) {
		t.Errorf("%v counts as a deadline", err)
	}
}

func TestADeadlineIsOne(t *testing.T) {
	s, raw := unread(t)
	_ = raw.SetReadDeadline(time.Now())
	if _, err := s.Read(make([]byte, 1)); !app.TimedOut(err) {
		t.Errorf("a read: %v", err)
	}
	_ = raw.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
	var err error
	for err == nil {
		_, err = s.Write([]byte{1})
	}
	if !app.TimedOut(err) {
		t.Errorf("a write: %v", err)
	}
}
