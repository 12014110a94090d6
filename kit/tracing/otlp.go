package tracing

import (
	"context"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	tracev1 "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/emptypb"
)

// client is OTLP over gRPC. otlptracegrpc, which is the same with retries and settings of its own, brings a second copy of grpc-gateway's runtime and net/http into every process: a megabyte of
// each one's memory, also where nothing is traced.
type client struct{ conn *grpc.ClientConn }

var _ otlptrace.Client = (*client)(nil)

const export = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"

// Start does nothing: the connection is made by the first export.
func (*client) Start(context.Context) error { return nil }

// Stop does nothing: who made the connection closes it.
func (*client) Stop(context.Context) error { return nil }

// UploadTraces makes one try. TracesData has the fields of the request, and of the answer nothing is of interest.
func (c *client) UploadTraces(ctx context.Context, spans []*tracev1.ResourceSpans) error {
	ctx, cancel := context.WithTimeout(ctx, exportTimeout)
	defer cancel()
	return c.conn.Invoke(ctx, export, &tracev1.TracesData{ResourceSpans: spans}, &emptypb.Empty{})
}
