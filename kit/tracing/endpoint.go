package tracing

import (
	"net"
	"net/netip"
	"strings"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/shallot-net/shallot/kit/config"
	"github.com/shallot-net/shallot/kit/fault"
)

// parse says how the collector is called: in plain text only where nobody else can listen.
func parse(cfg config.Trace) (target string, creds credentials.TransportCredentials, err error) {
	if path, ok := strings.CutPrefix(cfg.Endpoint, "unix:"); ok {
		if !strings.HasPrefix(path, "/") || cfg.TLS {
			return "", nil, fault.InvalidArgument("ENDPOINT_INVALID", "trace.endpoint is %q: a Unix socket is unix:/path, and without trace.tls", cfg.Endpoint)
		}
		return "unix:" + path, insecure.NewCredentials(), nil
	}
	host, port, err := net.SplitHostPort(cfg.Endpoint)
	if err != nil || port == "" || host == "" {
		return "", nil, fault.InvalidArgument("ENDPOINT_INVALID", "trace.endpoint is %q: it must be host:port or unix:/path of a collector that takes OTLP over gRPC", cfg.Endpoint)
	}
	if cfg.TLS {
		return "dns:///" + cfg.Endpoint, credentials.NewTLS(nil), nil
	}
	if ip, err := netip.ParseAddr(host); host != "localhost" && (err != nil || !ip.IsLoopback()) {
		return "", nil, fault.InvalidArgument("ENDPOINT_INSECURE", "trace.endpoint is %q, which is not on loopback: set trace.tls, or use a collector on this machine or a Unix socket", cfg.Endpoint)
	}
	return "passthrough:///" + cfg.Endpoint, insecure.NewCredentials(), nil
}
