// Package metrics counts what the broker does, for Prometheus. No label is an identity.
package metrics

import (
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/shallot-net/shallot/broker/internal/adapter/codec"
	"github.com/shallot-net/shallot/broker/internal/domain/event"
)

// Names.
const (
	Events       = "shallot_broker_events_total"
	Offences     = "shallot_broker_offences_total"
	Drops        = "shallot_broker_gossip_dropped_total"
	Verdicts     = "shallot_broker_verdicts_total"
	Redeliveries = "shallot_broker_redeliveries_total"
	LateAcks     = "shallot_broker_late_acks_total"
	StreamResets = "shallot_broker_stream_resets_total"
	AckSeconds   = "shallot_broker_send_seconds"
	Bytes        = "shallot_broker_stream_bytes_total"
	Peers        = "shallot_broker_peers"
	Members      = "shallot_broker_group_members"
	Streams      = "shallot_broker_streams"
	Pending      = "shallot_broker_events_pending"
)

// Observer is an app.Observer.
type Observer struct {
	events   *prometheus.CounterVec
	offences *prometheus.CounterVec
	drops    *prometheus.CounterVec
	verdicts *prometheus.CounterVec
	again    prometheus.Counter
	late     prometheus.Counter
	resets   *prometheus.CounterVec
	bytes    *prometheus.CounterVec
	seconds  prometheus.Histogram
	children sync.Map                    // eventKey -> prometheus.Counter: an event must not cost a look-up by labels
	gauges   map[string]prometheus.Gauge // by the name that the broker has for it
}

type eventKey struct {
	t            event.Type
	dir, outcome string
}

// New registers the metrics.
func New(r prometheus.Registerer) *Observer {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
		r.MustRegister(c)
		return c
	}
	o := &Observer{
		events:   counter(Events, "Events by type, direction (in, out) and what became of them.", "type", "direction", "outcome"),
		offences: counter(Offences, "What was held against peers, and peers cut off.", "offence"),
		drops:    counter(Drops, "Gossip that was let go, by a consumer group or by a full queue.", "topic", "reason"),
		verdicts: counter(Verdicts, "What services made of deliveries.", "verdict"),
		again:    prometheus.NewCounter(prometheus.CounterOpts{Name: Redeliveries, Help: "Deliveries of events that a member did not acknowledge."}),
		late:     prometheus.NewCounter(prometheus.CounterOpts{Name: LateAcks, Help: "Acknowledgements of deliveries that were taken back."}),
		bytes:    counter(Bytes, "Bytes of streams with peers by kind of protocol and direction (in, out), before encryption and framing.", "protocol", "direction"),
		resets:   counter(StreamResets, "Streams of directed events that ended badly.", "reason"),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{Name: AckSeconds, Help: "From Send to the acknowledgement of the receiving service.",
			Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, 1, 5, 30}}),
	}
	peers := prometheus.NewGauge(prometheus.GaugeOpts{Name: Peers, Help: "Peers that are connected, of all personas."})
	members := prometheus.NewGauge(prometheus.GaugeOpts{Name: Members, Help: "Services that take deliveries."})
	streams := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: Streams, Help: "Streams of directed events with peers."}, []string{"direction"})
	pending := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: Pending, Help: "Directed events that are not acknowledged."}, []string{"direction"})
	o.gauges = map[string]prometheus.Gauge{"peers": peers, "members": members, "streams_in": streams.WithLabelValues("in"), "streams_out": streams.WithLabelValues("out"),
		"pending_in": pending.WithLabelValues("in"), "pending_out": pending.WithLabelValues("out")}
	r.MustRegister(o.again, o.late, o.seconds, peers, members, streams, pending)
	return o
}

// Event counts one event.
func (o *Observer) Event(t event.Type, dir, outcome string) {
	k := eventKey{t, dir, outcome}
	c, ok := o.children.Load(k)
	if !ok {
		c, _ = o.children.LoadOrStore(k, o.events.WithLabelValues(codec.TypeName(t), dir, strings.ToLower(outcome)))
	}
	c.(prometheus.Counter).Inc()
}

// Offence counts one.
func (o *Observer) Offence(name string) { o.offences.WithLabelValues(name).Inc() }

// Dropped counts one event of gossip.
func (o *Observer) Dropped(topic, why string) { o.drops.WithLabelValues(topic, why).Inc() }

// Verdict counts one.
func (o *Observer) Verdict(v string) { o.verdicts.WithLabelValues(v).Inc() }

// Redelivered counts one.
func (o *Observer) Redelivered() { o.again.Inc() }

// LateAck counts one.
func (o *Observer) LateAck() { o.late.Inc() }

// StreamReset counts one stream.
func (o *Observer) StreamReset(reason string) { o.resets.WithLabelValues(reason).Inc() }

// Traffic returns what counts the bytes of a kind of protocol in one direction.
func (o *Observer) Traffic(protocol, direction string) func(bytes int64) {
	c := o.bytes.WithLabelValues(protocol, direction)
	return func(n int64) { c.Add(float64(n)) }
}

// AckSeconds observes one Send.
func (o *Observer) AckSeconds(s float64) { o.seconds.Observe(s) }

// Adjust moves a gauge.
func (o *Observer) Adjust(gauge string, by float64) {
	if g, ok := o.gauges[gauge]; ok {
		g.Add(by)
	}
}
