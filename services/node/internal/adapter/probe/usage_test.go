package probe

import (
	"maps"
	"testing"
	"time"

	telemetryv1 "github.com/shallot-net/shallot/proto/shallot/telemetry/v1"
	"github.com/shallot-net/shallot/services/node/internal/app"
)

func TestUsages(t *testing.T) {
	const text = "# TYPE process_resident_memory_bytes gauge\nprocess_resident_memory_bytes 1.5e+07\n# TYPE process_cpu_seconds_total counter\nprocess_cpu_seconds_total 2.5\n" +
		"# TYPE process_start_time_seconds gauge\nprocess_start_time_seconds 1000.5\n"
	got := Usages([]*telemetryv1.ProcessMetrics{{Process: "task", Text: []byte(text)}, {Process: "broker", Error: "away"}, {Process: "metric", Text: []byte("no { metrics")},
		{Process: "odd", Text: []byte("process_resident_memory_bytes 1e300\nprocess_cpu_seconds_total NaN\nprocess_start_time_seconds -1\n")}})
	want := map[string]app.Usage{"task": {StartedAt: time.UnixMilli(1_000_500), Memory: 15_000_000, CPU: 2500 * time.Millisecond}, "odd": {}}
	if !maps.Equal(got, want) {
		t.Errorf("got %v", got)
	}
}
