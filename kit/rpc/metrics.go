package rpc

import (
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
)

// Metric names. The method label is "package.Service/Method", the code label gRPC's name of the status code.
const (
	MetricServerHandled = "shallot_rpc_server_handled_total"
	MetricServerSeconds = "shallot_rpc_server_seconds"
	MetricServerPanics  = "shallot_rpc_server_panics_total"
	MetricClientHandled = "shallot_rpc_client_handled_total"
	MetricClientSeconds = "shallot_rpc_client_seconds"
)

var buckets = []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10}

// callMetrics keeps the children of each method, so that a call costs no look-up by labels.
type callMetrics struct {
	handled *prometheus.CounterVec
	seconds *prometheus.HistogramVec
	methods sync.Map // string -> *methodMetrics
}

type methodMetrics struct {
	seconds prometheus.Observer
	codes   [17]atomic.Pointer[prometheus.Counter]
}

func newCallMetrics(r prometheus.Registerer, handled, seconds, side string) *callMetrics {
	if r == nil {
		return nil
	}
	return &callMetrics{
		handled: register(r, prometheus.NewCounterVec(prometheus.CounterOpts{Name: handled, Help: "Calls that ended, by " + side + ", method and code."}, []string{"method", "code"})),
		seconds: register(r, prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: seconds, Help: "Time of unary calls by " + side + " and method.", Buckets: buckets}, []string{"method"})),
	}
}

// register returns the collector that is there already, if one is: several clients share theirs.
func register[C prometheus.Collector](r prometheus.Registerer, c C) C {
	var there prometheus.AlreadyRegisteredError
	if err := r.Register(c); errors.As(err, &there) {
		if old, ok := there.ExistingCollector.(C); ok {
			return old
		}
	}
	return c
}

// done counts one call; streams have no time that means anything.
func (m *callMetrics) done(method string, code codes.Code, start time.Time) {
	if m == nil {
		return
	}
	v, ok := m.methods.Load(method)
	if !ok {
		v, _ = m.methods.LoadOrStore(method, &methodMetrics{seconds: m.seconds.WithLabelValues(strings.TrimPrefix(method, "/"))})
	}
	mm := v.(*methodMetrics)
	if code > 16 {
		code = codes.Unknown
	}
	c := mm.codes[code].Load()
	if c == nil {
		counter := m.handled.WithLabelValues(strings.TrimPrefix(method, "/"), code.String())
		c = &counter
		mm.codes[code].Store(c)
	}
	(*c).Inc()
	if !start.IsZero() {
		mm.seconds.Observe(time.Since(start).Seconds())
	}
}
