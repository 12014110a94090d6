package pgtest

import (
	"bytes"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// socket is what libpq and its like look for in a directory.
const socket = ".s.PGSQL.5432"

// Proxy stands between a program and a server, and does to their connection what networks do.
type Proxy struct {
	// Dir has its socket: host=DIR in a URL.
	Dir    string
	server string
	listen net.Listener

	mu     sync.Mutex
	conns  map[net.Conn]struct{}
	lose   []byte // the answer to the next bytes that hold this is lost, with the connection
	held   chan struct{}
	last   []byte // the next bytes that hold this are the last that pass
	losses int
}

// NewProxy starts one; it ends with the test.
func (s *Server) NewProxy(t testing.TB) *Proxy {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "pgx-")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{Dir: dir, server: filepath.Join(s.Dir, socket), conns: make(map[net.Conn]struct{})}
	if p.listen, err = net.Listen("unix", filepath.Join(dir, socket)); err != nil {
		t.Fatal(err)
	}
	go p.accept()
	t.Cleanup(func() {
		p.listen.Close()
		p.Resume()
		p.Cut()
		os.RemoveAll(dir)
	})
	return p
}

func (p *Proxy) accept() {
	for {
		c, err := p.listen.Accept()
		if err != nil {
			return
		}
		go p.carry(c)
	}
}

func (p *Proxy) carry(c net.Conn) {
	defer c.Close()
	s, err := net.Dial("unix", p.server)
	if err != nil {
		return
	}
	defer s.Close()
	p.mu.Lock()
	p.conns[c], p.conns[s] = struct{}{}, struct{}{}
	p.mu.Unlock()
	lost := make(chan struct{}, 1)
	ended := make(chan struct{}, 2)
	go func() { // to the server
		p.copy(s, c, func(b []byte) {
			p.mu.Lock()
			defer p.mu.Unlock()
			if p.lose != nil && bytes.Contains(b, p.lose) {
				p.lose = nil
				lost <- struct{}{}
			}
			if p.last != nil && bytes.Contains(b, p.last) {
				p.last = nil
				p.hold()
			}
		})
		ended <- struct{}{}
	}()
	go func() { // from the server
		p.copy(c, s, func([]byte) {
			select {
			case <-lost:
				p.mu.Lock()
				p.losses++
				p.mu.Unlock()
				c.Close()
			default:
			}
		})
		ended <- struct{}{}
	}()
	<-ended
	p.mu.Lock()
	delete(p.conns, c)
	delete(p.conns, s)
	p.mu.Unlock()
}

func (p *Proxy) copy(to, from net.Conn, see func([]byte)) {
	b := make([]byte, 64<<10)
	for {
		n, err := from.Read(b)
		if n > 0 {
			p.wait()
			see(b[:n])
			if _, err := to.Write(b[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func (p *Proxy) wait() {
	p.mu.Lock()
	held := p.held
	p.mu.Unlock()
	if held != nil {
		<-held
	}
}

// Pause keeps every byte, without an end of any connection, until Resume.
func (p *Proxy) Pause() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hold()
}

func (p *Proxy) hold() {
	if p.held == nil {
		p.held = make(chan struct{})
	}
}

// PauseAfter passes the next message that holds text on to the server, and pauses then: its answer does not come.
func (p *Proxy) PauseAfter(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last = []byte(text)
}

// Resume lets everything go on.
func (p *Proxy) Resume() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.held != nil {
		close(p.held)
		p.held = nil
	}
}

// Cut ends all connections.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		c.Close()
	}
}

// LoseAnswer passes the next message that holds text on to the server, and ends the connection when the answer comes.
func (p *Proxy) LoseAnswer(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lose = []byte(text)
}

// Losses is how many answers were lost.
func (p *Proxy) Losses() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.losses
}
