package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/proxy"
	"google.golang.org/grpc"

	"github.com/shallot-net/shallot/broker/internal/adapter/onion"
	"github.com/shallot-net/shallot/broker/internal/adapter/onionclient"
	"github.com/shallot-net/shallot/broker/internal/adapter/onionserver"
	"github.com/shallot-net/shallot/broker/internal/domain/onionsvc"
	"github.com/shallot-net/shallot/kit/home"
	"github.com/shallot-net/shallot/kit/rpc"
	"github.com/shallot-net/shallot/kit/tor"
	onionv1 "github.com/shallot-net/shallot/proto/shallot/onion/v1"
	telemetryv1 "github.com/shallot-net/shallot/proto/shallot/telemetry/v1"
)

// asProcess has this program be shallot-onion, so that it can be killed.
const asProcess = "SHALLOT_TEST_AS_ONION"

func TestMain(m *testing.M) {
	if os.Getenv(asProcess) != "" {
		main()
	}
	os.Exit(m.Run())
}

// side is a tor of a private network, and a shallot-onion that keeps services there.
type side struct {
	t       *testing.T
	program tor.Program
	cfg     tor.ClientConfig
	tor     *tor.Process
	home    home.Home
	onion   *exec.Cmd
	log     bytes.Buffer // read after the end only
	cc      *grpc.ClientConn
	onionv1.OnionServiceClient
}

func newSide(t *testing.T, dir, name string, program tor.Program, network *tor.Private) *side {
	t.Helper()
	s := &side{t: t, program: program, cfg: network.Client(filepath.Join(dir, name, "tor"), filepath.Join(dir, name, "run"))}
	if err := s.cfg.Write(); err != nil {
		t.Fatal(err)
	}
	var err error
	if s.home, err = home.Open(filepath.Join(dir, name, "home")); err != nil {
		t.Fatal(err)
	}
	if s.cc, err = rpc.Dial(s.home.Endpoint(process), rpc.ClientConfig{Timeout: 30 * time.Second}); err != nil {
		t.Fatal(err)
	}
	s.OnionServiceClient = onionv1.NewOnionServiceClient(s.cc)
	s.startOnion()
	s.startTor()
	t.Cleanup(func() {
		s.cc.Close()
		s.killOnion()
		s.tor.Stop(5 * time.Second)
		if t.Failed() {
			t.Logf("%s said:\n%s", name, s.log.String())
		}
	})
	return s
}

func (s *side) startTor() {
	s.t.Helper()
	var err error
	if s.tor, err = tor.StartProcess(tor.ProcessConfig{Program: s.program, Torrc: s.cfg.TorrcFile()}); err != nil {
		s.t.Fatal(err)
	}
}

func (s *side) killTor() {
	s.t.Helper()
	p, err := os.FindProcess(s.tor.PID())
	if err != nil {
		s.t.Fatal(err)
	}
	_ = p.Kill()
	<-s.tor.Done()
}

func (s *side) startOnion() {
	s.t.Helper()
	s.onion = exec.Command(os.Args[0], "--home", s.home.Dir, "--control", "unix:"+s.cfg.ControlSocket())
	s.onion.Env = append(os.Environ(), asProcess+"=1")
	s.onion.Stderr = &s.log
	if err := s.onion.Start(); err != nil {
		s.t.Fatal(err)
	}
}

func (s *side) killOnion() {
	_ = s.onion.Process.Kill()
	_ = s.onion.Wait() // its error is that it was killed
}

// state waits for a state of tor and services.
func (s *side) state(within time.Duration, what string, ok func(*onionv1.WatchResponse) bool) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), within)
	defer cancel()
	began := time.Now()
	stream, err := s.Watch(ctx, &onionv1.WatchRequest{})
	if err != nil {
		s.t.Fatal(err)
	}
	var last *onionv1.WatchResponse
	for {
		r, err := stream.Recv()
		if err != nil {
			s.t.Fatalf("not %s within %s: %v; the last state was %v", what, within, err, last)
		}
		if last = r; ok(r) {
			s.t.Logf("%s after %s", what, time.Since(began).Round(time.Millisecond))
			return
		}
	}
}

