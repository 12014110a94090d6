package repository

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	app "github.com/shallot-net/shallot/broker/internal/app/content"
	"github.com/shallot-net/shallot/broker/internal/domain/content"
)

// Metric names.
const (
	MetricOperations = "shallot_repository_operations_total"
	MetricBytes      = "shallot_repository_bytes_total"
	MetricBlocks     = "shallot_repository_blocks_total"
	MetricPins       = "shallot_repository_pins_total"
	MetricFaults     = "shallot_repository_block_faults_total"
	MetricCollected  = "shallot_repository_collections_total"
	MetricRemoved    = "shallot_repository_collected_bytes_total"
	MetricDisk       = "shallot_repository_disk_bytes"
	MetricQuota      = "shallot_repository_quota_bytes"
	MetricLiars      = "shallot_repository_wrong_bytes_total"
)

type metrics struct {
	operations, bytes, blocks, pins, faults, collections *prometheus.CounterVec
	removed, liars                                       prometheus.Counter
}

func newMetrics(r prometheus.Registerer, quota int64, used func() int64) *metrics {
	if r == nil {
		r = prometheus.NewRegistry()
	}
	vec := func(name, help string, labels ...string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
		r.MustRegister(v)
		return v
	}
	m := &metrics{
		operations:  vec(MetricOperations, "Operations by kind and outcome.", "operation", "outcome"),
		bytes:       vec(MetricBytes, "Content bytes put by users, got by users, fetched from peers and served to peers.", "flow"),
		blocks:      vec(MetricBlocks, "Blocks put, fetched from peers and served to peers.", "flow"),
		pins:        vec(MetricPins, "Pins added, lifted and expired.", "change"),
		faults:      vec(MetricFaults, "Blocks on disk that could not be used, by reason.", "reason"),
		collections: vec(MetricCollected, "Collections of unpinned content by outcome.", "outcome"),
		removed:     prometheus.NewCounter(prometheus.CounterOpts{Name: MetricRemoved, Help: "Bytes that collections removed."}),
		liars:       prometheus.NewCounter(prometheus.CounterOpts{Name: MetricLiars, Help: "Peers that sent a block with other bytes than were asked for."}),
	}
	r.MustRegister(m.removed, m.liars, prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: MetricDisk, Help: "Bytes that packs take on disk."},
		func() float64 { return float64(used()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: MetricQuota, Help: "Bytes that packs may take on disk; 0: no limit."}, func() float64 { return float64(quota) }))
	return m
}

// done counts an operation.
func (m *metrics) done(operation string, err error) {
	outcome := "ok"
	if err != nil {
		outcome = "failed"
	}
	m.operations.WithLabelValues(operation, outcome).Inc()
}

func (m *metrics) readFailed(err error) {
	var corrupt *content.CorruptError
	switch {
	case errors.Is(err, content.ErrNotFound):
	case errors.As(err, &corrupt):
		m.faults.WithLabelValues("corrupted").Inc()
	default:
		m.faults.WithLabelValues("unreadable").Inc()
	}
}

func (m *metrics) flow(name string, blocks, bytes int) {
	m.blocks.WithLabelValues(name).Add(float64(blocks))
	m.bytes.WithLabelValues(name).Add(float64(bytes))
}

func (m *metrics) collected(s app.Swept, err error) {
	outcome := "ok"
	if err != nil {
		outcome = "failed"
	}
	m.collections.WithLabelValues(outcome).Inc()
	m.removed.Add(float64(s.Bytes))
	m.pins.WithLabelValues("expired").Add(float64(s.Expired))
}
