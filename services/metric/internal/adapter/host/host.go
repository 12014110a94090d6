// Package host measures the machine that it runs on.
package host

import (
	"context"
	"sync"
	"time"

	"github.com/shirou/gopsutil/v4/cpu"
	"github.com/shirou/gopsutil/v4/disk"
	"github.com/shirou/gopsutil/v4/load"
	"github.com/shirou/gopsutil/v4/mem"

	"github.com/shallot-net/shallot/services/metric/internal/app"
	"github.com/shallot-net/shallot/services/metric/internal/domain"
)

// How long a measurement that changes seldom, or costs much, is kept.
const (
	keepDisk  = 30 * time.Second
	keepCPU   = 10 * time.Minute // frequencies and hot-plugged threads
	keepGPU   = 10 * time.Minute
	failedGPU = 30 * time.Second // the tool could not say: a driver that nobody holds open takes long to start
)

// Host is an app.Host. It is safe for concurrent use.
type Host struct {
	dir string

	mu     sync.Mutex
	cpu    domain.CPU
	cpuAt  time.Time
	busy   cpu.TimesStat
	disk   domain.Space
	diskAt time.Time
	gpus   []domain.GPU
	gpuAt  time.Time
	gpu    func(context.Context) (found []domain.GPU, ok bool)
}

var _ app.Host = (*Host)(nil)

// New measures this machine, and the disk of dir. The first load is that since the machine started.
func New(dir string) *Host { return &Host{dir: dir, gpu: findGPUs} }

// Measure never fails: what cannot be measured is zero. It does not block on hardware: graphics processors are looked
// for in the background, so the first measurements are without.
func (h *Host) Measure(ctx context.Context) domain.Metric {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	if h.cpuAt.IsZero() || now.Sub(h.cpuAt) > keepCPU {
		h.cpu, h.cpuAt = readCPU(ctx), now
	}
	if h.diskAt.IsZero() || now.Sub(h.diskAt) > keepDisk {
		h.disk, h.diskAt = readDisk(ctx, h.dir), now
	}
	if h.gpuAt.IsZero() || now.Sub(h.gpuAt) > keepGPU {
		h.gpuAt = now
		go h.refreshGPUs()
	}
	h.cpu.Load = h.readLoad(ctx)
	if avg, err := load.AvgWithContext(ctx); err == nil {
		h.cpu.Load1 = avg.Load1
	}
	m := domain.Metric{CPU: h.cpu, Disk: h.disk, GPUs: h.gpus}
	if v, err := mem.VirtualMemoryWithContext(ctx); err == nil {
		m.Memory = domain.Space{Total: v.Total, Free: v.Available, Used: v.Total - min(v.Available, v.Total)}
	}
	return m
}

// readLoad is the busy share since the last call. When the clock has not moved on it is what it was.
func (h *Host) readLoad(ctx context.Context) float64 {
	t, err := cpu.TimesWithContext(ctx, false)
	if err != nil || len(t) != 1 {
		return h.cpu.Load
	}
	share, ok := busyShare(h.busy, t[0])
	if !ok {
		return h.cpu.Load
	}
	h.busy = t[0]
	return share
}

// busyShare compares two readings of the kernel's counters. Guest time is in user time already.
func busyShare(before, after cpu.TimesStat) (float64, bool) {
	all := func(t cpu.TimesStat) float64 {
		return t.User + t.System + t.Idle + t.Nice + t.Iowait + t.Irq + t.Softirq + t.Steal
	}
	idle := func(t cpu.TimesStat) float64 { return t.Idle + t.Iowait }
	total := all(after) - all(before)
	if !(total > 0) {
		return 0, false
	}
	// A virtual machine's idle time may run backwards for a moment.
	return min(max(1-(idle(after)-idle(before))/total, 0), 1), true
}

func readCPU(ctx context.Context) domain.CPU {
	var out domain.CPU
	if info, err := cpu.InfoWithContext(ctx); err == nil && len(info) > 0 {
		out.Model = info[0].ModelName
		for _, i := range info {
			out.MHz = max(out.MHz, i.Mhz)
		}
	}
	if n, err := cpu.CountsWithContext(ctx, true); err == nil && n > 0 {
		out.Threads = uint32(n)
	}
	if n, err := cpu.CountsWithContext(ctx, false); err == nil && n > 0 {
		out.Cores = uint32(n)
	}
	if out.Cores == 0 { // not known everywhere
		out.Cores = out.Threads
	}
	return out
}

func readDisk(ctx context.Context, dir string) domain.Space {
	u, err := disk.UsageWithContext(ctx, dir)
	if err != nil {
		return domain.Space{}
	}
	return domain.Space{Total: u.Total, Free: u.Free, Used: u.Used}
}

func (h *Host) refreshGPUs() {
	ctx, cancel := context.WithTimeout(context.Background(), gpuTimeout)
	defer cancel()
	found, ok := h.gpu(ctx)
	h.mu.Lock()
	defer h.mu.Unlock()
	if !ok {
		h.gpuAt = time.Now().Add(failedGPU - keepGPU)
		if len(found) < len(h.gpus) {
			return
		}
	}
	h.gpus = found
}
