package executor

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
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
	for range 100 {
		execute(b, w, run)
	}
	before, own := childCPU(w), ownCPU()
	var out app.Outcome
	for b.Loop() {
		var err error
		if out, err = w.Execute(b.Context(), run, &discard{}); err != nil || out.Reason != "" {
			b.Fatal(out, err)
		}
	}
	b.ReportMetric(float64((ownCPU()-own).Microseconds())/float64(b.N), "own-cpu-us/op")
	b.ReportMetric(float64((childCPU(w)-before).Microseconds())/float64(b.N), "child-cpu-us/op")
}

// childCPU is what all children that are idle now have used.
func childCPU(w *Wasm) (sum time.Duration) {
	w.pool.mu.Lock()
	defer w.pool.mu.Unlock()
	for _, p := range w.pool.idle {
		tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", p.cmd.Process.Pid))
		for _, t := range tasks {
			b, err := os.ReadFile(t)
			if err != nil {
				continue
			}
			ns, _ := strconv.ParseInt(strings.Fields(string(b))[0], 10, 64)
			sum += time.Duration(ns)
		}
	}
	return sum
}

func ownCPU() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
