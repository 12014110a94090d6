package rpc

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"time"

	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/shallot-net/shallot/kit/fault"
)

// healthWithin bounds CheckHealth: whoever asks does so every few seconds.
const healthWithin = 2 * time.Second

// CheckHealth asks the process that listens on an endpoint of this machine whether it is ready, and returns nil when it is. It blocks for two
// seconds at most. listen is what the process was told to listen on; on all interfaces it is asked on loopback.
func CheckHealth(ctx context.Context, listen string, cfg ClientConfig) error {
	ctx, cancel := context.WithTimeout(ctx, healthWithin)
	defer cancel()
	// A client that chooses among replicas calls none that is not ready, and here just that one is asked.
	cfg.Options = append(cfg.Options, grpc.WithDisableHealthCheck())
	conn, err := Dial(onThisMachine(listen), cfg)
	if err != nil {
		return err
	}
	defer conn.Close()
	answer, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{})
	if err != nil {
		return err
	}
	if answer.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		return fault.Unavailable("NOT_READY", "%s runs and is not ready: its log says what it waits for", cfg.Service)
	}
	return nil
}

// onThisMachine is where somebody on this machine reaches what listens there.
func onThisMachine(listen string) string {
	host, port, err := net.SplitHostPort(strings.TrimPrefix(listen, "tcp:"))
	if err != nil || strings.HasPrefix(listen, "unix:") {
		return listen
	}
	if ip, err := netip.ParseAddr(host); host != "" && (err != nil || !ip.IsUnspecified()) {
		return listen
	}
	return net.JoinHostPort("localhost", port)
}
