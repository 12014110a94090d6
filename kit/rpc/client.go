package rpc

import (
	"context"
	"crypto/tls"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	"github.com/shallot-net/shallot/kit/fault"
)

// ClientConfig says how to call; its zero value works on one machine.
type ClientConfig struct {
	Service    string                // what is called, for error messages: "the broker"
	TLS        *tls.Config           // required off loopback
	Registry   prometheus.Registerer // clients of one process share the metrics
	MaxMessage int                   // bytes; default MaxMessage
	Timeout    time.Duration         // of unary calls without a deadline; default ClientTimeout
	// Dialer replaces dialling the endpoint, for an inherited or in-memory connection; it is trusted without TLS.
	Dialer  func(ctx context.Context) (net.Conn, error)
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
	creds := insecure.NewCredentials()
	if cfg.TLS != nil {
		creds = credentials.NewTLS(cfg.TLS)
	}
	i := &clientInterceptor{cfg.Service, newCallMetrics(cfg.Registry, MetricClientHandled, MetricClientSeconds, "client"), cfg.Timeout}
	opts := []grpc.DialOption{
		grpc.WithTransportCredentials(creds),
		grpc.WithUnaryInterceptor(i.unary), grpc.WithStreamInterceptor(i.stream),
		grpc.WithDefaultCallOptions(grpc.WaitForReady(true), grpc.MaxCallRecvMsgSize(cfg.MaxMessage), grpc.MaxCallSendMsgSize(cfg.MaxMessage)),
		grpc.WithInitialWindowSize(window), grpc.WithInitialConnWindowSize(4 * window),
		// The processes of a node start together: they must find each other within milliseconds.
		grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: 3 * time.Second,
			Backoff: backoff.Config{BaseDelay: 10 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second}}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 10 * time.Second, PermitWithoutStream: true}),
		grpc.WithIdleTimeout(0), grpc.WithDisableServiceConfig(),
	}
	to := "passthrough:///inherited"
	if cfg.Dialer != nil {
		opts = append(opts, grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return cfg.Dialer(ctx) }))
	} else {
		e, err := parseEndpoint(target, cfg.TLS != nil)
		if err != nil {
			return nil, err
		}
		to = e.target()
	}
	cc, err := grpc.NewClient(to, append(opts, cfg.Options...)...)
	if err != nil {
		return nil, fault.Wrap(err, codes.InvalidArgument, "ENDPOINT_INVALID", "cannot call %q", target)
	}
	return cc, nil
}
