package mux_test

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/rpc"
	"github.com/shallot-net/shallot/kit/rpc/mux"
)

type rawCodec struct{}

func (rawCodec) Name() string { return "raw" }
func (rawCodec) Marshal(v any) ([]byte, error) {
	f := v.(*frame)
	b := make([]byte, 8, 8+len(f.text))
	for i := range 8 {
		b[i] = byte(f.seq >> (8 * i))
	}
	return append(b, f.text...), nil
}

func (rawCodec) Unmarshal(b []byte, v any) error {
	f := v.(*frame)
	f.seq = 0
	for i := range 8 {
		f.seq |= uint64(b[i]) << (8 * i)
	}
	f.text = string(b[8:])
	return nil
}

var desc = grpc.ServiceDesc{ServiceName: "kit.Echo", HandlerType: (*any)(nil),
	Streams: []grpc.StreamDesc{{StreamName: "Calls", ServerStreams: true, ClientStreams: true, Handler: func(_ any, ss grpc.ServerStream) error {
		return mux.Serve(&grpc.GenericServerStream[frame, frame]{ServerStream: ss}, getSeq, setSeq, echo, options{})
	}}, {StreamName: "Bare", ServerStreams: true, ClientStreams: true, Handler: func(_ any, ss grpc.ServerStream) error {
		for {
			f := new(frame)
			if err := ss.RecvMsg(f); err != nil {
				return nil
			}
			if err := ss.SendMsg(f); err != nil {
				return err
			}
		}
	}}},
	Methods: []grpc.MethodDesc{{MethodName: "Unary", Handler: func(_ any, ctx context.Context, dec func(any) error, in grpc.UnaryServerInterceptor) (any, error) {
		f := new(frame)
		if err := dec(f); err != nil {
			return nil, err
		}
		return in(ctx, f, &grpc.UnaryServerInfo{FullMethod: "/kit.Echo/Unary"}, func(ctx context.Context, req any) (any, error) { return echo(ctx, req.(*frame)), nil })
	}}}}

func serve(t testing.TB, path string) (stop func()) {
	s, err := rpc.NewServer(rpc.ServerConfig{Process: "echo", Listen: "unix:" + path, Options: []grpc.ServerOption{grpc.ForceServerCodec(rawCodec{})}})
	if err != nil {
		t.Fatal(err)
	}
	s.RegisterService(&desc, nil)
	if err := s.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func dial(t testing.TB, path string) (*grpc.ClientConn, *mux.Caller[*frame, *frame]) {
	cc, err := rpc.Dial("unix:"+path, rpc.ClientConfig{Options: []grpc.DialOption{grpc.WithDefaultCallOptions(grpc.ForceCodec(rawCodec{}))}})
	if err != nil {
		t.Fatal(err)
	}
	c := mux.NewCaller(func(ctx context.Context) (stream, error) {
		s, err := cc.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/kit.Echo/Calls")
		if err != nil {
			return nil, err
		}
		return &grpc.GenericClientStream[frame, frame]{ClientStream: s}, nil
	}, setSeq, getSeq, nil)
	t.Cleanup(func() { c.Close(); _ = cc.Close() })
	return cc, c
}

func TestServerRestartsOverGRPC(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	_, c := dial(t, path) // before the server is there
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for range 3 {
		stop := serve(t, path)
		for i := 0; ; i++ {
			got, err := c.Call(ctx, &frame{text: "hello"})
			if err == nil && got.text == "re hello" {
				break
			}
			// A call may meet the last server's end.
			if f := fault.From(err); f.Code != codes.Unavailable || i > 3 {
				t.Fatal(err)
			}
		}
		start := time.Now()
		stop()
		if d := time.Since(start); d > 2*time.Second {
			t.Errorf("an open stream held up the stop for %v", d)
		}
	}
	if _, err := net.Dial("unix", path); err == nil {
		t.Error("the socket still answers")
	}
}

func BenchmarkMux(b *testing.B) {
	path := filepath.Join(b.TempDir(), "s")
	b.Cleanup(serve(b, path))
	cc, c := dial(b, path)
	text := string(make([]byte, 5<<10))
	b.Run("floor", func(b *testing.B) { // the same frames to and fro on a stream that is nobody else's
		s, err := cc.NewStream(b.Context(), &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/kit.Echo/Bare")
		if err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		for b.Loop() {
			if err := errors.Join(s.SendMsg(&frame{text: text}), s.RecvMsg(new(frame))); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("stream", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := c.Call(b.Context(), &frame{text: text}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("stream64", func(b *testing.B) {
		b.ReportAllocs()
		b.SetParallelism(32)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if _, err := c.Call(b.Context(), &frame{text: text}); err != nil {
					b.Error(err)
				}
			}
		})
	})
	b.Run("unary", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := cc.Invoke(b.Context(), "/kit.Echo/Unary", &frame{text: text}, new(frame)); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("unary64", func(b *testing.B) {
		b.ReportAllocs()
		b.SetParallelism(32)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if err := cc.Invoke(b.Context(), "/kit.Echo/Unary", &frame{text: text}, new(frame)); err != nil {
					b.Error(err)
				}
			}
		})
	})
}
