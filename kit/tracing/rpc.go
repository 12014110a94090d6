package tracing

import (
	"context"
	"strings"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/propagation"
	"google.golang.org/grpc"
	"google.golang.org/grpc/stats"

	"github.com/shallot-net/shallot/kit/mtls"
	"github.com/shallot-net/shallot/kit/policy"
)

// ServerOptions have a server make a span of each call. Who calls from outside of the node does not say which trace that is in, nor whether it is taken.
func (t *Tracer) ServerOptions() []grpc.ServerOption {
	if t == nil {
		return nil
	}
	outside := otelgrpc.WithPublicEndpointFn(func(ctx context.Context, _ *stats.RPCTagInfo) bool { return mtls.FromOutside(ctx) })
	return []grpc.ServerOption{grpc.StatsHandler(otelgrpc.NewServerHandler(append(t.options(), outside)...))}
}

// DialOptions have a client make a span of each call, and tell the server of it.
func (t *Tracer) DialOptions() []grpc.DialOption {
	if t == nil {
		return nil
	}
	return []grpc.DialOption{grpc.WithStatsHandler(otelgrpc.NewClientHandler(t.options()...))}
}

func (t *Tracer) options() []otelgrpc.Option {
	return []otelgrpc.Option{otelgrpc.WithTracerProvider(t.provider), otelgrpc.WithMeterProvider(metricnoop.NewMeterProvider()),
		otelgrpc.WithPropagators(propagation.TraceContext{}), otelgrpc.WithFilter(wanted)}
}

// wanted leaves out what is asked all the time, and streams that stand as long as both sides live: what goes over those has spans of its own.
func wanted(i *stats.RPCTagInfo) bool {
	return !policy.Long(i.FullMethodName) && !strings.HasPrefix(i.FullMethodName, "/grpc.") && !strings.HasPrefix(i.FullMethodName, "/shallot.telemetry.") &&
		strings.HasPrefix(i.FullMethodName, "/shallot.")
}
