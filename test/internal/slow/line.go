// Package slow makes what goes over Tor on one machine take as long as it takes in the world.
package slow

import (
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"time"
)

// Studied are the mean round trips between pairs of machines over the public Tor network, from a study in which some took longer than 2.5 s.
var Studied = []time.Duration{710 * time.Millisecond, 740 * time.Millisecond, 760 * time.Millisecond, 815 * time.Millisecond, 820 * time.Millisecond, 850 * time.Millisecond}

// Of the delays that a line draws.
const (
	queueing = 0.4                    // the share of a mean round trip that varies
	spread   = 1.4                    // of its logarithm: one round trip in a hundred takes more than two seconds longer than usual
	longest  = 4 * time.Second        // one way: what takes longer is a circuit that has failed
	burst    = 500 * time.Millisecond // what comes within it shares a delay: a queue on the way does not change from one packet to the next
	inFlight = 4 << 20                // bytes that a line holds at most, each way
	piece    = 16 << 10
)

// Line stands in for tor's SOCKS socket and has what goes through it take time, both ways. Bytes stay in order, and none are lost. What is said to tor itself,
// before a connection is asked for, takes none. A connection keeps the mean and the seed that were set when it was made.
type Line struct {
	socket, tor string
	listener    net.Listener
	running     sync.WaitGroup

	mu    sync.Mutex
	mean  time.Duration // of a round trip
	seed  uint64
	conns map[net.Conn]struct{}
}

// StandIn puts a line in the place of a socket. Connections that are there already stay as they are. Close it.
func StandIn(socket string) (*Line, error) {
	l := &Line{socket: socket, tor: socket + "0", conns: map[net.Conn]struct{}{}}
	if err := os.Rename(socket, l.tor); err != nil {
		return nil, err
	}
	var err error
	if l.listener, err = net.Listen("unix", socket); err != nil {
		return nil, errors.Join(err, os.Rename(l.tor, socket))
	}
	if err := os.Chmod(socket, 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	l.running.Go(l.accept)
	return l, nil
}

// Close ends all connections and gives the socket its place back.
func (l *Line) Close() error {
	err := l.listener.Close() // it removes the socket
	l.mu.Lock()
	for c := range l.conns {
		c.Close()
	}
	l.conns = nil
	l.mu.Unlock()
	l.running.Wait()
	return errors.Join(err, os.Rename(l.tor, l.socket))
}

// Use sets the mean round trip of connections that are made from now on, and the seed by which each of them draws its delays: the same ones for all, so that what is
// compared meets the same.
func (l *Line) Use(mean time.Duration, seed uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mean, l.seed = mean, seed
}

func (l *Line) accept() {
	for {
		c, err := l.listener.Accept()
		if err != nil {
			return
		}
		if !l.keep(c) {
			return
		}
		l.running.Go(func() {
			defer l.drop(c)
			l.serve(c)
		})
	}
}

func (l *Line) keep(c net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conns == nil { // closed
		c.Close()
		return false
	}
	l.conns[c] = struct{}{}
	return true
}

func (l *Line) drop(c net.Conn) {
	c.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, c)
}

func (l *Line) serve(c net.Conn) {
	tor, err := net.Dial("unix", l.tor)
	if err != nil || !l.keep(tor) {
		return
	}
	defer l.drop(tor)
	if greetings(c, tor) != nil {
		return
	}
	l.mu.Lock()
	mean, seed := l.mean, l.seed
	l.mu.Unlock()
	var both sync.WaitGroup
	for i, way := range [][2]net.Conn{{c, tor}, {tor, c}} {
		both.Go(func() {
			carry(way[1], way[0], delays(mean, seed, uint64(i)))
			if u, ok := way[1].(*net.UnixConn); ok {
				_ = u.CloseWrite()
			}
		})
	}
	both.Wait()
}

// greetings passes on what is said before the request to connect: which way to say who one is, and that (RFC 1928, RFC 1929).
func greetings(client, tor net.Conn) error {
	methods, err := pass(tor, client, 2)
	if err != nil {
		return err
	}
	if _, err := pass(tor, client, methods); err != nil {
		return err
	}
	const password = 2
	if method, err := pass(client, tor, 2); err != nil || method != password {
		return err
	}
	user, err := pass(tor, client, 2)
	if err != nil {
		return err
	}
	secret, err := pass(tor, client, user+1)
	if err != nil {
		return err
	}
	if _, err := pass(tor, client, secret); err != nil {
		return err
	}
	_, err = pass(client, tor, 2)
	return err
}

// pass hands on n bytes, and returns what the last one says.
func pass(to io.Writer, from io.Reader, n int) (int, error) {
	if n == 0 {
		return 0, nil
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(from, b); err != nil {
		return 0, err
	}
	_, err := to.Write(b)
	return int(b[n-1]), err
}

// delays draws the delays of one way: half of what a round trip always takes, and a share that varies and has a long tail (log-normal).
func delays(mean time.Duration, seed, way uint64) func() time.Duration {
	rng := rand.New(rand.NewPCG(seed, way))
	fixed, varying := (1-queueing)/2*float64(mean), queueing/2*float64(mean)
	return func() time.Duration {
		return time.Duration(fixed + varying*math.Exp(spread*rng.NormFloat64()-spread*spread/2))
	}
}

// carried is what is under way.
type carried struct {
	due time.Time
	b   []byte
}

// carry copies until the end of from, and has every byte arrive a delay after it was sent. It returns when all has arrived, or nobody takes it.
func carry(to io.Writer, from io.Reader, delay func() time.Duration) {
	way, gone := make(chan carried, inFlight/piece), make(chan struct{})
	go func() {
		defer close(gone)
		for c := range way {
			if wait := time.Until(c.due); wait > 0 {
				<-time.After(wait)
			}
			if _, err := to.Write(c.b); err != nil {
				return
			}
		}
	}()
	var drawn time.Duration
	var when, last time.Time
	for {
		b := make([]byte, piece)
		n, err := from.Read(b)
		if now := time.Now(); n > 0 {
			if now.Sub(when) >= burst {
				drawn, when = delay(), now
			}
			if due := now.Add(drawn); due.After(last) {
				last = due
			}
			select {
			case way <- carried{last, b[:n:n]}:
			case <-gone:
				return
			}
		}
		if err != nil {
			close(way)
			<-gone
			return
		}
	}
}
