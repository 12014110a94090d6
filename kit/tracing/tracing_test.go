package tracing

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	collectorv1 "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"
	grpccodes "google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/shallot-net/shallot/kit/config"
	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/mtls"
	"github.com/shallot-net/shallot/kit/mtls/mtlstest"
)

// taker is an exporter that keeps what it gets, and holds or refuses it where it is told to.
type taker struct {
	mu    sync.Mutex
	spans []sdktrace.ReadOnlySpan
	hold  chan struct{} // not nil: exports wait for it, or for their end
	err   error
}

func (x *taker) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	if x.hold != nil {
		select {
		case <-x.hold:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.spans = append(x.spans, spans...)
	return x.err
}

func (x *taker) Shutdown(context.Context) error { return nil }

func (x *taker) named(t *testing.T, name string) sdktrace.ReadOnlySpan {
	t.Helper()
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, s := range x.spans {
		if s.Name() == name {
			return s
		}
	}
	t.Fatalf("no span %s", name)
	return nil
}

var quiet = slog.New(slog.DiscardHandler)

func TestOffIsNothing(t *testing.T) {
	off, err := Open("node", config.Trace{Sample: 1}, nil, quiet)
	if off != nil || err != nil {
		t.Fatal(off, err)
	}
	ctx, span := off.Task(t.Context(), "x", "y")
	span.SetReason("Z")
	span.Failed(errors.New("no"))
	span.End()
	off.Remember(ctx, "x")
	off.Close()
	if ctx != t.Context() || Parent(ctx) != "" || off.ParentOf("x") != "" || off.From(ctx, "00-x") != ctx || len(off.DialOptions())+len(off.ServerOptions()) > 0 {
		t.Error("a tracer that is off does something")
	}
	if n := testing.AllocsPerRun(100, func() {
		_, s := off.Task(ctx, "x", "y")
		s.SetEvent("E")
		s.End()
	}); n > 0 {
		t.Errorf("a span that is off costs %v allocations", n)
	}
}

func TestTheCollectorIsCalledInTheOpenOnThisMachineAlone(t *testing.T) {
	for endpoint, ok := range map[string]bool{
		"127.0.0.1:4317": true, "[::1]:4317": true, "localhost:4317": true, "unix:/run/otel.sock": true,
		"10.0.0.1:4317": false, "collector:4317": false, "0.0.0.0:4317": false, "unix:otel.sock": false, "http://127.0.0.1:4317": false, "127.0.0.1": false, ":4317": false,
	} {
		x, err := Open("node", config.Trace{Endpoint: endpoint, Sample: 1}, nil, quiet)
		if (err == nil) != ok || err != nil && !strings.Contains(err.Error(), "trace.endpoint") {
			t.Errorf("%s: %v", endpoint, err)
		}
		x.Close()
	}
	x, err := Open("node", config.Trace{Endpoint: "collector:4317", TLS: true, Sample: 1}, nil, quiet)
	if err != nil {
		t.Error(err)
	}
	x.Close()
	for _, sample := range []float64{-0.1, 1.1} {
		if _, err := Open("node", config.Trace{Endpoint: "unix:/x", Sample: sample}, nil, quiet); err == nil {
			t.Errorf("a sample of %v is taken", sample)
		}
	}
}

func TestOneTaskIsOneTrace(t *testing.T) {
	to := &taker{}
	x := open("node", to, 1, nil, quiet)
	ctx, request := x.StartServer(t.Context(), "request")
	ctx, submit := x.Start(ctx, "submit")
	x.Remember(ctx, "a")
	submit.End()
	request.SetRequest("POST", "/v1/tasks", 200)
	request.End()
	// By another process, which is told in a message, and later by itself.
	y := open("task", to, 1, nil, quiet)
	there := y.From(t.Context(), Parent(ctx))
	y.Remember(there, "a")
	_, create := y.Start(there, "create")
	create.End()
	_, run := y.Task(t.Context(), "a", "run")
	run.End()
	if got := y.ParentOf("a"); got != Parent(there) {
		t.Errorf("the parent is %q", got)
	}
	// An event that came in a trace of its own joins that of its task, and says where it came from.
	ctx, event := x.Start(t.Context(), "event")
	_, deliver := x.Task(ctx, "a", "deliver")
	deliver.End()
	event.End()
	_, other := x.Task(t.Context(), "b", "other")
	other.End()
	x.Close()
	y.Close()
	first := to.named(t, "POST /v1/tasks").SpanContext().TraceID()
	for _, name := range []string{"submit", "create", "run", "deliver"} {
		if to.named(t, name).SpanContext().TraceID() != first {
			t.Errorf("%s is in another trace", name)
		}
	}
	if got := to.named(t, "other"); got.SpanContext().TraceID() == first || !slices.Contains(got.Attributes(), KeyTask.String("b")) {
		t.Errorf("another task: %v", got.Attributes())
	}
	if links := to.named(t, "deliver").Links(); len(links) != 1 || links[0].SpanContext.TraceID() != to.named(t, "event").SpanContext().TraceID() {
		t.Errorf("links %v", links)
	}
}

func TestSpansSayNothingOfPeers(t *testing.T) {
	const peer = "12D3KooWGPRKSYkQtsAcnwUkCujXPGrYnyTxyWFzXxrsRvAMhKCf"
	to := &taker{}
	x := open("node", to, 1, nil, quiet)
	_, s := x.Task(t.Context(), "a", "send")
	s.Failed(fault.Unavailable("UNREACHABLE", "%s is away", peer))
	raw := s.span
	raw.SetAttributes(attribute.String("server.address", peer), attribute.String("network.peer.address", "192.0.2.1"), attribute.String("rpc.method", "M"))
	raw.AddEvent("said", trace.WithAttributes(attribute.String("to", peer)))
	raw.RecordError(errors.New(peer))
	raw.SetStatus(codes.Error, peer)
	raw.AddLink(trace.Link{SpanContext: raw.SpanContext(), Attributes: []attribute.KeyValue{attribute.String("peer", peer)}})
	s.End()
	x.Close()
	got := to.named(t, "send")
	said := fmt.Sprint(got.Attributes(), got.Events(), got.Links(), got.Status(), got.Resource())
	if strings.Contains(said, peer) || strings.Contains(said, "192.0.2.1") {
		t.Errorf("a span says %s", said)
	}
	if a := got.Attributes(); !slices.Contains(a, KeyReason.String("UNREACHABLE")) || !slices.Contains(a, attribute.String("rpc.method", "M")) || got.Status().Code != codes.Error {
		t.Errorf("and not what it should: %s", said)
	}
}

func count(t *testing.T, r *prometheus.Registry, outcome string) float64 {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == MetricSpans && m.GetLabel()[0].GetValue() == outcome {
				return m.GetCounter().GetValue()
			}
		}
	}
	return -1
}

