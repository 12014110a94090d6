package libp2p

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	"github.com/shallot-net/shallot/broker/internal/adapter/onion"
	"github.com/shallot-net/shallot/broker/internal/app"
	"github.com/shallot-net/shallot/broker/internal/oniontest"
)

// hastyHost is an anonymous host whose limits of time are short.
func hastyHost(t *testing.T, tor *oniontest.Tor, service bool, limit time.Duration) *Host {
	t.Helper()
	n, err := NewNetwork(Config{Onion: &Onion{SOCKS: tor.SOCKS, Dir: privateDir(t), Service: service, Services: tor}})
	if err != nil {
		t.Fatal(err)
	}
	n.profile.dialTimeout, n.profile.acceptTimeout = limit, limit
	return opened(t, n, nil)
}

// A dial that nobody answers ends when the mode's time for it is over, however long its caller would wait.
func TestSilentDialsEnd(t *testing.T) {
	t.Parallel()
	tor := oniontest.New(t)
	provider, consumer := anonymousHost(t, tor, true, nil), hastyHost(t, tor, false, time.Second)
	tor.Answer(provider.inbound.serviceID, oniontest.Silent)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	at, _ := onion.Address(provider.host.ID())
	_, err := consumer.Connect(ctx, app.Target{Peer: provider.ID(), Addresses: []string{at.String()}})
	if err == nil || ctx.Err() != nil {
		t.Errorf("it ended with %v, its caller's time with %v", err, ctx.Err())
	}
}

// Many who begin a handshake and do not end it are hung up on when their time is over. Until then an honest peer is let in all the same.
func TestHalfHandshakesEnd(t *testing.T) {
	t.Parallel()
	tor := oniontest.New(t)
	provider := hastyHost(t, tor, true, 4*time.Second)
	var halves sync.WaitGroup
	for range 24 {
		c, err := net.Dial("unix", provider.inbound.socket)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Write([]byte("\x13/multistream/1.0.0\n\x07/noise\n\x00")); err != nil {
			t.Error(err)
		}
		halves.Go(func() {
			_ = c.SetReadDeadline(time.Now().Add(patience))
			var late net.Error
			if _, err := io.Copy(io.Discard, c); errors.As(err, &late) && late.Timeout() {
				t.Error("half a handshake was not hung up on")
			}
		})
	}
	connect(t, anonymousHost(t, tor, false, nil), provider)
	halves.Wait()
	eventually(t, "one connection stands", func() bool { return len(provider.host.Network().Conns()) == 1 })
}

// A connection that dies in the middle of a stream ends the stream at both ends, and the next one goes by another connection, with circuits of its own.
func TestACutStreamIsNoEnd(t *testing.T) {
	t.Parallel()
	tor := oniontest.New(t)
	begun, ends := make(chan struct{}, 2), make(chan error, 2)
	provider := anonymousHost(t, tor, true, func(h *app.Handlers) {
		h.Stream = func(_ string, s app.Stream) {
			_, err := io.ReadFull(s, make([]byte, 1))
			begun <- struct{}{}
			if err == nil {
				_, err = io.Copy(io.Discard, s)
			}
			ends <- err
			_ = s.Close()
		}
	})
	consumer := anonymousHost(t, tor, false, nil)
	connect(t, consumer, provider)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	s, err := consumer.OpenStream(ctx, provider.ID())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Write(make([]byte, 1<<16)); err != nil {
		t.Fatal(err)
	}
	<-begun
	tor.Cut()
	if err := <-ends; err == nil {
		t.Error("what was cut off looks like a whole stream")
	}
	eventually(t, "the consumer notices", func() bool { return consumer.host.Network().Connectedness(provider.host.ID()) != network.Connected })
	if s, err = consumer.OpenStream(ctx, provider.ID()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Write([]byte("again")); err != nil {
		t.Error(err)
	}
	_ = s.Close()
	if err := <-ends; err != nil {
		t.Errorf("the second stream: %v", err)
	}
	if d := tor.Dials(); len(d) != 2 || d[0].Token == d[1].Token {
		t.Errorf("the dials are %+v", d)
	}
}
