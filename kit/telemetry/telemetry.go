// Package telemetry is the metrics of a process: its registry, the RPC that node gathers them with, and an
// optional port for Prometheus itself. Metric names live with the packages that count.
package telemetry

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/common/expfmt"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/version"
	telemetryv1 "github.com/shallot-net/shallot/proto/shallot/telemetry/v1"
)

// MetricBuild is 1, with the version of the program.
const MetricBuild = "shallot_build_info"

// NewRegistry has the collectors of the Go runtime, of the process and of its version.
func NewRegistry() *Registry {
	r := &Registry{Registry: prometheus.NewRegistry()}
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: MetricBuild, Help: "1, with the version of the program.", ConstLabels: prometheus.Labels{"version": version.String()}}, func() float64 { return 1 }))
	return r
}

// Gatherer adds other processes to an answer: node asks those that it calls. What cannot be reached is in the
// answer too, with its Error set; an error is for when nothing can be said at all.
type Gatherer interface {
	Gather(ctx context.Context) ([]*telemetryv1.ProcessMetrics, error)
}

// GathererFunc is a Gatherer.
type GathererFunc func(ctx context.Context) ([]*telemetryv1.ProcessMetrics, error)

// Gather calls f.
func (f GathererFunc) Gather(ctx context.Context) ([]*telemetryv1.ProcessMetrics, error) {
	return f(ctx)
}

// Option adds to what a process tells.
type Option func(*service)

// Also adds what a Gatherer has of other processes.
func Also(g Gatherer) Option { return func(s *service) { s.extra = append(s.extra, g) } }

// Register serves shallot.telemetry.v1 for this process.
func Register(s grpc.ServiceRegistrar, process string, registry prometheus.Gatherer, options ...Option) {
	t := &service{process: process, registry: registry}
	for _, o := range options {
		o(t)
	}
	telemetryv1.RegisterTelemetryServiceServer(s, t)
}

type service struct {
	telemetryv1.UnimplementedTelemetryServiceServer
	process  string
	registry prometheus.Gatherer
	extra    []Gatherer
	settings *telemetryv1.ProcessSettings // nil: it does not say
}

func (s *service) Gather(ctx context.Context, in *telemetryv1.GatherRequest) (*telemetryv1.GatherResponse, error) {
	own := &telemetryv1.ProcessMetrics{Process: s.process, Pid: int64(os.Getpid()), Replica: Replica()}
	if r, ok := s.registry.(*Registry); ok && in.GetDescribe() {
		own.Metrics = r.Describe()
	}
	if text, err := Text(s.registry); err != nil {
		own.Error = "its metrics could not be collected"
	} else {
		own.Text = text
	}
	out := &telemetryv1.GatherResponse{Processes: []*telemetryv1.ProcessMetrics{own}}
	for _, g := range s.extra {
		more, err := g.Gather(ctx)
		if err != nil {
			return nil, err
		}
		out.Processes = append(out.Processes, more...)
	}
	return out, nil
}

// Replica is a digest of where this process runs and how it was started: of two that do the same, one of these differs.
var Replica = sync.OnceValue(func() string {
	h := sha256.New()
	host, _ := os.Hostname()
	settings := slices.DeleteFunc(os.Environ(), func(v string) bool { return !strings.HasPrefix(v, "SHALLOT_") })
	slices.Sort(settings)
	for _, s := range append(append([]string{host}, os.Args...), settings...) {
		fmt.Fprintf(h, "%q\n", s)
	}
	return hex.EncodeToString(h.Sum(nil)[:4])
})

// Text is a registry's metrics in Prometheus's text format.
func Text(g prometheus.Gatherer) ([]byte, error) {
	families, err := g.Gather()
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	enc := expfmt.NewEncoder(&b, expfmt.NewFormat(expfmt.TypeTextPlain))
	for _, f := range families {
		if err := enc.Encode(f); err != nil {
			return nil, err
		}
	}
	return b.Bytes(), nil
}

// Serve answers GET /metrics on listen, a host:port on loopback, until ctx ends. With listen "" it only waits.
func Serve(ctx context.Context, listen string, registry prometheus.Gatherer) error {
	if listen == "" {
		<-ctx.Done()
		return nil
	}
	l, err := listenLoopback(ctx, listen)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{MaxRequestsInFlight: 2}))
	s := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 5 * time.Second, WriteTimeout: 10 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10}
	stop := context.AfterFunc(ctx, func() { _ = s.Close() })
	defer stop()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fault.Wrap(err, codes.Unavailable, "TELEMETRY_FAILED", "serving metrics on %s failed", listen)
	}
	return nil
}

func listenLoopback(ctx context.Context, listen string) (net.Listener, error) {
	addr, err := net.ResolveTCPAddr("tcp", listen)
	if err != nil || !addr.IP.IsLoopback() {
		return nil, fault.InvalidArgument("ENDPOINT_INSECURE", "telemetry_listen is %q: it must be a host:port on loopback, such as 127.0.0.1:9100", listen)
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", listen)
	if err != nil {
		return nil, fault.FailedPrecondition("ENDPOINT_IN_USE", "cannot serve metrics on %s: is the port in use?", listen).Because(err).With("endpoint", listen)
	}
	return l, nil
}
