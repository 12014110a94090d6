package rpc

import (
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc/credentials"
)

// silent are connections that say nothing.
type silent struct{ net.Listener }

func (silent) Accept() (net.Conn, error) {
	a, b := net.Pipe()
	return pipe{a, b}, nil
}

type pipe struct {
	net.Conn
	other net.Conn
}

func (p pipe) open(t *testing.T) bool {
	t.Helper()
	_ = p.other.SetReadDeadline(time.Now()) // of a pipe that is closed it fails
	_, err := p.other.Read(make([]byte, 1))
	return !errors.Is(err, io.EOF)
}

// Of more connections than may be without a certificate the oldest go, and those that have shown one stay.
func TestHandshakesAreBounded(t *testing.T) {
	h := &handshakes{}
	l := counted{silent{}, h}
	accept := func() pipe {
		t.Helper()
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		return c.(pipe)
	}
	known := accept()
	if _, _, err := (proving{taking{}, h}).ServerHandshake(known); err != nil {
		t.Fatal(err)
	}
	var all []pipe
	for range maxHandshakes + 3 {
		all = append(all, accept())
	}
	for i, p := range all {
		if open := p.open(t); open != (i >= 3) {
			t.Fatalf("connection %d of %d is open: %v", i, len(all), open)
		}
	}
	if !known.open(t) {
		t.Error("one that had shown its certificate had to go")
	}
	for _, p := range all {
		h.end(p)
	}
	if len(h.conns) != 0 {
		t.Errorf("%d are left", len(h.conns))
	}
}

// taking are credentials that take everybody.
type taking struct {
	credentials.TransportCredentials
}

func (taking) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) { return c, nil, nil }
