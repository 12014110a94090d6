package executor

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/engine/enginetest"
)

// discard takes everything.
type discard struct{ n int64 }

func (*discard) Started() {}
func (d *discard) Output(_ string, p []byte) error {
	d.n += int64(len(p))
	return nil
}

// BenchmarkTiny is a warm run of a tiny module, from Execute to its outcome.
func BenchmarkTiny(b *testing.B) {
	w := newWasm(b, nil)
	run := taskOf(enginetest.Program("hello"))
	before := childCPU(w)
	var out app.Outcome
	for b.Loop() {
		var err error
		if out, err = w.Execute(b.Context(), run, &discard{}); err != nil || out.Reason != "" {
			b.Fatal(out, err)
		}
	}
	b.ReportMetric(float64((childCPU(w)-before).Microseconds())/float64(b.N), "child-cpu-us/op")
}

// childCPU is what the first idle child has used.
func childCPU(w *Wasm) time.Duration {
	w.pool.mu.Lock()
	defer w.pool.mu.Unlock()
	if len(w.pool.idle) == 0 {
		return 0
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", w.pool.idle[len(w.pool.idle)-1].cmd.Process.Pid))
	if err != nil {
		return 0
	}
	f := strings.Fields(string(b[strings.LastIndex(string(b), ")")+1:]))
	var user, sys int64
	_, _ = fmt.Sscan(f[11], &user)
	_, _ = fmt.Sscan(f[12], &sys)
	return time.Duration(user+sys) * 10 * time.Millisecond
}
