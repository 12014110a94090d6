package run

import (
	"github.com/prometheus/client_golang/prometheus"
)

// Names of node's metrics.
const (
	MetricOutboxEvents     = "shallot_node_outbox_events"
	MetricOutboxBytes      = "shallot_node_outbox_bytes"
	MetricOutboxInFlight   = "shallot_node_outbox_in_flight"
	MetricOutboxBackingOff = "shallot_node_outbox_peers_backing_off"
	MetricOutboxSent       = "shallot_node_outbox_sent_total"
	MetricOutboxRetried    = "shallot_node_outbox_retried_total"
	MetricOutboxGivenUp    = "shallot_node_outbox_given_up_total"
	MetricWatches          = "shallot_node_watches"
	MetricPending          = "shallot_node_placements_pending"
	MetricProviders        = "shallot_node_providers_available"
	MetricAsked            = "shallot_node_questions_asked_total"
	MetricAnswers          = "shallot_node_answers_total"
	MetricUnasked          = "shallot_node_answers_unasked_total"
	MetricInvalid          = "shallot_node_answers_invalid_total"
	MetricOnline           = "shallot_node_online"
	MetricReady            = "shallot_node_ready"
)

// registerMetrics adds figures that are read when they are asked for, so that counting costs nothing in between.
func (n *Node) registerMetrics(r prometheus.Registerer) {
	if r == nil {
		return
	}
	gauge := func(name, help string, f func() float64) {
		r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, f))
	}
	counter := func(name, help string, f func() float64) {
		r.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, f))
	}
	held := func(i int) func() float64 {
		return func() float64 {
			events, bytes, flying, waiting, _ := n.carrier.Held()
			return float64([]int{events, bytes, flying, waiting}[i])
		}
	}
	gauge(MetricOutboxEvents, "Events that wait to be handed over or acknowledged.", held(0))
	gauge(MetricOutboxBytes, "Bytes of events that wait to be handed over or acknowledged.", held(1))
	gauge(MetricOutboxInFlight, "Events that were handed to the broker and are not acknowledged.", held(2))
	gauge(MetricOutboxBackingOff, "Peers for whom events wait after a failure.", held(3))
	counter(MetricOutboxSent, "Events that were acknowledged.", func() float64 { _, _, _, _, c := n.carrier.Held(); return float64(c.Sent) })
	counter(MetricOutboxRetried, "Tries to hand an event over that failed and were made again.", func() float64 { _, _, _, _, c := n.carrier.Held(); return float64(c.Retried) })
	counter(MetricOutboxGivenUp, "Events that were given up.", func() float64 { _, _, _, _, c := n.carrier.Held(); return float64(c.GivenUp) })
	gauge(MetricWatches, "Users' calls that wait for a task.", func() float64 { return float64(n.watches.Count()) })
	gauge(MetricReady, "1 when all processes that node calls are ready.", func() float64 {
		if _, ready := n.processes.List(); ready {
			return 1
		}
		return 0
	})
	gauge(MetricOnline, "1 when the network can be reached.", func() float64 {
		if n.flow.Online() {
			return 1
		}
		return 0
	})
	if n.provider != nil {
		gauge(MetricProviders, "Providers that are available, this node excluded.", func() float64 { return float64(n.provider.Available()) })
		return
	}
	gauge(MetricProviders, "Providers that are available, this node excluded.", func() float64 { a, _, _ := n.consumer.Figures(); return float64(a) })
	gauge(MetricPending, "Tasks that wait for a provider.", func() float64 { return float64(n.placer.Pending()) })
	counter(MetricAsked, "Questions that were put to providers.", func() float64 { _, _, c := n.consumer.Figures(); return float64(c.Asked) })
	counter(MetricAnswers, "Answers to questions that were put to providers.", func() float64 { _, _, c := n.consumer.Figures(); return float64(c.Answers) })
	counter(MetricUnasked, "Answers of providers that nobody had asked for.", func() float64 { _, _, c := n.consumer.Figures(); return float64(c.Unasked) })
	counter(MetricInvalid, "Answers of providers that were not valid.", func() float64 { _, _, c := n.consumer.Figures(); return float64(c.Invalid) })
}
