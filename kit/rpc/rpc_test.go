package rpc_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflectpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/grpctest"
	"github.com/shallot-net/shallot/kit/logging"
	"github.com/shallot-net/shallot/kit/rpc"
)

type (
	unaryFunc  func(ctx context.Context, in string) (string, error)
	streamFunc func(ss grpc.ServerStream) error
)

func describe(unary unaryFunc, stream streamFunc) *grpc.ServiceDesc {
	return &grpc.ServiceDesc{ServiceName: "kit.Test", HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Unary", Handler: func(_ any, ctx context.Context, dec func(any) error, in grpc.UnaryServerInterceptor) (any, error) {
			req := new(wrapperspb.StringValue)
			if err := dec(req); err != nil {
				return nil, err
			}
			return in(ctx, req, &grpc.UnaryServerInfo{FullMethod: "/kit.Test/Unary"}, func(ctx context.Context, req any) (any, error) {
				out, err := unary(ctx, req.(*wrapperspb.StringValue).Value)
				return wrapperspb.String(out), err
			})
		}}},
		Streams: []grpc.StreamDesc{{StreamName: "Stream", ServerStreams: true, ClientStreams: true, Handler: func(_ any, ss grpc.ServerStream) error { return stream(ss) }}}}
}

func call(ctx context.Context, cc *grpc.ClientConn, in string, opts ...grpc.CallOption) (string, error) {
	out := new(wrapperspb.StringValue)
	err := cc.Invoke(ctx, "/kit.Test/Unary", wrapperspb.String(in), out, opts...)
	return out.Value, err
}

// start serves on an endpoint until the test ends or stop is called.
func start(t *testing.T, cfg rpc.ServerConfig, desc *grpc.ServiceDesc) (s *rpc.Server, stop func()) {
	t.Helper()
	s, err := rpc.NewServer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s.RegisterService(desc, nil)
	if err := s.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return s, stop
}

func dial(t *testing.T, endpoint string, cfg rpc.ClientConfig) *grpc.ClientConn {
	t.Helper()
	cc, err := rpc.Dial(endpoint, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cc.Close() })
	return cc
}

func wantReason(t *testing.T, err error, code codes.Code, reason string) {
	t.Helper()
	var f *fault.Error
	if !errors.As(err, &f) || f.Code != code || f.Reason != reason {
		t.Fatalf("got %v, want %v %s", err, code, reason)
	}
}

func TestErrorsPanicsDeadlinesAndMetrics(t *testing.T) {
	var log bytes.Buffer
	reg := prometheus.NewRegistry()
	endpoint := "unix:" + filepath.Join(t.TempDir(), "s")
	_, stop := start(t, rpc.ServerConfig{Process: "test", Listen: endpoint, Registry: reg, Log: logging.New(&log, "debug", "json", "test")},
		describe(func(ctx context.Context, in string) (string, error) {
			switch in {
			case "fault":
				return "", fault.Wrap(errors.New("inner"), codes.NotFound, "NO_SUCH", "no %s", in).With("k", "v")
			case "plain":
				return "", errors.New("inner")
			case "panic":
				panic("inner")
			case "wait":
				<-ctx.Done()
				return "", ctx.Err()
			}
			d, ok := ctx.Deadline()
			if !ok || time.Until(d) > rpc.ServerTimeout {
				return "", errors.New("no deadline")
			}
			return "re " + in, nil
		}, nil))
	cc := dial(t, endpoint, rpc.ClientConfig{Registry: reg})
	_ = dial(t, endpoint, rpc.ClientConfig{Registry: reg}) // shares the metrics
	ctx := t.Context()

	if got, err := call(ctx, cc, "x"); err != nil || got != "re x" {
		t.Fatalf("%q, %v", got, err)
	}
	_, err := call(ctx, cc, "fault")
	wantReason(t, err, codes.NotFound, "NO_SUCH")
	if f := fault.From(err); f.Meta["k"] != "v" || strings.Contains(f.Error(), "inner") {
		t.Errorf("%+v", f)
	}
	var refs []string
	for _, in := range []string{"plain", "panic"} {
		_, err = call(ctx, cc, in)
		wantReason(t, err, codes.Internal, "INTERNAL")
		if strings.Contains(err.Error(), "inner") {
			t.Errorf("the cause crossed: %v", err)
		}
		refs = append(refs, fault.From(err).Meta["reference"])
	}
	_, err = call(ctx, cc, "wait", rpc.Timeout(10*time.Millisecond))
	wantReason(t, err, codes.DeadlineExceeded, "DEADLINE_EXCEEDED")
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Error("not a context's error")
	}
	stop()
	for _, ref := range refs {
		if ref == "" || !strings.Contains(log.String(), ref) {
			t.Errorf("reference %q is not in the log:\n%s", ref, log.String())
		}
	}
	if !strings.Contains(log.String(), "inner") || !strings.Contains(log.String(), "goroutine") {
		t.Errorf("the log lacks the cause or the stack:\n%s", log.String())
	}
	for _, c := range []struct{ name, code string }{{rpc.MetricServerHandled, "OK"}, {rpc.MetricClientHandled, "NotFound"}, {rpc.MetricServerHandled, "Internal"}} {
		n, err := testutil.GatherAndCount(reg, c.name)
		if err != nil || n < 3 {
			t.Errorf("%s has %d series (%v)", c.name, n, err)
		}
	}
}

