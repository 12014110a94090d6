package rpc

import (
	"context"
	"net"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/mtls"
	"github.com/shallot-net/shallot/kit/tracing"
)

// How a client off the Unix socket finds out that a replica is gone: a paused one answers nothing and breaks no connection. Both together are less than the time in
// which a replica has to be out of rotation, and gRPC asks no more often.
const (
	clientKeepalive = 10 * time.Second
	clientPatience  = 3 * time.Second
)

// ClientConfig says how to call; its zero value works on one machine.
type ClientConfig struct {
	Service    string                // what is called, for error messages: "the broker"
	Peer       string                // the service that has to answer off the Unix socket, as its certificate names it: "broker"
	TLS        *mtls.Credentials     // required off the Unix socket, together with Peer
	Plain      bool                  // what is called is no service of a node: over TCP it is called without TLS, and on loopback only
	Registry   prometheus.Registerer // clients of one process share the metrics
	MaxMessage int                   // bytes; default MaxMessage
	Timeout    time.Duration         // of unary calls without a deadline; default ClientTimeout
	// Dialer replaces dialling the endpoint, for an inherited or in-memory connection; it is trusted without TLS.
	Dialer  func(ctx context.Context) (net.Conn, error)
	Trace   *tracing.Tracer // default: no spans
	Options []grpc.DialOption
}

// Dial returns at once; the connection is made by the first call, and made again when it breaks. Calls wait for
// it until their deadline. Errors that they return are *fault.Error.
func Dial(target string, cfg ClientConfig) (*grpc.ClientConn, error) {
	if cfg.MaxMessage <= 0 {
		cfg.MaxMessage = MaxMessage
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = ClientTimeout
	}
	if cfg.Service == "" {
		cfg.Service = "the service"
	}
	i := &clientInterceptor{service: cfg.Service, metrics: newCallMetrics(cfg.Registry, MetricClientHandled, MetricClientSeconds, "client"), timeout: cfg.Timeout}
	opts := []grpc.DialOption{
		grpc.WithUnaryInterceptor(i.unary), grpc.WithStreamInterceptor(i.stream),
		grpc.WithDefaultCallOptions(grpc.WaitForReady(true), grpc.MaxCallRecvMsgSize(cfg.MaxMessage), grpc.MaxCallSendMsgSize(cfg.MaxMessage)),
		grpc.WithInitialWindowSize(window), grpc.WithInitialConnWindowSize(4 * window),
		// The processes of a node start together: they must find each other within milliseconds.
		grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: 3 * time.Second,
			Backoff: backoff.Config{BaseDelay: 10 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second}}),
		grpc.WithIdleTimeout(0), grpc.WithDisableServiceConfig(),
	}
	to, more, err := i.route(target, cfg)
	if err != nil {
		return nil, err
	}
	cc, err := grpc.NewClient(to, slices.Concat(opts, more, cfg.Trace.DialOptions(), cfg.Options)...)
	if err != nil {
		return nil, fault.Wrap(err, codes.InvalidArgument, "ENDPOINT_INVALID", "cannot call %q", target)
	}
	return cc, nil
}

// route is where calls go and how: as they are to one process on this machine, with TLS and among replicas elsewhere.
func (i *clientInterceptor) route(target string, cfg ClientConfig) (string, []grpc.DialOption, error) {
	plain := []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 10 * time.Second, PermitWithoutStream: true})}
	if cfg.Dialer != nil {
		return "passthrough:///inherited", append(plain, grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return cfg.Dialer(ctx) })), nil
	}
	if cfg.Plain {
		e, err := parsePlain(target)
		return e.target(), plain, err
	}
	e, err := parseEndpoint(target, cfg.TLS != nil)
	if err != nil || e.network == "unix" {
		return e.target(), plain, err
	}
	if cfg.Peer == "" {
		return "", nil, fault.InvalidArgument("ENDPOINT_INVALID", "endpoint %q is called over TLS, and nobody said which service has to answer there", target)
	}
	i.trouble, i.replicas = &mtls.Trouble{}, true
	return e.target(), []grpc.DialOption{
		grpc.WithTransportCredentials(cfg.TLS.Client(cfg.Peer, i.trouble)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: clientKeepalive, Timeout: clientPatience, PermitWithoutStream: true}),
		grpc.WithDefaultServiceConfig(replicaConfig), grpc.WithResolvers(pollingBuilder()), grpc.WithNoProxy(),
	}, nil
}
