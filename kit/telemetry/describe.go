package telemetry

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	telemetryv1 "github.com/shallot-net/shallot/proto/shallot/telemetry/v1"
)

// Registry is a registry that knows its metrics before they have a value: one with labels is in no answer until something was counted, and whoever writes rules or a page of metrics has to
// know of it before.
type Registry struct {
	*prometheus.Registry
	mu  sync.Mutex
	all []prometheus.Collector
}

// Register adds a collector.
func (r *Registry) Register(c prometheus.Collector) error {
	if err := r.Registry.Register(c); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, c)
	return nil
}

// MustRegister is Register, and panics where that fails.
func (r *Registry) MustRegister(cs ...prometheus.Collector) {
	for _, c := range cs {
		if err := r.Register(c); err != nil {
			panic(err)
		}
	}
}

// A Desc tells what it is in no other way.
var descText = regexp.MustCompile(`^Desc\{fqName: "([^"]*)", help: "((?:[^"\\]|\\.)*)"(?:, unit: "[^"]*")?, constLabels: \{([^}]*)\}, variableLabels: \{([^}]*)\}`)

// Describe is every metric of Shallot's own, by name; those of the Go runtime and of the process are what client_golang documents.
func (r *Registry) Describe() []*telemetryv1.MetricDescription {
	r.mu.Lock()
	all := slices.Clone(r.all)
	r.mu.Unlock()
	var out []*telemetryv1.MetricDescription
	for _, c := range all {
		descs := make(chan *prometheus.Desc)
		go func() {
			defer close(descs)
			c.Describe(descs)
		}()
		for d := range descs {
			m := descText.FindStringSubmatch(d.String())
			if m == nil || !strings.HasPrefix(m[1], "shallot_") {
				continue
			}
			help, err := strconv.Unquote(`"` + m[2] + `"`)
			if err != nil {
				help = m[2]
			}
			x := &telemetryv1.MetricDescription{Name: m[1], Help: help, Type: kind(c)}
			for label := range strings.SplitSeq(m[3], ",") {
				if name, _, ok := strings.Cut(label, "="); ok {
					x.Labels = append(x.Labels, name)
				}
			}
			for label := range strings.SplitSeq(m[4], ",") {
				if label != "" {
					x.Labels = append(x.Labels, label)
				}
			}
			out = append(out, x)
		}
	}
	slices.SortFunc(out, func(a, b *telemetryv1.MetricDescription) int { return strings.Compare(a.GetName(), b.GetName()) })
	return out
}

// kind is the type of a collector's metrics. Shallot has none that makes metrics of several types.
func kind(c prometheus.Collector) string {
	switch c.(type) {
	case *prometheus.CounterVec:
		return "counter"
	case *prometheus.GaugeVec:
		return "gauge"
	case *prometheus.HistogramVec:
		return "histogram"
	}
	metrics := make(chan prometheus.Metric)
	go func() {
		defer close(metrics)
		c.Collect(metrics)
	}()
	found := ""
	for m := range metrics {
		var v dto.Metric
		switch {
		case m.Write(&v) != nil:
		case v.Counter != nil:
			found = "counter"
		case v.Gauge != nil:
			found = "gauge"
		case v.Histogram != nil:
			found = "histogram"
		}
	}
	return found
}