func TestACollectorThatHangsStopsNobody(t *testing.T) {
	r := prometheus.NewRegistry()
	to := &taker{hold: make(chan struct{})}
	x := open("node", to, 1, r, quiet)
	const all = 3 * maxPending
	begin := time.Now()
	for range all {
		_, s := x.Start(t.Context(), "s")
		s.End()
	}
	if took := time.Since(begin); took > exportTimeout {
		t.Errorf("%d spans took %v", all, took)
	}
	if got := count(t, r, "dropped"); got != all-maxPending {
		t.Errorf("%v of %d were let go", got, all)
	}
	close(to.hold)
	x.Close()
	if sent, failed := count(t, r, "sent"), count(t, r, "failed"); sent+failed != maxPending || sent == 0 {
		t.Errorf("%v sent, %v failed", sent, failed)
	}
}

func TestACollectorThatIsAwayIsCounted(t *testing.T) {
	r := prometheus.NewRegistry()
	x := open("node", &taker{err: errors.New("away")}, 1, r, quiet)
	_, s := x.Start(t.Context(), "s")
	s.End()
	x.Close()
	if got := count(t, r, "failed"); got != 1 {
		t.Errorf("%v failed", got)
	}
	if problems, err := testutil.GatherAndLint(r); err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
}

// collector takes spans over OTLP.
type collector struct {
	collectorv1.UnimplementedTraceServiceServer
	got chan *collectorv1.ExportTraceServiceRequest
}

