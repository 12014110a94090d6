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
	const broker = "# TYPE shallot_repository_disk_bytes gauge\nshallot_repository_disk_bytes 77\n# TYPE process_resident_memory_bytes gauge\nprocess_resident_memory_bytes 8\n" +
		"# TYPE process_start_time_seconds gauge\nprocess_start_time_seconds 1000\n# TYPE process_cpu_seconds_total counter\nprocess_cpu_seconds_total 2\n"
	got := FiguresOf([]*telemetryv1.ProcessMetrics{{Process: "task", Replica: "a", Pid: 1, Text: []byte(task)}, {Process: "task", Replica: "b", Pid: 1, Text: []byte(task)}, {Process: "task", Error: "away"},
		{Process: "task", Replica: "c", Text: []byte("{")}, {Process: "broker", Pid: 2, Text: []byte(broker)}})
	one := app.Counts{Finished: 3, Failed: 3, Runs: []app.Bucket{{Most: time.Millisecond, Count: 1}}}
	want := app.Figures{Waiting: 4, Memory: 8, Used: 77, Counts: map[string]app.Counts{"task a 1": one, "task b 1": one, "broker  2": {StartedAt: time.Unix(1000, 0), CPU: 2 * time.Second}}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
