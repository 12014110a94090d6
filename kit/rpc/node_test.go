package rpc_test

import (
	"bytes"
	"context"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/shallot-net/shallot/kit/logging"
	"github.com/shallot-net/shallot/kit/mtls"
	"github.com/shallot-net/shallot/kit/mtls/mtlstest"
	"github.com/shallot-net/shallot/kit/rpc"
)

// Calls of node's contract, with strings for messages: one that reads, one that does not, and a stream of each kind.
const (
	getNode    = "/shallot.node.v1.NodeService/GetNode"
	submitTask = "/shallot.node.v1.NodeService/SubmitTask"
	watchTask  = "/shallot.node.v1.NodeService/WatchTask"
	runTask    = "/shallot.node.v1.NodeService/RunTask"
)

func nodeService(unary unaryFunc, stream streamFunc) *grpc.ServiceDesc {
	d := &grpc.ServiceDesc{ServiceName: "shallot.node.v1.NodeService", HandlerType: (*any)(nil)}
	for _, name := range []string{"GetNode", "SubmitTask"} {
		full := "/" + d.ServiceName + "/" + name
		d.Methods = append(d.Methods, grpc.MethodDesc{MethodName: name, Handler: func(_ any, ctx context.Context, dec func(any) error, in grpc.UnaryServerInterceptor) (any, error) {
			req := new(wrapperspb.StringValue)
			if err := dec(req); err != nil {
				return nil, err
			}
			return in(ctx, req, &grpc.UnaryServerInfo{FullMethod: full}, func(ctx context.Context, req any) (any, error) {
				out, err := unary(ctx, req.(*wrapperspb.StringValue).Value)
				return wrapperspb.String(out), err
			})
		}})
	}
	for _, name := range []string{"WatchTask", "RunTask"} {
		d.Streams = append(d.Streams, grpc.StreamDesc{StreamName: name, ServerStreams: true, ClientStreams: true, Handler: func(_ any, ss grpc.ServerStream) error { return stream(ss) }})
	}
	return d
}

func invoke(ctx context.Context, cc *grpc.ClientConn, method, in string, opts ...grpc.CallOption) (string, error) {
	out := new(wrapperspb.StringValue)
	err := cc.Invoke(ctx, method, wrapperspb.String(in), out, opts...)
	return out.Value, err
}

// open opens a stream and waits for its first message.
func open(t *testing.T, ctx context.Context, cc *grpc.ClientConn, method string) (grpc.ClientStream, string) {
	t.Helper()
	s, err := cc.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method)
	if err != nil {
		t.Fatal(err)
	}
	return s, receive(t, s)
}

func receive(t *testing.T, s grpc.ClientStream) string {
	t.Helper()
	m := new(wrapperspb.StringValue)
	if err := s.RecvMsg(m); err != nil {
		t.Fatal(err)
	}
	return m.Value
}

// standing says who it is and then stands until its context ends.
func standing(name string) streamFunc {
	return func(ss grpc.ServerStream) error {
		if err := ss.SendMsg(wrapperspb.String(name)); err != nil {
			return err
		}
		<-ss.Context().Done()
		return context.Cause(ss.Context())
	}
}

func echo(_ context.Context, in string) (string, error) { return in, nil }

// lines is a log that may be read while it is written.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// secured is a node with TLS.
type secured struct {
	*rpc.Server
	addr  string
	log   *lines
	reg   *prometheus.Registry
	creds *mtls.Credentials
	stop  func()
}

func serveNode(t *testing.T, cfg rpc.ServerConfig, creds *mtls.Credentials, desc *grpc.ServiceDesc) *secured {
	t.Helper()
	n := &secured{log: &lines{}, reg: prometheus.NewRegistry(), creds: creds}
	cfg.Process, cfg.TLS, cfg.Registry, cfg.Log = "node", creds, n.reg, logging.New(n.log, "info", "json", "node")
	if cfg.Listen == "" {
		cfg.Listen = "127.0.0.1:0"
	}
	n.Server, n.stop = start(t, cfg, desc)
	n.SetServing(true)
	n.addr = n.Addr().String()
	return n
}

func dialNode(t *testing.T, addr string, ca *mtlstest.CA, as string) *grpc.ClientConn {
	t.Helper()
	return dial(t, addr, rpc.ClientConfig{Service: "the node", Peer: "node", TLS: ca.Credentials(as)})
}
