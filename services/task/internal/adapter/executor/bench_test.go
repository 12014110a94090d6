package executor

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/shallot-net/shallot/services/task/internal/engine/enginetest"
)

// discard takes everything.
type discard struct{ n int64 }

func (*discard) Started() {}
func (d *discard) Output(_ string, p []byte) error {
	d.n += int64(len(p))
	return nil
}

// BenchmarkTiny is warm runs of a tiny module, from Execute to the outcome: one after another, and eight side by side.
func BenchmarkTiny(b *testing.B) {
	for _, side := range []int{1, 8} {
		b.Run(strconv.Itoa(side), func(b *testing.B) { benchmarkTiny(b, side) })
	}
}

func benchmarkTiny(b *testing.B, side int) {
	// No child is replaced meanwhile: its CPU time would be lost to the measurement.
	w := newWasm(b, func(c *Config) {
		c.Warm, c.Max, c.Runs, c.IdleMemory, c.RefreshTime = side, side, math.MaxInt, math.MaxInt64, time.Hour
	})
	run := taskOf(enginetest.Program("hello"))
	many := func(n int64) {
		var all sync.WaitGroup
		var begun atomic.Int64
		for range side {
			all.Go(func() {
				for begun.Add(1) <= n {
					if out, err := w.Execute(b.Context(), run, &discard{}); err != nil || out.Reason != "" {
						b.Error(out, err)
						return
					}
				}
			})
		}
		all.Wait()
	}
	many(200 * int64(side))
	theirs, own := childCPU(w), ownCPU()
	b.ResetTimer()
	many(int64(b.N))
	b.StopTimer()
	b.ReportMetric(float64((ownCPU()-own).Microseconds())/float64(b.N), "own-cpu-us/op")
	b.ReportMetric(float64((childCPU(w)-theirs).Microseconds())/float64(b.N), "child-cpu-us/op")
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
