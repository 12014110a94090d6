package probe

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	dto "github.com/prometheus/client_model/go"

	telemetryv1 "github.com/shallot-net/shallot/proto/shallot/telemetry/v1"
	"github.com/shallot-net/shallot/services/node/internal/app"
)

// FiguresOf are what all processes together say of themselves, replicas among them. Who did not answer is not in it.
func FiguresOf(list []*telemetryv1.ProcessMetrics) app.Figures {
	f := app.Figures{Counts: map[string]app.Counts{}}
	for _, p := range list {
		families := parse(p)
		if families == nil {
			continue
		}
		u := usage(families)
		f.Memory += u.Memory
		c := app.Counts{StartedAt: u.StartedAt, CPU: u.CPU}
		switch p.GetProcess() {
		case "broker":
			f.Used += uint64(bounded(sum(families["shallot_repository_disk_bytes"], nil)))
		case "task":
			// The replica that leads knows the queue of all: the others say what they run themselves.
			f.Waiting = max(f.Waiting, uint32(min(bounded(sum(families["shallot_task_queue_pending"], nil)), math.MaxUint32)))
			f.Running = max(f.Running, uint32(min(bounded(sum(families["shallot_task_queue_running"], nil)), math.MaxUint32)))
			ended(&c, families)
		}
		f.Counts[fmt.Sprintf("%s %s %d", p.GetProcess(), p.GetReplica(), p.GetPid())] = c
	}
	return f
}

// ended reads what a task service counts.
func ended(c *app.Counts, families map[string]*dto.MetricFamily) {
	c.Finished = bounded(sum(families["shallot_task_ended_total"], func(m *dto.Metric) bool { return label(m, "state") == "COMPLETED" }))
	c.Failed = bounded(sum(families["shallot_task_ended_total"], func(m *dto.Metric) bool {
		return slices.Contains([]string{"FAILED", "EXPIRED"}, label(m, "state"))
	}))
	runs := map[float64]float64{}
	for _, m := range families["shallot_task_run_seconds"].GetMetric() {
		for _, b := range m.GetHistogram().GetBucket() {
			if most := b.GetUpperBound(); most < math.MaxInt64/1e10 {
				runs[most] += float64(b.GetCumulativeCount())
			}
		}
	}
	for _, most := range slices.Sorted(maps.Keys(runs)) {
		c.Runs = append(c.Runs, app.Bucket{Most: time.Duration(most * float64(time.Second)), Count: runs[most]})
	}
}

func sum(f *dto.MetricFamily, of func(*dto.Metric) bool) (total float64) {
	for _, m := range f.GetMetric() {
		if of == nil || of(m) {
			total += m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	return total
}

// bounded keeps a figure of another process within what can be counted on with.
func bounded(v float64) float64 {
	if !(v > 0) {
		return 0
	}
	return min(v, 1<<53)
}

func label(m *dto.Metric, name string) string {
	for _, l := range m.GetLabel() {
		if l.GetName() == name {
			return l.GetValue()
		}
	}
	return ""
}