func (c *collector) Export(_ context.Context, r *collectorv1.ExportTraceServiceRequest) (*collectorv1.ExportTraceServiceResponse, error) {
	c.got <- r
	return &collectorv1.ExportTraceServiceResponse{}, nil
}

func TestOverTheWire(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "otel.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	c := &collector{got: make(chan *collectorv1.ExportTraceServiceRequest, 8)}
	server := grpc.NewServer()
	collectorv1.RegisterTraceServiceServer(server, c)
	go func() { _ = server.Serve(l) }()
	defer server.Stop()
	r := prometheus.NewRegistry()
	for _, sample := range []float64{0, 1} {
		x, err := Open("node", config.Trace{Endpoint: "unix:" + socket, Sample: sample}, r, quiet)
		if err != nil {
			t.Fatal(err)
		}
		ctx, s := x.Start(t.Context(), "outer")
		_, inner := x.Task(ctx, "a", "inner")
		inner.End()
		s.End()
		x.Close() // returns when it was sent
		if got := len(c.got); got != int(sample) {
			t.Errorf("with a sample of %v there were %d requests", sample, got)
		}
		r = prometheus.NewRegistry()
	}
	if t.Failed() {
		return
	}
	spans := (<-c.got).GetResourceSpans()[0].GetScopeSpans()[0].GetSpans()
	if len(spans) != 2 {
		t.Errorf("got %v", spans)
	}
}

// Services of the node say in which trace a call is, and nobody else does.
func TestWhoCallsFromOutsideSaysNoTrace(t *testing.T) {
	const method = "/shallot.node.v1.NodeService/GetNode"
	parent := "00-" + strings.Repeat("ab", 16) + "-" + strings.Repeat("cd", 8) + "-01"
	ca := mtlstest.NewCA(t)
	for caller, followed := range map[string]bool{"gateway": true, "cli/laptop": false} {
		x := &taker{}
		tracer := open("node", x, 0, nil, quiet) // of its own accord it takes none
		creds, err := ca.Credentials("node").Server(func(reason string) { t.Errorf("%s is refused: %s", caller, reason) })
		if err != nil {
			t.Fatal(err)
		}
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		server := grpc.NewServer(append(tracer.ServerOptions(), grpc.Creds(creds), grpc.UnknownServiceHandler(func(any, grpc.ServerStream) error { return nil }))...)
		go func() { _ = server.Serve(l) }()
		cc, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(ca.Credentials(caller).Client("node", &mtls.Trouble{})))
		if err != nil {
			t.Fatal(err)
		}
		ctx := metadata.AppendToOutgoingContext(t.Context(), traceparent, parent)
		if err := cc.Invoke(ctx, method, &emptypb.Empty{}, &emptypb.Empty{}, grpc.WaitForReady(true)); status.Code(err) != grpccodes.Internal { // an answer without a message
			t.Errorf("%s: %v", caller, err)
		}
		_ = cc.Close()
		server.GracefulStop()
		tracer.Close()
		if (len(x.spans) == 1) != followed || followed && x.spans[0].SpanContext().TraceID().String() != strings.Repeat("ab", 16) {
			t.Errorf("%s: %v", caller, x.spans)
		}
	}
}

func TestTasksAreRememberedWithinABound(t *testing.T) {
	var known tasks
	c := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{1}})
	for i := range 2*maxTasks + 7 {
		known.add(fmt.Sprint(i), c)
	}
	_, old := known.get(fmt.Sprint(maxTasks + 6))
	_, young := known.get(fmt.Sprint(maxTasks + 7))
	if len(known.known) != maxTasks || old || !young {
		t.Errorf("%d are known, the one that is too old %v, the oldest %v", len(known.known), old, young)
	}
}
