// Package oniontest stands in for tor where no Tor is wanted: its SOCKS socket, which brings who asks to the sockets of the services that are kept.
package oniontest

import (
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// Reply is tor's answer to a dial, beside that it stands.
type Reply byte

// Replies of tor's (proposal 304).
const (
	NoService Reply = 0xf0
	Forbidden Reply = 0xf4
	Silent    Reply = 1 // no answer at all
)

// Tor is the stand-in. It is safe for concurrent use.
type Tor struct {
	SOCKS string // the path of its socket
	Dir   string // for the sockets of services

	mu       sync.Mutex
	services map[string]string // sockets by service id
	replies  map[string]Reply
	conns    map[net.Conn]struct{}
	dials    []Dial
	down     bool
	l        net.Listener
}

// Dial is one that was asked for.
type Dial struct {
	Token, Host string
	Port        int
}

// New starts one, which ends with the test.
func New(t testing.TB) *Tor {
	t.Helper()
	dir := t.TempDir()
	o := &Tor{SOCKS: filepath.Join(dir, "socks"), Dir: dir, services: make(map[string]string), replies: make(map[string]Reply), conns: make(map[net.Conn]struct{})}
	if err := o.listen(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(o.Kill)
	return o
}

func (o *Tor) listen() error {
	l, err := net.Listen("unix", o.SOCKS)
	if err != nil {
		return err
	}
	o.mu.Lock()
	o.l, o.down = l, false
	o.mu.Unlock()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go o.serve(c)
		}
	}()
	return nil
}

// Kill ends it, and with it all that goes through it.
func (o *Tor) Kill() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.down = true
	_ = o.l.Close()
	for c := range o.conns {
		_ = c.Close()
	}
}

// Cut ends all that goes through it now, as when circuits die; what comes later goes through.
func (o *Tor) Cut() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for c := range o.conns {
		_ = c.Close()
	}
}

// Restart starts it again.
func (o *Tor) Restart(t testing.TB) {
	t.Helper()
	if err := o.listen(); err != nil {
		t.Fatal(err)
	}
}

// Keep makes a service reachable.
func (o *Tor) Keep(_ []byte, serviceID, socket string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.services[serviceID] = socket
}

// Drop makes it unreachable.
func (o *Tor) Drop(serviceID string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.services, serviceID)
}

// Answer makes every dial of a service fail; 0 lets them through again.
func (o *Tor) Answer(serviceID string, r Reply) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.replies[serviceID] = r
}

// Dials are all that were asked for.
func (o *Tor) Dials() []Dial {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]Dial(nil), o.dials...)
}

func (o *Tor) hold(c net.Conn) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.down {
		return false
	}
	o.conns[c] = struct{}{}
	return true
}

func (o *Tor) release(c net.Conn) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.conns, c)
	_ = c.Close()
}

func (o *Tor) serve(c net.Conn) {
	if !o.hold(c) {
		_ = c.Close()
		return
	}
	defer o.release(c)
	d, ok := handshake(c)
	if !ok {
		return
	}
	id := strings.TrimSuffix(d.Host, ".onion")
	o.mu.Lock()
	o.dials = append(o.dials, d)
	socket, there := o.services[id]
	reply := o.replies[id]
	o.mu.Unlock()
	switch {
	case reply == Silent:
		_, _ = io.Copy(io.Discard, c)
		return
	case reply == 0 && !there:
		reply = NoService
	}
	var far net.Conn
	if reply == 0 {
		var err error
		if far, err = net.Dial("unix", socket); err != nil {
			reply = 0xf2
		}
	}
	_, err := c.Write([]byte{5, byte(reply), 0, 1, 0, 0, 0, 0, 0, 0})
	if far == nil || err != nil {
		return
	}
	if !o.hold(far) {
		_ = far.Close()
		return
	}
	defer o.release(far)
	done := make(chan struct{}, 2)
	for _, way := range [][2]net.Conn{{c, far}, {far, c}} {
		go func() {
			_, _ = io.Copy(way[0], way[1])
			done <- struct{}{}
		}()
	}
	<-done
}

// handshake is the server's side of SOCKS 5 with a name and a password.
func handshake(c net.Conn) (d Dial, ok bool) {
	b := make([]byte, 512)
	read := func(n int) []byte {
		_, err := io.ReadFull(c, b[:n])
		ok = err == nil
		return b[:n]
	}
	if got := read(3); !ok || string(got) != "\x05\x01\x02" {
		return d, false
	}
	if _, err := c.Write([]byte{5, 2}); err != nil {
		return d, false
	}
	n := read(2)[1]
	if !ok {
		return d, false
	}
	d.Token = string(read(int(n)))
	if !ok {
		return d, false
	}
	if n = read(1)[0]; !ok {
		return d, false
	}
	if read(int(n)); !ok {
		return d, false
	}
	if _, err := c.Write([]byte{1, 0}); err != nil {
		return d, false
	}
	if got := read(5); !ok || string(got[:4]) != "\x05\x01\x00\x03" {
		return d, false
	} else {
		n = got[4]
	}
	if d.Host = string(read(int(n))); !ok {
		return d, false
	}
	p := read(2)
	d.Port = int(p[0])<<8 | int(p[1])
	return d, ok
}
