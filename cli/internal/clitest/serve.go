package clitest

import (
	"context"
	"testing"
	"time"

	"github.com/shallot-net/shallot/kit/home"
	"github.com/shallot-net/shallot/kit/mtls"
	"github.com/shallot-net/shallot/kit/rpc"
)

// Serve serves a node on the node socket of a new home until the returned function is called or the test ends.
func Serve(t testing.TB, n *Node, dir string) (h home.Home, stop func()) {
	t.Helper()
	h, err := home.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	_, stop = serve(t, n, rpc.ServerConfig{Process: "node", Listen: h.Endpoint("node")})
	return h, stop
}

// ServeTLS serves a node on a port of loopback, with its directory of credentials, and returns the address.
func ServeTLS(t testing.TB, n *Node, dir string) (addr string) {
	t.Helper()
	creds, err := mtls.Open(dir, mtls.Options{Poll: 10 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	go func() { _ = creds.Run(ctx) }()
	s, _ := serve(t, n, rpc.ServerConfig{Process: "node", Listen: "127.0.0.1:0", TLS: creds})
	return s.Addr().String()
}

func serve(t testing.TB, n *Node, cfg rpc.ServerConfig) (s *rpc.Server, stop func()) {
	t.Helper()
	s, err := rpc.NewServer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	n.Register(s)
	s.SetServing(true)
	ctx, cancel := context.WithCancel(context.Background())
	if err := s.Listen(ctx); err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
	}
	t.Cleanup(stop)
	return s, stop
}
