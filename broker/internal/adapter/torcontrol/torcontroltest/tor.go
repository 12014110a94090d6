// Package torcontroltest is a tor of which only the control port is there: it speaks the protocol, keeps services, and does wrong what a test asks for.
package torcontroltest

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cretz/bine/torutil"
	"github.com/cretz/bine/torutil/ed25519"
)

// Command is one line that was heard.
type Command struct {
	At   time.Time
	Line string
}

// Behaviour is what a tor is like; Change changes it.
type Behaviour struct {
	Version      string
	Methods      string // of authentication
	CookieFile   string // that it names
	Password     string
	SingleHop    bool
	SocksPorts   []string
	ProofOfWork  bool
	Progress     int
	Tag          string
	Live         bool
	Circuits     bool
	Directory    bool
	Uploads      int               // directories that take a descriptor
	UploadsAfter time.Duration     // an ADD_ONION
	Silent       bool              // it hears and says nothing
	Greeting     string            // said when somebody connects
	Replies      map[string]string // by the first word of a command: said in the place of an answer, as it is; "" ends the connection
	ServiceID    string            // in the place of the right one
}

// Tor is one such tor. Its services live until Kill.
type Tor struct {
	t      testing.TB
	cookie []byte

	mu       sync.Mutex
	b        Behaviour
	down     bool
	conns    map[*conn]struct{}
	services map[string]string // by id: the line that made it
	others   map[string]struct{}
	clients  map[string]string
	heard    []Command
}

// New makes a tor that is online and publishes within a second. It is killed when the test ends.
func New(t testing.TB) *Tor {
	f := &Tor{t: t, cookie: make([]byte, 32), conns: map[*conn]struct{}{}, services: map[string]string{}, others: map[string]struct{}{}, clients: map[string]string{}}
	_, _ = rand.Read(f.cookie) // it never fails
	path := filepath.Join(t.TempDir(), "control_auth_cookie")
	if err := os.WriteFile(path, f.cookie, 0o600); err != nil {
		t.Fatal(err)
	}
	f.b = Behaviour{Version: "0.4.9.11", Methods: "COOKIE,SAFECOOKIE", CookieFile: path, SocksPorts: []string{"unix:/run/tor/socks OnionTrafficOnly"}, ProofOfWork: true,
		Progress: 100, Tag: "done", Live: true, Circuits: true, Directory: true, Uploads: 3, UploadsAfter: time.Second, Replies: map[string]string{}}
	t.Cleanup(f.Kill)
	return f
}

// Change changes what it is like.
func (f *Tor) Change(change func(b *Behaviour)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(&f.b)
}

// Kill ends all connections and forgets the services; until Restart nobody can connect.
func (f *Tor) Kill() {
	f.mu.Lock()
	f.down = true
	clear(f.services)
	clear(f.clients)
	f.mu.Unlock()
	f.Cut()
}

// Cut ends all connections.
func (f *Tor) Cut() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for c := range f.conns {
		c.close()
	}
}

// Restart lets it be connected to again.
func (f *Tor) Restart() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.down = false
}

// Emit tells an event to those who listen, "650 " before it.
func (f *Tor) Emit(event string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for c := range f.conns {
		if c.listens {
			c.say("650 " + event + "\r\n")
		}
	}
}

// Other makes a detached service that nobody here has asked for.
func (f *Tor) Other(id string, detached bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if detached {
		f.services[id] = "another program's"
	} else {
		f.others[id] = struct{}{}
	}
}

// End ends a service, as another controller could.
func (f *Tor) End(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.services, id)
}

// Services are the detached ones, by id, with the lines that made them.
func (f *Tor) Services() map[string]string {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := map[string]string{}
	for id, line := range f.services {
		out[id] = line
	}
	return out
}

// Client is the private key that was given for a service, in base64.
func (f *Tor) Client(id string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.clients[id]
}

// Heard are the commands that begin with a word, in order.
func (f *Tor) Heard(word string) []Command {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []Command
	for _, c := range f.heard {
		if strings.HasPrefix(c.Line, word) {
			out = append(out, c)
		}
	}
	return out
}

// Dial connects to it in memory.
func (f *Tor) Dial(context.Context) (net.Conn, error) {
	ours, theirs := net.Pipe()
	if !f.accept(ours) {
		return nil, fmt.Errorf("nobody listens")
	}
	return theirs, nil
}

// Listen answers on a Unix socket until the test ends.
func (f *Tor) Listen(path string) {
	l, err := new(net.ListenConfig).Listen(context.Background(), "unix", path)
	if err != nil {
		f.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			f.accept(c)
		}
	}()
	f.t.Cleanup(func() {
		l.Close()
		<-ended
	})
}

func (f *Tor) accept(nc net.Conn) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.down {
		nc.Close()
		return false
	}
	c := &conn{Conn: nc, tor: f, out: make(chan string, 4096), done: make(chan struct{})}
	f.conns[c] = struct{}{}
	go c.write()
	go c.read()
	if f.b.Greeting != "" {
		c.say(f.b.Greeting)
	}
	return true
}

// conn is one connection to a controller.
type conn struct {
	net.Conn
	tor         *Tor
	out         chan string
	done        chan struct{}
	once        sync.Once
	clientNonce string
	trusted     bool
	listens     bool // with Tor.mu
}

func (c *conn) close() {
	c.once.Do(func() {
		close(c.done)
		c.Conn.Close()
	})
}

// say writes without waiting, so that a controller that does not read holds up nothing here.
func (c *conn) say(s string) {
	select {
	case c.out <- s:
	default:
		c.close()
	}
}

func (c *conn) write() {
	for {
		select {
		case <-c.done:
			return
		case s := <-c.out:
			if _, err := c.Conn.Write([]byte(s)); err != nil {
				c.close()
				return
			}
		}
	}
}

func (c *conn) read() {
	defer func() {
		c.close()
		c.tor.mu.Lock()
		delete(c.tor.conns, c)
		c.tor.mu.Unlock()
	}()
	lines := bufio.NewScanner(c.Conn)
	for lines.Scan() {
		reply, ok := c.tor.answer(c, lines.Text())
		if !ok {
			return
		}
		if reply != "" {
			c.say(reply)
		}
	}
}

// serviceOf is the id of the expanded key in an ADD_ONION.
func serviceOf(blob string) string {
	b, err := base64.StdEncoding.DecodeString(blob)
	if err != nil || len(b) != 64 {
		return ""
	}
	return torutil.OnionServiceIDFromV3PublicKey(ed25519.PrivateKey(b).PublicKey())
}
