// Package measure reads what processes take from the kernel, and times things.
package measure

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// tick is the unit of /proc/PID/stat's times: USER_HZ, which is 100 on every Linux that Go runs on.
const tick = 10 * time.Millisecond

// CPU returns the user and system time that processes have taken, with that of their children that have ended.
// Take it of whole trees of processes: what a child had taken moves to its parent with its end.
func CPU(pids ...int) (sum time.Duration) {
	for _, p := range pids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p))
		if err != nil {
			continue
		}
		f := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
		for _, i := range []int{11, 12, 13, 14} {
			n, _ := strconv.ParseInt(string(f[i]), 10, 64)
			sum += time.Duration(n) * tick
		}
	}
	return sum
}

// PSS returns the proportional memory of processes in bytes: pages that several map count once in all.
func PSS(pids ...int) (sum int64) {
	for _, p := range pids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", p))
		if err != nil {
			continue
		}
		for _, line := range strings.Split(string(b), "\n") {
			if f := strings.Fields(line); len(f) > 1 && f[0] == "Pss:" {
				n, _ := strconv.ParseInt(f[1], 10, 64)
				sum += n << 10
			}
		}
	}
	return sum
}

// Latencies does a thing n times in a row and returns how long each took.
func Latencies(n int, do func() error) ([]time.Duration, error) {
	d := make([]time.Duration, n)
	for i := range d {
		begin := time.Now()
		if err := do(); err != nil {
			return nil, err
		}
		d[i] = time.Since(begin)
	}
	return d, nil
}

// InFlight does a thing n times, so many at a time, and returns how long each took and the first error, after which it
// begins no more.
func InFlight(n, width int, do func() error) ([]time.Duration, error) {
	var (
		next   atomic.Int64
		failed atomic.Pointer[error]
		wg     sync.WaitGroup
		d      = make([]time.Duration, n)
	)
	for range width {
		wg.Go(func() {
			for failed.Load() == nil {
				i := next.Add(1) - 1
				if i >= int64(n) {
					return
				}
				begin := time.Now()
				if err := do(); err != nil {
					failed.CompareAndSwap(nil, &err)
				}
				d[i] = time.Since(begin)
			}
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		return nil, *err
	}
	return d, nil
}

// Quantile returns the q-quantile of durations (nearest rank), which it sorts.
func Quantile(d []time.Duration, q float64) time.Duration {
	if len(d) == 0 {
		return 0
	}
	slices.Sort(d)
	return d[min(int(q*float64(len(d))), len(d)-1)]
}
