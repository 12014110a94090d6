package clitest

import (
	"context"
	"testing"

	"github.com/shallot-net/shallot/kit/home"
	"github.com/shallot-net/shallot/kit/rpc"
)

// Serve serves a node on the node socket of a new home until the returned function is called or the test ends.
func Serve(t testing.TB, n *Node, dir string) (h home.Home, stop func()) {
	t.Helper()
	h, err := home.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	s, err := rpc.NewServer(rpc.ServerConfig{Process: "node", Listen: h.Endpoint("node")})
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
	return h, stop
}
