package probe

import (
	"bytes"
	"math"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	telemetryv1 "github.com/shallot-net/shallot/proto/shallot/telemetry/v1"
	"github.com/shallot-net/shallot/services/node/internal/app"
)

// Usages are what processes use, by name, as their metrics tell it: replicas together, from the start of the youngest. Who did not answer is not in it.
func Usages(list []*telemetryv1.ProcessMetrics) map[string]app.Usage {
	out := map[string]app.Usage{}
	for _, p := range list {
		families := parse(p)
		if families == nil {
			continue
		}
		u := usage(families)
		if other, ok := out[p.GetProcess()]; ok {
			u.Memory += other.Memory
			u.CPU += other.CPU
			if other.StartedAt.After(u.StartedAt) {
				u.StartedAt = other.StartedAt
			}
		}
		out[p.GetProcess()] = u
	}
	return out
}

// parse reads what a process says; nil: it did not answer, or not in the format.
func parse(p *telemetryv1.ProcessMetrics) map[string]*dto.MetricFamily {
	if p.GetError() != "" {
		return nil
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(p.GetText()))
	if err != nil {
		return nil
	}
	return families
}

func usage(families map[string]*dto.MetricFamily) app.Usage {
	value := func(name string) float64 {
		for _, m := range families[name].GetMetric() {
			if v := m.GetGauge().GetValue() + m.GetCounter().GetValue(); v > 0 && v < math.MaxInt64/1e9 { // it comes from another process
				return v
			}
		}
		return 0
	}
	u := app.Usage{Memory: uint64(value("process_resident_memory_bytes")), CPU: time.Duration(value("process_cpu_seconds_total") * float64(time.Second))}
	if start := value("process_start_time_seconds"); start > 0 {
		u.StartedAt = time.UnixMilli(int64(start * 1000))
	}
	return u
}