func TestHealthAndReflection(t *testing.T) {
	var server *rpc.Server
	cc := grpctest.Start(t, func(s *rpc.Server) { server = s })
	for _, want := range []healthpb.HealthCheckResponse_ServingStatus{healthpb.HealthCheckResponse_SERVING, healthpb.HealthCheckResponse_NOT_SERVING} {
		r, err := healthpb.NewHealthClient(cc).Check(t.Context(), &healthpb.HealthCheckRequest{})
		if err != nil || r.Status != want {
			t.Errorf("%v, %v", r, err)
		}
		server.SetServing(false)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s, err := reflectpb.NewServerReflectionClient(cc).ServerReflectionInfo(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Send(&reflectpb.ServerReflectionRequest{MessageRequest: &reflectpb.ServerReflectionRequest_ListServices{}}); err != nil {
		t.Fatal(err)
	}
	r, err := s.Recv()
	if err != nil || len(r.GetListServicesResponse().GetService()) < 2 {
		t.Errorf("%v, %v", r, err)
	}
}

func TestCallsWaitForAServerThatStartsLater(t *testing.T) {
	endpoint := "unix:" + filepath.Join(t.TempDir(), "s")
	cc := dial(t, endpoint, rpc.ClientConfig{Service: "the broker"})
	_, err := call(t.Context(), cc, "x", rpc.Timeout(50*time.Millisecond))
	wantReason(t, err, codes.Unavailable, rpc.ReasonUnreachable)
	if f := fault.From(err); f.Message != "the broker cannot be reached: is it running?" || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	got := make(chan error, 1)
	go func() { _, err := call(t.Context(), cc, "x"); got <- err }()
	start(t, rpc.ServerConfig{Listen: endpoint}, describe(func(context.Context, string) (string, error) { return "", nil }, nil))
	began := time.Now()
	if err := <-got; err != nil {
		t.Fatal(err)
	}
	if d := time.Since(began); d > 1500*time.Millisecond {
		t.Errorf("found it only after %v", d)
	}
}

func TestStopEndsLongStreamsAndFinishesCalls(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	entered, release := make(chan struct{}), make(chan struct{})
	_, stop := start(t, rpc.ServerConfig{Listen: "unix:" + path}, describe(
		func(context.Context, string) (string, error) { close(entered); <-release; return "done", nil },
		func(ss grpc.ServerStream) error {
			if err := ss.SendMsg(wrapperspb.String("hello")); err != nil {
				return err
			}
			<-ss.Context().Done()
			return context.Cause(ss.Context())
		}))
	cc := dial(t, "unix:"+path, rpc.ClientConfig{})
	s, err := cc.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/kit.Test/Stream")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.RecvMsg(new(wrapperspb.StringValue)); err != nil {
		t.Fatal(err)
	}
	answered := make(chan error, 1)
	go func() { _, err := call(t.Context(), cc, "x"); answered <- err }()
	<-entered
	stopped := make(chan struct{})
	go func() { stop(); close(stopped) }()
	wantReason(t, s.RecvMsg(new(wrapperspb.StringValue)), codes.Unavailable, fault.ReasonShuttingDown)
	close(release)
	if err := <-answered; err != nil {
		t.Errorf("the call in flight: %v", err)
	}
	<-stopped
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}

func TestStopIsForcedAfterItsGrace(t *testing.T) {
	endpoint := "unix:" + filepath.Join(t.TempDir(), "s")
	entered := make(chan struct{})
	_, stop := start(t, rpc.ServerConfig{Listen: endpoint, Grace: 20 * time.Millisecond},
		describe(func(ctx context.Context, _ string) (string, error) {
			close(entered)
			<-ctx.Done()
			return "", ctx.Err()
		}, nil))
	cc := dial(t, endpoint, rpc.ClientConfig{})
	errs := make(chan error, 1)
	go func() { _, err := call(t.Context(), cc, "x"); errs <- err }()
	<-entered
	stop()
	if err := <-errs; err == nil {
		t.Error("a call that was cut off succeeded")
	}
}

func TestUnixSockets(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	desc := describe(func(context.Context, string) (string, error) { return "", nil }, nil)
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false) // as after a kill
	_ = dead.Close()
	_, stop := start(t, rpc.ServerConfig{Listen: "unix:" + path}, desc)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	second, err := rpc.NewServer(rpc.ServerConfig{Listen: "unix:" + path})
	if err != nil {
		t.Fatal(err)
	}
	err = second.Listen(t.Context())
	wantReason(t, err, codes.FailedPrecondition, "ENDPOINT_IN_USE")
	if !strings.Contains(err.Error(), path) {
		t.Errorf("%v does not name the path", err)
	}
	if _, err := call(t.Context(), dial(t, "unix:"+path, rpc.ClientConfig{}), ""); err != nil {
		t.Errorf("the first no longer answers: %v", err)
	}
	stop()
	if err := os.WriteFile(path, []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	wantReason(t, second.Listen(t.Context()), codes.FailedPrecondition, "LISTEN_FAILED")
	if data, _ := os.ReadFile(path); string(data) != "data" {
		t.Error("a file that is no socket was removed")
	}
}

func TestEndpoints(t *testing.T) {
	for endpoint, reason := range map[string]string{
		"unix:/tmp/x": "", "127.0.0.1:0": "ENDPOINT_INSECURE", "tcp:[::1]:0": "ENDPOINT_INSECURE",
		"0.0.0.0:1": "ENDPOINT_INSECURE", ":1": "ENDPOINT_INSECURE", "broker:1": "ENDPOINT_INSECURE", "tcp:192.0.2.1:1": "ENDPOINT_INSECURE",
		"": "ENDPOINT_INVALID", "host": "ENDPOINT_INVALID", "unix:": "ENDPOINT_INVALID", "unix:/" + strings.Repeat("x", 107): "ENDPOINT_INVALID",
	} {
		_, serr := rpc.NewServer(rpc.ServerConfig{Listen: endpoint})
		cc, cerr := rpc.Dial(endpoint, rpc.ClientConfig{})
		if reason == "" {
			if serr != nil || cerr != nil {
				t.Errorf("%s: %v, %v", endpoint, serr, cerr)
				continue
			}
			_ = cc.Close()
			continue
		}
		wantReason(t, serr, codes.InvalidArgument, reason)
		wantReason(t, cerr, codes.InvalidArgument, reason)
	}
}

func TestWhatIsNoServiceIsCalledPlainlyOnLoopback(t *testing.T) {
	for endpoint, reason := range map[string]string{
		"127.0.0.1:1": "", "tcp:[::1]:1": "", "localhost:1": "", "unix:/tmp/x": "",
		"192.0.2.1:1": "ENDPOINT_INSECURE", "executor:1": "ENDPOINT_INSECURE", "x": "ENDPOINT_INVALID",
	} {
		cc, err := rpc.Dial(endpoint, rpc.ClientConfig{Plain: true})
		if reason != "" {
			wantReason(t, err, codes.InvalidArgument, reason)
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", endpoint, err)
			continue
		}
		_ = cc.Close()
	}
}
