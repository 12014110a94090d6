package probe

import (
	"bytes"
	"math"
	"slices"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	telemetryv1 "github.com/shallot-net/shallot/proto/shallot/telemetry/v1"
	"github.com/shallot-net/shallot/services/node/internal/app"
)

// FiguresOf are what all processes together say of themselves, replicas among them. Who did not answer is not in it.
func FiguresOf(list []*telemetryv1.ProcessMetrics) app.Figures {
	var f app.Figures
	usages := Usages(list)
	for _, u := range usages {
		f.Memory += u.Memory
		f.CPU += u.CPU
	}
	runs := map[float64]float64{}
	for _, p := range list {
		if p.GetProcess() != "task" && p.GetProcess() != "broker" || p.GetError() != "" {
			continue
		}
		parser := expfmt.NewTextParser(model.UTF8Validation)
		families, err := parser.TextToMetricFamilies(bytes.NewReader(p.GetText()))
		if err != nil {
			continue
		}
		if p.GetProcess() == "broker" {
			f.Used += uint64(bounded(sum(families["shallot_repository_disk_bytes"], nil)))
			continue
		}
		f.Finished += bounded(sum(families["shallot_task_ended_total"], func(m *dto.Metric) bool { return label(m, "state") == "COMPLETED" }))
		f.Failed += bounded(sum(families["shallot_task_ended_total"], func(m *dto.Metric) bool {
			return slices.Contains([]string{"FAILED", "EXPIRED"}, label(m, "state"))
		}))
		// The replica that leads knows the queue of all: the others say what they run themselves.
		f.Waiting = max(f.Waiting, uint32(min(bounded(sum(families["shallot_task_queue_pending"], nil)), math.MaxUint32)))
		f.Running = max(f.Running, uint32(min(bounded(sum(families["shallot_task_queue_running"], nil)), math.MaxUint32)))
		for _, m := range families["shallot_task_run_seconds"].GetMetric() {
			for _, b := range m.GetHistogram().GetBucket() {
				if most := b.GetUpperBound(); most < math.MaxInt64/1e10 {
					runs[most] += float64(b.GetCumulativeCount())
				}
			}
		}
	}
	for most, n := range runs {
		f.Runs = append(f.Runs, app.Bucket{Most: time.Duration(most * float64(time.Second)), Count: n})
	}
	slices.SortFunc(f.Runs, func(a, b app.Bucket) int { return int(a.Most - b.Most) })
	return f
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
