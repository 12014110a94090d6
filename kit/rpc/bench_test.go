package rpc_test

import (
	"context"
	"net"
	"path/filepath"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/shallot-net/shallot/kit/rpc"
)

// The floor is gRPC as it comes; what is above it are deadlines, metrics, error mapping and larger windows.
func BenchmarkUnary(b *testing.B) {
	desc := describe(func(_ context.Context, in string) (string, error) { return in, nil }, nil)
	payload := string(make([]byte, 5<<10))
	run := func(b *testing.B, cc *grpc.ClientConn) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := call(b.Context(), cc, payload); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.Run("floor", func(b *testing.B) {
		path := filepath.Join(b.TempDir(), "s")
		l, err := net.Listen("unix", path)
		if err != nil {
			b.Fatal(err)
		}
		s := grpc.NewServer(grpc.UnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
			return h(ctx, req)
		}))
		s.RegisterService(desc, nil)
		go func() { _ = s.Serve(l) }()
		b.Cleanup(s.Stop)
		cc, err := grpc.NewClient("unix:"+path, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = cc.Close() })
		run(b, cc)
	})
	b.Run("kit", func(b *testing.B) {
		reg := prometheus.NewRegistry()
		path := filepath.Join(b.TempDir(), "s")
		s, err := rpc.NewServer(rpc.ServerConfig{Listen: "unix:" + path, Registry: reg})
		if err != nil {
			b.Fatal(err)
		}
		s.RegisterService(desc, nil)
		go func() { _ = s.Serve(b.Context()) }()
		cc, err := rpc.Dial("unix:"+path, rpc.ClientConfig{Registry: reg})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = cc.Close() })
		run(b, cc)
	})
}
