package rpc

import (
	"net"
	"slices"
	"sync"

	"google.golang.org/grpc/credentials"
)

// maxHandshakes is how many connections may be without a certificate that was checked, at once. Each takes up to 64 KiB and a goroutine for ten seconds at most, so whoever can reach the port
// and has no certificate can have 16 MiB of a process and no more. The processes of a node open some dozens at once when all of them start.
const maxHandshakes = 256

// handshakes are the connections that were accepted and whose callers are not known yet. When there are too many the oldest has to go: a caller's handshake takes milliseconds, so it is
// one that says nothing, and who fills the place keeps nobody else out.
type handshakes struct {
	mu    sync.Mutex
	conns []net.Conn // the oldest first
}

func (h *handshakes) begin(c net.Conn) {
	h.mu.Lock()
	var oldest net.Conn
	if len(h.conns) >= maxHandshakes {
		oldest = h.conns[0]
		h.conns = slices.Delete(h.conns, 0, 1)
	}
	h.conns = append(h.conns, c)
	h.mu.Unlock()
	if oldest != nil {
		_ = oldest.Close() // its handshake ends with that
	}
}

func (h *handshakes) end(c net.Conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if i := slices.Index(h.conns, c); i >= 0 {
		h.conns = slices.Delete(h.conns, i, i+1)
	}
}

// counted is a listener whose connections begin their handshake when they are accepted.
type counted struct {
	net.Listener
	h *handshakes
}

func (l counted) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.h.begin(c)
	}
	return c, err
}

// proving are credentials of a server that end it.
type proving struct {
	credentials.TransportCredentials
	h *handshakes
}

func (p proving) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	defer p.h.end(c)
	return p.TransportCredentials.ServerHandshake(c)
}

func (p proving) Clone() credentials.TransportCredentials {
	return proving{p.TransportCredentials.Clone(), p.h}
}
