// Package grpctest serves a component in memory, with the same server, client and interceptors as in production.
package grpctest

import (
	"context"
	"net"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/test/bufconn"

	"github.com/shallot-net/shallot/kit/logging"
	"github.com/shallot-net/shallot/kit/rpc"
)

// Start serves what register registers until the test ends, says SERVING, and returns a connection to it. The
// server's log goes to the test's.
func Start(t testing.TB, register func(s *rpc.Server)) *grpc.ClientConn {
	t.Helper()
	l := bufconn.Listen(1 << 20)
	s, err := rpc.NewServer(rpc.ServerConfig{Process: "test", Listener: l, Log: logging.New(t.Output(), "debug", "text", "test")})
	if err != nil {
		t.Fatal(err)
	}
	register(s)
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx) }()
	s.SetServing(true)
	cc, err := rpc.Dial("", rpc.ClientConfig{Dialer: func(ctx context.Context) (net.Conn, error) { return l.DialContext(ctx) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cc.Close()
		cancel()
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return cc
}
