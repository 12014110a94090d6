// Package measure reads what processes take from the kernel, and times things.
package measure

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of /proc/PID/stat's times: USER_HZ, which is 100 on every Linux that Go runs on.
const tick = 10 * time.Millisecond

// CPU returns the user and system time that processes have taken, those that have ended left out.
func CPU(pids ...int) (sum time.Duration) {
	for _, p := range pids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p))
		if err != nil {
			continue
		}
		f := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
		for _, i := range []int{11, 12} {
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

// Latencies does a thing n times in a row and returns the median and the 99th percentile of its duration.
func Latencies(n int, do func()) (p50, p99 time.Duration) {
	d := make([]time.Duration, n)
	for i := range d {
		begin := time.Now()
		do()
		d[i] = time.Since(begin)
	}
	return Quantile(d, 0.50), Quantile(d, 0.99)
}

// Quantile returns the q-quantile of durations (nearest rank), which it sorts.
func Quantile(d []time.Duration, q float64) time.Duration {
	if len(d) == 0 {
		return 0
	}
	slices.Sort(d)
	return d[min(int(q*float64(len(d))), len(d)-1)]
}
