package tracing

import (
	"context"
	"crypto/rand"
	"log/slog"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"

	"github.com/shallot-net/shallot/kit/config"
	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/version"
)

// Bounds of what a process holds for its collector.
const (
	maxPending    = 2048            // spans that have ended and are not sent
	batch         = 512             // spans sent at once
	sendEvery     = 2 * time.Second // and at least so often
	exportTimeout = 5 * time.Second // of one try; there is no second one
	closeTimeout  = time.Second     // for what is left when the process ends
	maxAttributes = 16
	maxValue      = 128 // bytes of an attribute
)

// Tracer makes the spans of one process. A nil Tracer is one that is off: all its methods may be called, and do nothing.
type Tracer struct {
	provider *sdktrace.TracerProvider
	tracer   trace.Tracer
	tasks    tasks
	closer   func()
}

// Open makes the tracer that the settings ask for: nil where they name no collector. The collector need not be there; what it does not take is counted in registry and let go.
func Open(process string, cfg config.Trace, registry prometheus.Registerer, log *slog.Logger) (*Tracer, error) {
	if cfg.Endpoint == "" {
		return nil, nil
	}
	if cfg.Sample < 0 || cfg.Sample > 1 {
		return nil, fault.InvalidArgument("CONFIG_INVALID", "trace.sample is %v: it must be between 0, for no task, and 1, for all", cfg.Sample)
	}
	target, creds, err := parse(cfg)
	if err != nil {
		return nil, err
	}
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(creds), grpc.WithNoProxy(), grpc.WithDisableServiceConfig())
	if err != nil {
		return nil, fault.InvalidArgument("ENDPOINT_INVALID", "trace.endpoint is %q, which cannot be called", cfg.Endpoint).Because(err)
	}
	exporter := otlptrace.NewUnstarted(&client{conn})
	if err := exporter.Start(context.Background()); err != nil { // the client's does nothing
		return nil, err
	}
	t := open(process, exporter, cfg.Sample, registry, log)
	t.closer = func() { _ = conn.Close() }
	return t, nil
}

// open is Open with any exporter.
func open(process string, to sdktrace.SpanExporter, sample float64, registry prometheus.Registerer, log *slog.Logger) *Tracer {
	g := newGuard(to, registry, log)
	limits := sdktrace.NewSpanLimits()
	limits.AttributeCountLimit, limits.AttributeValueLengthLimit, limits.EventCountLimit, limits.LinkCountLimit = maxAttributes, maxValue, 0, 4
	p := sdktrace.NewTracerProvider(
		// Not resource.Default: it tells the name of the host and what the environment says.
		sdktrace.WithResource(resource.NewSchemaless(attribute.String("service.name", "shallot-"+process), attribute.String("service.version", version.String()),
			attribute.String("service.instance.id", rand.Text()[:8]))),
		sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(sample))),
		sdktrace.WithRawSpanLimits(limits),
		sdktrace.WithSpanProcessor(&gate{sdktrace.NewBatchSpanProcessor(g, sdktrace.WithMaxQueueSize(2*maxPending), sdktrace.WithMaxExportBatchSize(batch),
			sdktrace.WithBatchTimeout(sendEvery), sdktrace.WithExportTimeout(exportTimeout)), g}))
	return &Tracer{provider: p, tracer: p.Tracer("shallot"), closer: func() {}}
}

// Close sends what is left, for a second at most.
func (t *Tracer) Close() {
	if t == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	_ = t.provider.Shutdown(ctx) // what could not be sent is counted
	t.closer()
}

// Span is one piece of work; the zero Span is none.
type Span struct{ span trace.Span }

// Start begins a span under that of ctx, or one that is the first of its trace.
func (t *Tracer) Start(ctx context.Context, name string) (context.Context, Span) {
	if t == nil {
		return ctx, Span{}
	}
	ctx, s := t.tracer.Start(ctx, name)
	return ctx, Span{s}
}

// StartServer is Start for a request from outside of the node's services.
func (t *Tracer) StartServer(ctx context.Context, name string) (context.Context, Span) {
	if t == nil {
		return ctx, Span{}
	}
	ctx, s := t.tracer.Start(ctx, name, trace.WithSpanKind(trace.SpanKindServer))
	return ctx, Span{s}
}

