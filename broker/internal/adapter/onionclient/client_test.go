package onionclient

import (
	"bytes"
	"context"
	"errors"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/shallot-net/shallot/broker/internal/app"
	"github.com/shallot-net/shallot/kit/fault"
	onionv1 "github.com/shallot-net/shallot/proto/shallot/onion/v1"
)

const patience = time.Minute

// standIn is shallot-onion: what it is told, it has, and it says what the test wants of tor.
type standIn struct {
	onionv1.UnimplementedOnionServiceServer
	mu        sync.Mutex
	tor       *onionv1.Tor
	services  map[string]string // states
	published int
	clients   []string // keys that the services are for
	allowed   []string // services that tor was authorized for
	withdrawn int
	down      bool // tor, for Publish
	news      chan struct{}
}

func newStandIn() *standIn {
	return &standIn{tor: &onionv1.Tor{State: "starting", Progress: 40}, services: map[string]string{}, news: make(chan struct{})}
}

func (s *standIn) set(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
	close(s.news)
	s.news = make(chan struct{})
}

func (s *standIn) Publish(_ context.Context, in *onionv1.PublishRequest) (*onionv1.PublishResponse, error) {
	id := string(in.GetKeySeed())
	var down bool
	s.set(func() {
		s.published++
		s.clients = append(s.clients, in.GetClientKeys()...)
		if s.services[id] == "" {
			s.services[id] = "adding"
		}
		down = s.down
	})
	if down {
		return nil, fault.Unavailable("TOR_UNREACHABLE", "tor does not answer")
	}
	return &onionv1.PublishResponse{ServiceId: id}, nil
}

func (s *standIn) Authorize(_ context.Context, in *onionv1.AuthorizeRequest) (*onionv1.AuthorizeResponse, error) {
	if len(in.GetClientKey()) != 32 {
		return nil, fault.InvalidArgument("CLIENT_KEY_INVALID", "no key")
	}
	s.set(func() { s.allowed = append(s.allowed, in.GetServiceId()) })
	return &onionv1.AuthorizeResponse{}, nil
}

func (s *standIn) Withdraw(_ context.Context, in *onionv1.WithdrawRequest) (*onionv1.WithdrawResponse, error) {
	s.set(func() { s.withdrawn++; delete(s.services, in.GetServiceId()) })
	return &onionv1.WithdrawResponse{}, nil
}

func (s *standIn) Watch(_ *onionv1.WatchRequest, out grpc.ServerStreamingServer[onionv1.WatchResponse]) error {
	for {
		s.mu.Lock()
		w := &onionv1.WatchResponse{Tor: s.tor}
		for id, state := range s.services {
			w.Services = append(w.Services, &onionv1.Service{ServiceId: id, State: state})
		}
		news := s.news
		s.mu.Unlock()
		if err := out.Send(w); err != nil {
			return err
		}
		select {
		case <-news:
		case <-out.Context().Done():
			return nil
		}
	}
}

// serve puts a stand-in behind a socket until the returned function is called.
func serve(t *testing.T, socket string, s *standIn) (stop func()) {
	t.Helper()
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer()
	onionv1.RegisterOnionServiceServer(g, s)
	go func() { _ = g.Serve(l) }()
	t.Cleanup(g.Stop)
	return g.Stop
}

func newClient(t *testing.T, socket string, probe func(context.Context, string) error) *Client {
	t.Helper()
	return newMember(t, socket, nil, probe)
}

func newMember(t *testing.T, socket string, key []byte, probe func(context.Context, string) error) *Client {
	t.Helper()
	conn, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	c, err := New(conn, Config{Port: 4001, Probe: probe, ProbeAgain: 50 * time.Millisecond, Enclosed: true, NetworkKey: key})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = c.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done; conn.Close() })
	return c
}

func (c *Client) wait(t *testing.T, what string, f func(app.Reach) bool) {
	t.Helper()
	limit := time.After(patience)
	for {
		c.mu.Lock()
		ok, news, r := f(c.reach()), c.news, c.reach()
		c.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-news:
		case <-time.After(20 * time.Millisecond): // what the stand-in counts is no news here
		case <-limit:
			t.Fatalf("it did not come to this: %s; it is %+v", what, r)
		}
	}
}

func state(want string) func(app.Reach) bool {
	return func(r app.Reach) bool { return r.State == want && r.Online == (want == "online") && r.Enclosed }
}

