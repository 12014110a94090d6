// Package telemetry counts what metric does, for Prometheus. No label names a peer.
package telemetry

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/shallot-net/shallot/services/metric/internal/app"
)

// Metric names.
const (
	MetricEvents   = "shallot_metric_events_total"
	MetricKnown    = "shallot_metric_known"
	MetricNetwork  = "shallot_metric_network_size"
	MetricBrokerUp = "shallot_metric_broker_up"
	MetricLoad     = "shallot_metric_host_load_ratio"
	MetricMemory   = "shallot_metric_host_memory_free_bytes"
	MetricDisk     = "shallot_metric_host_disk_free_bytes"
)

// Counter is an app.Counter.
type Counter struct {
	events map[string]prometheus.Counter
	broker prometheus.Gauge
}

// New registers the counters.
func New(r prometheus.Registerer) *Counter {
	vec := prometheus.NewCounterVec(prometheus.CounterOpts{Name: MetricEvents, Help: "What metric did and heard, by kind."}, []string{"event"})
	up := prometheus.NewGauge(prometheus.GaugeOpts{Name: MetricBrokerUp, Help: "1 while the subscription at the broker stands."})
	r.MustRegister(vec, up)
	c := &Counter{events: map[string]prometheus.Counter{}, broker: up}
	for _, name := range app.Counts() {
		c.events[name] = vec.WithLabelValues(name)
	}
	return c
}

// Count counts one event of a known name.
func (c *Counter) Count(event string) {
	if n, ok := c.events[event]; ok {
		n.Inc()
	}
}

// BrokerUp notes whether the broker is there.
func (c *Counter) BrokerUp(up bool) {
	c.broker.Set(map[bool]float64{true: 1}[up])
}

// Watch registers gauges over the service's figures.
func Watch(r prometheus.Registerer, s *app.Service) {
	gauge := func(name, help string, value func(app.Figures) float64) {
		r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return value(s.Figures()) }))
	}
	gauge(MetricKnown, "Peers whose metrics are fresh.", func(f app.Figures) float64 { return float64(f.Known) })
	gauge(MetricNetwork, "Estimated number of providers, this one included.", func(f app.Figures) float64 { return float64(f.Network) })
	gauge(MetricLoad, "Busy share of all threads of this host, 0 to 1.", func(f app.Figures) float64 { return f.Own.CPU.Load })
	gauge(MetricMemory, "Memory of this host that can be had.", func(f app.Figures) float64 { return float64(f.Own.Memory.Free) })
	gauge(MetricDisk, "Space on the disk of the node's home that can be had.", func(f app.Figures) float64 { return float64(f.Own.Disk.Free) })
}
