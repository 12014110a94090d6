package rest

import (
	"bytes"
	"context"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"google.golang.org/protobuf/proto"

	"github.com/shallot-net/shallot/kit/rpc"
	"github.com/shallot-net/shallot/kit/telemetry"
	telemetryv1 "github.com/shallot-net/shallot/proto/shallot/telemetry/v1"
)

// gatherTimeout bounds the collection of all processes' metrics: within the ten seconds that Prometheus waits by default. One replica of node has replicaTimeout of it, which
// is longer than node waits for those behind it, so that one that hangs does not take the time of the others.
const (
	gatherTimeout  = 8 * time.Second
	replicaTimeout = 3 * time.Second
)

// metrics: GET /metrics, what every process of the node measures, told apart by the labels process and replica.
func (s *server) metrics(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), gatherTimeout)
	defer cancel()
	own, err := telemetry.Text(s.Registry)
	if err != nil {
		s.problems.write(w, r, err)
		return
	}
	parts := []*telemetryv1.ProcessMetrics{{Process: "gateway", Text: own}}
	// A node that does not answer shows as shallot_up 0; its absence must not take the gateway's own figures along.
	err = rpc.Every(ctx, replicaTimeout, func(ctx context.Context) error {
		all, err := s.telemetry.Gather(ctx, &telemetryv1.GatherRequest{})
		for _, p := range all.GetProcesses() { // each replica of node tells of the same others
			if !slices.ContainsFunc(parts, func(o *telemetryv1.ProcessMetrics) bool {
				return o.GetProcess() == p.GetProcess() && o.GetReplica() == p.GetReplica()
			}) {
				parts = append(parts, p)
			}
		}
		return err
	})
	if err != nil && len(parts) == 1 {
		parts = append(parts, &telemetryv1.ProcessMetrics{Process: "node", Error: "unreachable"})
	}
	families := merge(parts)
	w.Header().Set("Content-Type", string(expfmt.NewFormat(expfmt.TypeTextPlain)))
	w.Header().Set("Cache-Control", "no-store")
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(w, f); err != nil {
			return
		}
	}
}

// MetricUp is 1 for each process that answered, else 0.
const MetricUp = "shallot_up"

func labels(p *telemetryv1.ProcessMetrics) []*dto.LabelPair {
	out := []*dto.LabelPair{{Name: proto.String("process"), Value: proto.String(p.GetProcess())}}
	if p.GetReplica() != "" {
		out = append(out, &dto.LabelPair{Name: proto.String("replica"), Value: proto.String(p.GetReplica())})
	}
	return out
}

// merge puts the labels process and replica on every sample and families of one name together.
func merge(parts []*telemetryv1.ProcessMetrics) []*dto.MetricFamily {
	byName := map[string]*dto.MetricFamily{}
	up := &dto.MetricFamily{Name: proto.String(MetricUp), Help: proto.String("The process answered."), Type: dto.MetricType_GAUGE.Enum()}
	for _, p := range parts {
		alive := 0.0
		// A parser remembers what it has read, and refuses a family that comes twice.
		parser := expfmt.NewTextParser(model.UTF8Validation)
		if families, err := parser.TextToMetricFamilies(bytes.NewReader(p.GetText())); err == nil && p.GetError() == "" {
			alive = 1
			for name, f := range families {
				for _, m := range f.GetMetric() {
					m.Label = append(m.Label, labels(p)...)
				}
				if have, ok := byName[name]; !ok {
					byName[name] = f
				} else if have.GetType() == f.GetType() {
					have.Metric = append(have.Metric, f.GetMetric()...)
				}
			}
		}
		up.Metric = append(up.Metric, &dto.Metric{
			Label: labels(p),
			Gauge: &dto.Gauge{Value: proto.Float64(alive)},
		})
	}
	byName[MetricUp] = up
	out := make([]*dto.MetricFamily, 0, len(byName))
	for _, f := range byName {
		out = append(out, f)
	}
	slices.SortFunc(out, func(a, b *dto.MetricFamily) int { return strings.Compare(a.GetName(), b.GetName()) })
	return out
}

// counted counts answers by method and class of status.
func (s *server) counted(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := &statusWriter{ResponseWriter: w, status: http.StatusOK}
		defer func() { s.requests.WithLabelValues(method(r.Method), strconv.Itoa(c.status/100)+"xx").Inc() }()
		next.ServeHTTP(c, r)
	})
}

// method keeps words of strangers out of the labels.
func method(m string) string {
	switch m {
	case http.MethodGet, http.MethodPost, http.MethodHead, http.MethodPut, http.MethodDelete, http.MethodOptions, http.MethodPatch:
		return m
	}
	return "other"
}

type statusWriter struct {
	http.ResponseWriter
	status int
}

func (s *statusWriter) WriteHeader(code int) {
	s.status = code
	s.ResponseWriter.WriteHeader(code)
}

// Unwrap lets http.ResponseController reach the flusher.
func (s *statusWriter) Unwrap() http.ResponseWriter { return s.ResponseWriter }

// Flush is asked for by type by grpc-gateway's streams.
func (s *statusWriter) Flush() { _ = http.NewResponseController(s.ResponseWriter).Flush() }
