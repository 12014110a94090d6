package probe

import (
	"reflect"
	"testing"
	"time"

	telemetryv1 "github.com/shallot-net/shallot/proto/shallot/telemetry/v1"
	"github.com/shallot-net/shallot/services/node/internal/app"
)

func TestFigures(t *testing.T) {
	const task = `# TYPE shallot_task_ended_total counter
shallot_task_ended_total{state="COMPLETED",reason=""} 3
shallot_task_ended_total{state="FAILED",reason="TRAP"} 2
shallot_task_ended_total{state="EXPIRED",reason=""} 1
shallot_task_ended_total{state="CANCELLED",reason=""} 9
# TYPE shallot_task_queue_pending gauge
shallot_task_queue_pending 4
# TYPE shallot_task_queue_running gauge
shallot_task_queue_running -1
# TYPE shallot_task_run_seconds histogram
shallot_task_run_seconds_bucket{type="sum",le="0.001"} 1
shallot_task_run_seconds_bucket{type="sum",le="+Inf"} 2
shallot_task_run_seconds_sum{type="sum"} 1
shallot_task_run_seconds_count{type="sum"} 2
`
	got := FiguresOf([]*telemetryv1.ProcessMetrics{{Process: "task", Text: []byte(task)}, {Process: "task", Text: []byte(task)}, {Process: "task", Error: "away"}, {Process: "task", Text: []byte("{")},
		{Process: "broker", Text: []byte("# TYPE shallot_repository_disk_bytes gauge\nshallot_repository_disk_bytes 77\n# TYPE process_resident_memory_bytes gauge\nprocess_resident_memory_bytes 8\n")}})
	want := app.Figures{Waiting: 4, Finished: 6, Failed: 6, Runs: []app.Bucket{{Most: time.Millisecond, Count: 2}}, Memory: 8, Used: 77}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