func online(r *onionv1.WatchResponse) bool { return r.GetTor().GetState() == "online" }

// published tells whether n services can be reached.
func published(n int) func(r *onionv1.WatchResponse) bool {
	return func(r *onionv1.WatchResponse) bool {
		have := 0
		for _, s := range r.GetServices() {
			if s.GetState() == "published" {
				have++
			}
		}
		return online(r) && have == n
	}
}

// ask publishes, again while tor cannot be used.
func (s *side) ask(r *onionv1.PublishRequest) string {
	s.t.Helper()
	p, err := s.Publish(s.t.Context(), r)
	if err != nil {
		s.t.Fatalf("publish: %v", err)
	}
	return p.GetServiceId()
}

// echo gives back what it gets, after a word of its own.
func echo(t *testing.T, path, word string) {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.WriteString(c, word)
				_, _ = io.Copy(c, c)
			}()
		}
	}()
}

// dial sends bytes to a service by a circuit of its own and returns what comes back.
func (s *side) dial(ctx context.Context, id, text string, back int) (string, error) {
	d, err := proxy.SOCKS5("unix", s.cfg.SocksSocket(), &proxy.Auth{User: rand.Text(), Password: "-"}, nil)
	if err != nil {
		return "", err
	}
	c, err := d.(proxy.ContextDialer).DialContext(ctx, "tcp", id+".onion:4001")
	if err != nil {
		return "", err
	}
	defer c.Close()
	until, _ := ctx.Deadline()
	_ = c.SetDeadline(until)
	if _, err := io.WriteString(c, text); err != nil {
		return "", err
	}
	got := make([]byte, back)
	_, err = io.ReadFull(c, got)
	return string(got), err
}

// reach dials until the service answers: for a moment after it is published a directory may not have its descriptor yet.
func (s *side) reach(id, word string) {
	s.t.Helper()
	began := time.Now()
	for i := 1; ; i++ {
		ctx, cancel := context.WithTimeout(s.t.Context(), 20*time.Second)
		got, err := s.dial(ctx, id, "there and back", len(word)+14)
		cancel()
		if err == nil && got == word+"there and back" {
			s.t.Logf("reached after %s, at try %d", time.Since(began).Round(time.Millisecond), i)
			return
		}
		if time.Since(began) > time.Minute {
			s.t.Fatalf("not reached: %q %v", got, err)
		}
		select {
		case <-time.After(200 * time.Millisecond): // tor answers at once that it knows of no descriptor
		case <-s.t.Context().Done():
		}
	}
}

func (s *side) metrics() string {
	s.t.Helper()
	r, err := telemetryv1.NewTelemetryServiceClient(s.cc).Gather(s.t.Context(), &telemetryv1.GatherRequest{})
	if err != nil {
		s.t.Fatal(err)
	}
	return string(r.GetProcesses()[0].GetText())
}

