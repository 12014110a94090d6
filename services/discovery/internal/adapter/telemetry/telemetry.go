// Package telemetry counts what discovery does, for Prometheus. No label names a peer.
package telemetry

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/shallot-net/shallot/services/discovery/internal/app"
)

// Metric names.
const (
	MetricEvents     = "shallot_discovery_events_total"
	MetricPeers      = "shallot_discovery_peers"
	MetricNeighbours = "shallot_discovery_neighbours"
	MetricNetwork    = "shallot_discovery_network_size"
	MetricBrokerUp   = "shallot_discovery_broker_up"
)

// Counter is an app.Counter.
type Counter struct {
	events map[string]prometheus.Counter
	broker prometheus.Gauge
}

// New registers the counters.
func New(r prometheus.Registerer) *Counter {
	vec := prometheus.NewCounterVec(prometheus.CounterOpts{Name: MetricEvents, Help: "What discovery did and heard, by kind."}, []string{"event"})
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
	gauge := func(name, help string, labels prometheus.Labels, value func(app.Figures) int) {
		r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: labels},
			func() float64 { return float64(value(s.Figures())) }))
	}
	gauge(MetricPeers, "Providers in the peer table, by whether they are available.", prometheus.Labels{"state": "available"}, func(f app.Figures) int { return f.Available })
	gauge(MetricPeers, "Providers in the peer table, by whether they are available.", prometheus.Labels{"state": "other"}, func(f app.Figures) int { return f.Known - f.Available })
	gauge(MetricNeighbours, "Providers that are connected and available.", nil, func(f app.Figures) int { return f.Neighbours })
	gauge(MetricNetwork, "Estimated number of providers, this one included.", nil, func(f app.Figures) int { return f.Network })
}