// Task begins a span in the trace of a task: the one that this process has seen it in, else that of ctx, else a new one, which later spans of the task then join.
func (t *Tracer) Task(ctx context.Context, task, name string) (context.Context, Span) {
	if t == nil {
		return ctx, Span{}
	}
	var opts []trace.SpanStartOption
	here := trace.SpanContextFromContext(ctx)
	if known, ok := t.tasks.get(task); ok && known.TraceID() != here.TraceID() {
		if here.IsValid() {
			opts = append(opts, trace.WithLinks(trace.Link{SpanContext: here}))
		}
		ctx = trace.ContextWithRemoteSpanContext(ctx, known)
	}
	ctx, s := t.tracer.Start(ctx, name, opts...)
	span := Span{s}
	if task != "" {
		t.tasks.add(task, s.SpanContext())
		span.SetTask(task)
	}
	return ctx, span
}

// Remember has later spans of a task join the trace that ctx is in.
func (t *Tracer) Remember(ctx context.Context, task string) {
	if t == nil || task == "" {
		return
	}
	if here := trace.SpanContextFromContext(ctx); here.IsValid() {
		t.tasks.add(task, here)
		Span{trace.SpanFromContext(ctx)}.SetTask(task)
	}
}

// From puts ctx into the trace that another process of the node sent with a message, as Parent gave it.
func (t *Tracer) From(ctx context.Context, parent string) context.Context {
	if t == nil || parent == "" || len(parent) > maxValue {
		return ctx
	}
	return propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{traceparent: parent})
}

// ParentOf is Parent for what comes next of a task: empty where this process has not seen it.
func (t *Tracer) ParentOf(task string) string {
	if t == nil {
		return ""
	}
	known, ok := t.tasks.get(task)
	if !ok {
		return ""
	}
	return Parent(trace.ContextWithRemoteSpanContext(context.Background(), known))
}

const traceparent = "traceparent"

// Parent is the span of ctx in the form that travels in a message between processes of one node (W3C traceparent); empty where there is none.
func Parent(ctx context.Context) string {
	if !trace.SpanContextFromContext(ctx).IsValid() {
		return ""
	}
	m := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, m)
	return m[traceparent]
}

// Attributes of spans, beside those of gRPC and HTTP.
const (
	KeyTask     = attribute.Key("shallot.task.id")
	KeyTaskType = attribute.Key("shallot.task.type")
	KeyAttempt  = attribute.Key("shallot.task.attempt")
	KeyEvent    = attribute.Key("shallot.event.type")
	KeyReason   = attribute.Key("shallot.reason")
	KeyRoute    = attribute.Key("http.route")
	KeyMethod   = attribute.Key("http.request.method")
	KeyStatus   = attribute.Key("http.response.status_code")
)

// End ends the span.
func (s Span) End() {
	if s.span != nil {
		s.span.End()
	}
}

// SetTask says which task this is about.
func (s Span) SetTask(id string) { s.set(KeyTask.String(id)) }

// SetType says of what type it is.
func (s Span) SetType(typ string) { s.set(KeyTaskType.String(typ)) }

// SetAttempt says which attempt this is.
func (s Span) SetAttempt(n uint32) { s.set(KeyAttempt.Int64(int64(n))) }

// SetEvent says the type of an event.
func (s Span) SetEvent(typ string) { s.set(KeyEvent.String(strings.TrimPrefix(typ, "EVENT_TYPE_"))) }

// SetReason says how it ended, in UPPER_SNAKE.
func (s Span) SetReason(reason string) {
	if reason != "" {
		s.set(KeyReason.String(reason))
	}
}

// SetRequest says which request of REST this is; route is its pattern.
func (s Span) SetRequest(method, route string, status int) {
	if s.span == nil {
		return
	}
	s.span.SetName(method + " " + route)
	s.set(KeyMethod.String(method))
	s.set(KeyRoute.String(route))
	s.set(KeyStatus.Int(status))
	if status >= 500 {
		s.span.SetStatus(codes.Error, "")
	}
}

// Failed marks the span by an error's reason; its text stays here. Nil changes nothing.
func (s Span) Failed(err error) {
	if err == nil || s.span == nil {
		return
	}
	s.set(KeyReason.String(fault.From(err).Reason))
	s.span.SetStatus(codes.Error, "")
}

func (s Span) set(kv attribute.KeyValue) {
	if s.span != nil {
		s.span.SetAttributes(kv)
	}
}