// On a private Tor network: services are reached, also while shallot-onion is dead, and come back by themselves after tor has died.
func TestTor(t *testing.T) {
	if testing.Short() {
		t.Skip("a Tor network takes half a minute")
	}
	program, err := tor.Find("")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skipf("left out: %v", err)
	}
	dir, err := os.MkdirTemp("", "on") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	began := time.Now()
	network, err := tor.StartPrivate(t.Context(), tor.PrivateConfig{Dir: filepath.Join(dir, "net"), Program: program})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(network.Close)
	ready, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	if err := network.Ready(ready, nil); err != nil {
		t.Fatal(err)
	}
	t.Logf("the network is ready after %s", time.Since(began).Round(time.Millisecond))
	a, b := newSide(t, dir, "a", program, network), newSide(t, dir, "b", program, network)
	a.state(2*time.Minute, "online", online)
	b.state(2*time.Minute, "online", online)

	var requests []*onionv1.PublishRequest
	var ids []string
	for i := range 2 {
		r := &onionv1.PublishRequest{KeySeed: []byte(rand.Text() + rand.Text())[:32], Socket: filepath.Join(dir, fmt.Sprintf("e%d", i)), Port: 4001, MaxStreams: 64, ProofOfWork: true}
		echo(t, r.GetSocket(), fmt.Sprintf("service %d: ", i))
		requests, ids = append(requests, r), append(ids, a.ask(r))
	}
	all := func() {
		t.Helper()
		for i, id := range ids {
			b.reach(id, fmt.Sprintf("service %d: ", i))
		}
	}
	a.state(time.Minute, "both published", published(2))
	all()

	t.Log("shallot-onion is killed")
	a.killOnion()
	all()
	a.startOnion()
	for _, r := range requests {
		a.ask(r)
	}
	a.state(10*time.Second, "both published, as before", published(2))
	if text := a.metrics(); !strings.Contains(text, onionserver.Added+`{why="adopted"} 2`+"\n") || strings.Contains(text, `why="new"`) {
		t.Error("the services were not adopted")
	}
	all()

	t.Log("tor is killed")
	a.killTor()
	a.state(5*time.Second, "seen to be away", func(r *onionv1.WatchResponse) bool { return r.GetTor().GetState() == "unreachable" })
	a.startTor()
	a.state(time.Minute, "both published again", published(2))
	all()

	t.Run("private network", func(t *testing.T) { authorisation(t, dir, a, b) })
	for _, s := range []*side{a, b} {
		s.killOnion()
		for _, id := range ids {
			if strings.Contains(s.log.String(), id) {
				t.Error("a service id is in the log")
			}
		}
	}
}

// The service of a private network cannot be seen without the network's key: not without any, and not with another network's. With it, it is reached, also
// after the client's tor has died.
func authorisation(t *testing.T, dir string, a, b *side) {
	member := func(s *side, key byte) *onionclient.Client {
		c, err := onionclient.New(s.cc, onionclient.Config{Port: onion.Port, NetworkKey: bytes.Repeat([]byte{key}, 32)})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	socket, seed := filepath.Join(dir, "private"), []byte(rand.Text() + rand.Text())[:ed25519.SeedSize]
	echo(t, socket, "private: ")
	id := onionsvc.ID(ed25519.NewKeyFromSeed(seed).Public().(ed25519.PublicKey))
	provider := member(a, 7)
	provider.Keep(seed, id, socket)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = provider.Run(ctx) }()
	defer func() { cancel(); <-ended }()
	a.state(time.Minute, "a private one published", published(3))

	b.refused(id, "it asks for a key")
	if err := member(b, 8).Authorize(ctx, id); err != nil {
		t.Fatal(err)
	}
	b.refused(id, "the key is wrong")
	if err := member(b, 7).Authorize(ctx, id); err != nil {
		t.Fatal(err)
	}
	b.reach(id, "private: ")
	b.killTor()
	b.startTor()
	b.state(time.Minute, "the client's tor online again", online)
	b.reach(id, "private: ")
}

// refused dials as a stranger until tor says that it cannot read the service's descriptor, and why.
func (s *side) refused(id, why string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 20*time.Second)
	defer cancel()
	for {
		err := onion.Probe(ctx, s.cfg.SocksSocket(), id)
		switch {
		case errors.Is(err, onion.ErrForbidden) && strings.Contains(err.Error(), why):
			return
		case !errors.Is(err, onion.ErrNoService): // that is for a moment after it is published
			s.t.Fatalf("a stranger who is to hear that %s: %v", why, err)
		}
		select {
		case <-time.After(200 * time.Millisecond): // tor answers at once that it knows of no descriptor
		case <-ctx.Done():
			s.t.Fatalf("a stranger who is to hear that %s: %v", why, err)
		}
	}
}
