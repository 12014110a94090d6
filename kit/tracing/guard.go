package tracing

import (
	"context"
	"log/slog"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/attribute"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/shallot-net/shallot/kit/logging"
)

// MetricSpans counts spans by what became of them: sent, failed (the collector did not take them) or dropped (too many were waiting for it).
const MetricSpans = "shallot_trace_spans_total"

// guard is the exporter that spans go through: it takes out what may not be said, counts, and never gives up for good.
type guard struct {
	to                    sdktrace.SpanExporter
	log                   *slog.Logger
	sent, failed, dropped prometheus.Counter
	pending               atomic.Int64
	away                  atomic.Bool
}

func newGuard(to sdktrace.SpanExporter, registry prometheus.Registerer, log *slog.Logger) *guard {
	spans := prometheus.NewCounterVec(prometheus.CounterOpts{Name: MetricSpans, Help: "Spans that ended, by what became of them."}, []string{"outcome"})
	if registry != nil {
		registry.MustRegister(spans)
	}
	return &guard{to: to, log: log, sent: spans.WithLabelValues("sent"), failed: spans.WithLabelValues("failed"), dropped: spans.WithLabelValues("dropped")}
}

// ExportSpans never returns an error: the SDK would print it on a line of its own.
func (g *guard) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	defer g.pending.Add(-int64(len(spans)))
	clean := make([]sdktrace.ReadOnlySpan, len(spans))
	for i, s := range spans {
		clean[i] = cleaned{s}
	}
	err := g.to.ExportSpans(ctx, clean)
	if err != nil {
		g.failed.Add(float64(len(spans)))
		if !g.away.Swap(true) {
			g.log.Warn("the collector of traces does not take them; they are let go until it does", logging.Err(err))
		}
		return nil
	}
	g.sent.Add(float64(len(spans)))
	if g.away.Swap(false) {
		g.log.Info("the collector of traces takes them again")
	}
	return nil
}

// Shutdown ends the exporter.
func (g *guard) Shutdown(ctx context.Context) error { return g.to.Shutdown(ctx) }

// gate drops, and counts, what ends while too much is waiting.
type gate struct {
	sdktrace.SpanProcessor
	g *guard
}

// OnEnd never blocks.
func (p *gate) OnEnd(s sdktrace.ReadOnlySpan) {
	if !s.SpanContext().IsSampled() {
		return
	}
	if p.g.pending.Add(1) > maxPending {
		p.g.pending.Add(-1)
		p.g.dropped.Inc()
		return
	}
	p.SpanProcessor.OnEnd(s)
}

// may is what spans may have: nothing that names a peer, a client or a place. gRPC's instrumentation tells addresses and texts of errors by itself.
var may = map[attribute.Key]bool{
	KeyTask: true, KeyTaskType: true, KeyAttempt: true, KeyEvent: true, KeyReason: true, KeyRoute: true, KeyMethod: true, KeyStatus: true,
	"rpc.system": true, "rpc.system.name": true, "rpc.service": true, "rpc.method": true, "rpc.grpc.status_code": true, "rpc.response.status_code": true, "error.type": true,
}

type cleaned struct{ sdktrace.ReadOnlySpan }

func (c cleaned) Attributes() []attribute.KeyValue {
	all := c.ReadOnlySpan.Attributes()
	out := make([]attribute.KeyValue, 0, len(all))
	for _, kv := range all {
		if may[kv.Key] {
			out = append(out, kv)
		}
	}
	return out
}

func (c cleaned) Events() []sdktrace.Event { return nil }

func (c cleaned) Links() []sdktrace.Link {
	var out []sdktrace.Link
	for _, l := range c.ReadOnlySpan.Links() {
		out = append(out, sdktrace.Link{SpanContext: l.SpanContext})
	}
	return out
}

func (c cleaned) Status() sdktrace.Status {
	return sdktrace.Status{Code: c.ReadOnlySpan.Status().Code}
}
