package domain_test

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/shallot-net/shallot/services/metric/internal/domain"
)

func metric(id string, version uint64) domain.Metric {
	return domain.Metric{PeerID: id, Version: version, Interval: 10 * time.Second,
		CPU:    domain.CPU{Model: "Example CPU @ 3.0 GHz", Cores: 4, Threads: 8, MHz: 3000, Load: 0.5, Load1: 2.5},
		Memory: domain.Space{Total: 16 << 30, Free: 8 << 30, Used: 8 << 30}, Disk: domain.Space{Total: 1 << 40, Free: 1 << 39, Used: 1 << 38},
		GPUs: []domain.GPU{{Model: "Example GPU", Memory: 24 << 30}}, Queue: domain.Queue{Pending: 1, Running: 2, Slots: 8, Capacity: 100}}
}

func TestCheck(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(m *domain.Metric)
		reason string
	}{
		{"good", func(*domain.Metric) {}, ""},
		{"nothing measured", func(m *domain.Metric) { *m = domain.Metric{PeerID: "a", Version: 1, Interval: 1} }, ""},
		{"no peer", func(m *domain.Metric) { m.PeerID = "" }, "PEER_ID_INVALID"},
		{"version 0", func(m *domain.Metric) { m.Version = 0 }, "VERSION_INVALID"},
		{"no interval", func(m *domain.Metric) { m.Interval = 0 }, "INTERVAL_INVALID"},
		{"a negative interval", func(m *domain.Metric) { m.Interval = -1 }, "INTERVAL_INVALID"},
		{"a load above 1", func(m *domain.Metric) { m.CPU.Load = 1.01 }, "CPU_INVALID"},
		{"a negative load", func(m *domain.Metric) { m.CPU.Load = -0.1 }, "CPU_INVALID"},
		{"a load that is no number", func(m *domain.Metric) { m.CPU.Load = math.NaN() }, "CPU_INVALID"},
		{"an infinite load average", func(m *domain.Metric) { m.CPU.Load1 = math.Inf(1) }, "CPU_INVALID"},
		{"a frequency that is no number", func(m *domain.Metric) { m.CPU.MHz = math.NaN() }, "CPU_INVALID"},
		{"a terahertz", func(m *domain.Metric) { m.CPU.MHz = 1e6 }, "CPU_INVALID"},
		{"a million threads", func(m *domain.Metric) { m.CPU.Threads = 1e6 }, "CPU_INVALID"},
		{"a model with an escape", func(m *domain.Metric) { m.CPU.Model = "\x1b[2J" }, "CPU_INVALID"},
		{"an endless model", func(m *domain.Metric) { m.CPU.Model = strings.Repeat("x", 129) }, "CPU_INVALID"},
		{"more free than there is", func(m *domain.Metric) { m.Memory.Free = m.Memory.Total + 1 }, "MEMORY_INVALID"},
		{"more used than there is", func(m *domain.Metric) { m.Memory.Used = m.Memory.Total + 1 }, "MEMORY_INVALID"},
		{"memory beyond all machines", func(m *domain.Metric) { m.Memory.Total = math.MaxUint64 }, "MEMORY_INVALID"},
		{"a disk with more free than there is", func(m *domain.Metric) { m.Disk.Free = math.MaxUint64 }, "DISK_INVALID"},
		{"65 GPUs", func(m *domain.Metric) { m.GPUs = make([]domain.GPU, 65) }, "GPU_INVALID"},
		{"a GPU beyond all machines", func(m *domain.Metric) { m.GPUs[0].Memory = math.MaxUint64 }, "GPU_INVALID"},
		{"a GPU that is no text", func(m *domain.Metric) { m.GPUs[0].Model = "\xff" }, "GPU_INVALID"},
		{"an endless queue", func(m *domain.Metric) { m.Queue.Pending = math.MaxUint32 }, "QUEUE_INVALID"},
	} {
		m := metric("12D3KooWGood", 1)
		c.change(&m)
		var why *domain.Invalid
		switch err := m.Check(); {
		case c.reason == "" && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.reason != "" && (!errors.As(err, &why) || why.Reason != c.reason):
			t.Errorf("%s: Check = %v, want reason %s", c.name, err, c.reason)
		}
	}
}

// Whatever a kernel or a driver says, what is told to peers passes their check.
func TestSound(t *testing.T) {
	bad := metric("12D3KooWGood", 1)
	bad.CPU = domain.CPU{Model: "  Weird\x00\tCPU\n" + strings.Repeat("é", 100), Threads: math.MaxUint32, MHz: math.Inf(1), Load: math.NaN(), Load1: math.Inf(-1)}
	bad.Memory = domain.Space{Total: 100, Free: math.MaxUint64, Used: 200}
	bad.Disk = domain.Space{Total: math.MaxUint64, Free: 1}
	bad.GPUs = append(make([]domain.GPU, 100), domain.GPU{Model: "\xff"})
	got := bad.Sound()
	if err := got.Check(); err != nil {
		t.Errorf("made sound it is %+v: %v", got, err)
	}
	if !strings.HasPrefix(got.CPU.Model, "Weird CPU") || got.CPU.Load != 0 || got.Memory.Free != 100 {
		t.Errorf("made sound it is %+v", got)
	}
	good := metric("12D3KooWGood", 1)
	if got := good.Sound(); got.CPU != good.CPU || got.Memory != good.Memory || got.GPUs[0] != good.GPUs[0] {
		t.Errorf("what is sound was changed: %+v", got)
	}
}

func TestMarkedChange(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(m *domain.Metric)
		want   bool
	}{
		{"none", func(*domain.Metric) {}, false},
		{"a little load", func(m *domain.Metric) { m.CPU.Load += 0.19 }, false},
		{"much load", func(m *domain.Metric) { m.CPU.Load += 0.21 }, true},
		{"much less load", func(m *domain.Metric) { m.CPU.Load -= 0.21 }, true},
		{"one task more", func(m *domain.Metric) { m.Queue.Running++ }, true},
		{"memory", func(m *domain.Metric) { m.Memory.Free = 0 }, false},
	} {
		a, b := metric("a", 1), metric("a", 1)
		c.change(&b)
		if got := domain.MarkedChange(&a, &b); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}