func TestOnlineOnlyWhenReached(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	probes := make(chan error)
	s := newStandIn()
	c := newClient(t, socket, func(ctx context.Context, id string) error {
		if id != "a" {
			return errors.New("another service is dialled")
		}
		select {
		case err := <-probes:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	c.Keep([]byte("a"), "a", "/s")
	c.wait(t, "without shallot-onion it is unreachable", state("unreachable"))
	serve(t, socket, s)
	c.wait(t, "tor starts", func(r app.Reach) bool { return state("starting")(r) && r.Progress == 40 })
	s.set(func() { s.tor = &onionv1.Tor{State: "online", Progress: 100} })
	c.wait(t, "nobody has the service", state("publishing"))
	s.set(func() { s.services["a"] = "published" })
	probes <- nil
	c.wait(t, "online", state("online"))
	s.set(func() { s.tor = &onionv1.Tor{State: "unreachable"} })
	c.wait(t, "tor is gone", state("unreachable"))
	s.set(func() { s.tor = &onionv1.Tor{State: "online"} })
	c.wait(t, "it has to be reached again", state("publishing"))
	probes <- nil
	c.wait(t, "online again", state("online"))
}

func TestWhoOnlyDialsIsOnlineWithTor(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	s := newStandIn()
	s.tor = &onionv1.Tor{State: "online"}
	serve(t, socket, s)
	newClient(t, socket, nil).wait(t, "online", state("online"))
}

// A shallot-onion that starts again is told again; what is dropped is withdrawn.
func TestToldAgainAfterARestart(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	first := newStandIn()
	first.down = true // it keeps what it was asked for
	stop := serve(t, socket, first)
	c := newClient(t, socket, nil)
	c.Keep([]byte("a"), "a", "/s")
	c.Keep([]byte("b"), "b", "/t")
	c.wait(t, "both are told, once", func(app.Reach) bool { first.mu.Lock(); defer first.mu.Unlock(); return first.published == 2 })
	stop()
	second := newStandIn()
	serve(t, socket, second)
	c.wait(t, "the second is told", func(app.Reach) bool { second.mu.Lock(); defer second.mu.Unlock(); return len(second.services) == 2 })
	c.Drop("a")
	c.wait(t, "it is withdrawn", func(app.Reach) bool { second.mu.Lock(); defer second.mu.Unlock(); return len(second.services) == 1 })
	if first.published != 2 || second.published != 2 {
		t.Errorf("the first was told %d times, the second %d times", first.published, second.published)
	}
}

// A service that tor takes for published and nobody reaches is made anew.
func TestUnreachableServiceIsMadeAnew(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	s := newStandIn()
	s.tor = &onionv1.Tor{State: "online"}
	serve(t, socket, s)
	var mu sync.Mutex
	broken := true
	c := newClient(t, socket, func(context.Context, string) error {
		mu.Lock()
		defer mu.Unlock()
		if broken {
			return errors.New("nobody answers")
		}
		return nil
	})
	c.Keep([]byte("a"), "a", "/s")
	c.wait(t, "it is told", func(app.Reach) bool { s.mu.Lock(); defer s.mu.Unlock(); return s.published == 1 })
	s.set(func() { s.services["a"] = "published" })
	c.wait(t, "it is withdrawn and told again", func(app.Reach) bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.withdrawn == 1 && s.published == 2 && bytes.Equal([]byte(s.services["a"]), []byte("adding"))
	})
	mu.Lock()
	broken = false
	mu.Unlock()
	s.set(func() { s.services["a"] = "published" })
	c.wait(t, "online", state("online"))
}

// Members of a private network have one key in common, and tor is authorized for each service once in a life of shallot-onion.
func TestPrivateNetwork(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	first := newStandIn()
	stop := serve(t, socket, first)
	key := bytes.Repeat([]byte{7}, 32)
	c := newMember(t, socket, key, nil)
	c.Keep([]byte("a"), "a", "/s")
	c.wait(t, "it is told", func(app.Reach) bool { first.mu.Lock(); defer first.mu.Unlock(); return first.published == 1 })
	if len(first.clients) != 1 || len(first.clients[0]) != 52 {
		t.Errorf("the service is for %v", first.clients)
	}
	allow := func(s *standIn, want int) {
		t.Helper()
		for range 2 {
			if err := c.Authorize(t.Context(), "b"); err != nil {
				t.Fatal(err)
			}
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if len(s.allowed) != want {
			t.Errorf("tor was authorized for %v", s.allowed)
		}
	}
	allow(first, 1)
	stop()
	second := newStandIn()
	serve(t, socket, second)
	c.wait(t, "the second is told", func(app.Reach) bool { second.mu.Lock(); defer second.mu.Unlock(); return second.published == 1 })
	allow(second, 1)
	other, _ := memberKey(bytes.Repeat([]byte{8}, 32))
	if c.member.Equal(other) || bytes.Equal(c.member.Bytes(), key) {
		t.Error("the key is another network's, or the network's own")
	}
	open := newClient(t, socket, nil)
	if err := open.Authorize(t.Context(), "b"); err != nil || len(second.allowed) != 1 {
		t.Errorf("in an open network: %v, %v", err, second.allowed)
	}
}
