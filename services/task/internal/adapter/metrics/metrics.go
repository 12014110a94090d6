// Package metrics counts what the task service does, for Prometheus.
package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// Names of metrics. No label is an id, an address, or a word that a stranger chose.
const (
	Ended    = "shallot_task_ended_total"    // state, reason
	Attempts = "shallot_task_attempts_total" // what
	Events   = "shallot_task_events_total"   // type, verdict
	Seconds  = "shallot_task_run_seconds"    // type
	Puzzles  = "shallot_task_puzzles_total"  // what
	Effort   = "shallot_task_puzzle_effort"
	Commits  = "shallot_task_store_commits_total"
	Failures = "shallot_task_store_failures_total"
	Pending  = "shallot_task_queue_pending"
	Running  = "shallot_task_queue_running"
	Slots    = "shallot_task_queue_slots"
	Sessions = "shallot_task_sessions"
)

// Metrics implements app.Metrics.
type Metrics struct {
	ended    *prometheus.CounterVec
	attempts *prometheus.CounterVec
	events   *prometheus.CounterVec
	puzzles  *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	types    map[string]bool
}

var _ app.Metrics = (*Metrics)(nil)

// New registers the metrics. types are the task types that get a label of their own.
func New(r prometheus.Registerer, types ...string) *Metrics {
	m := &Metrics{
		ended:    prometheus.NewCounterVec(prometheus.CounterOpts{Name: Ended, Help: "Tasks (at a consumer) or attempts (at a provider) that ended, by state and reason."}, []string{"state", "reason"}),
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{Name: Attempts, Help: "What became of placements."}, []string{"what"}),
		events:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: Events, Help: "Events from the network, by type and verdict."}, []string{"type", "verdict"}),
		puzzles: prometheus.NewCounterVec(prometheus.CounterOpts{Name: Puzzles,
			Help: "Provider: strangers' submissions by what they paid (nothing_asked, free, paid, unpaid, too_little, stale, bad). Consumer: solved, given_up, too_dear."}, []string{"what"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: Seconds, Help: "Time of a program's run.", Buckets: []float64{.001, .003, .01, .03, .1, .3, 1, 3, 10, 30, 100, 300, 1000, 3000, 10000}}, []string{"type"}),
		types:   make(map[string]bool, len(types)),
	}
	for _, t := range types {
		m.types[t] = true
	}
	r.MustRegister(m.ended, m.attempts, m.events, m.puzzles, m.seconds)
	return m
}

// Queue registers the queue's figures.
func Queue(r prometheus.Registerer, figures func() domain.Queue) {
	gauge := func(name, help string, f func(domain.Queue) int) {
		r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return float64(f(figures())) }))
	}
	gauge(Pending, "Tasks that wait in a provider's queue.", func(q domain.Queue) int { return q.Pending })
	gauge(Running, "Tasks that a provider runs.", func(q domain.Queue) int { return q.Running })
	gauge(Slots, "Tasks that a provider runs side by side at most.", func(q domain.Queue) int { return q.Slots })
}

// Price registers what a stranger's submission costs now.
func Price(r prometheus.Registerer, effort func() uint32) {
	r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: Effort, Help: "Evaluations that a stranger's submission costs in the mean; 0: nothing."}, func() float64 { return float64(effort()) }))
}

// Process registers what is the same for both roles.
func Process(r prometheus.Registerer, commits, failures func() uint64, sessions func() int) {
	r.MustRegister(
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: Commits, Help: "Transactions that somebody waited for."}, func() float64 { return float64(commits()) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: Failures, Help: "Transactions that the store could not write, by its own fault."}, func() float64 { return float64(failures()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: Sessions, Help: "Node processes that are connected."}, func() float64 { return float64(sessions()) }))
}

// reasons are those that this program gives itself; a provider may send any word.
var reasons = map[string]bool{"": true, "TRAP": true, "TIME_LIMIT": true, "MEMORY_LIMIT": true, "OUTPUT_LIMIT": true, "OUTPUT_NAME": true, "COMPILE": true, "PAYLOAD_INVALID": true,
	"CANCELLED": true, "EXECUTOR_DIED": true, "PLACEMENT_CLOCK": true, "QUEUE_CLOCK": true, "RUN_CLOCK": true, "COLLECTION_CLOCK": true, "TOTAL_CLOCK": true,
	"ATTEMPTS_EXHAUSTED": true, "PAYLOAD_UNAVAILABLE": true, "RESULT_LOST": true, "PROVIDER_FAILED": true}

// Ended implements app.Metrics.
func (m *Metrics) Ended(state, reason string) {
	if !reasons[reason] {
		reason = "OTHER"
	}
	m.ended.WithLabelValues(state, reason).Inc()
}

// Attempt implements app.Metrics.
func (m *Metrics) Attempt(what string) { m.attempts.WithLabelValues(what).Inc() }

var verdicts = map[app.Verdict]string{app.Applied: "applied", app.Ignored: "ignored", app.Rejected: "rejected", app.Again: "again", app.Misconduct: "misconduct"}

// Puzzle implements app.Metrics.
func (m *Metrics) Puzzle(what string) { m.puzzles.WithLabelValues(what).Inc() }

// Event implements app.Metrics.
func (m *Metrics) Event(name string, v app.Verdict) {
	m.events.WithLabelValues(name, verdicts[v]).Inc()
}

// Run implements app.Metrics.
func (m *Metrics) Run(taskType string, d time.Duration) {
	if !m.types[taskType] {
		taskType = "other"
	}
	m.seconds.WithLabelValues(taskType).Observe(d.Seconds())
}
