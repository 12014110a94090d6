package domain

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Bounds of what a metric may say. They are far above any machine: what exceeds them is a lie or a mistake.
const (
	MaxMetric   = 8 << 10 // bytes, encoded
	MinInterval = time.Second
	MaxInterval = 24 * time.Hour
	MaxGPUs     = 64
	maxPeerID   = 128
	maxModel    = 128 // bytes
	maxThreads  = 1 << 16
	maxMHz      = 100_000
	maxLoad1    = 1 << 20
	maxBytes    = 1 << 60
	maxQueue    = 1 << 24
)

// Metric is one node's resources. Sizes are bytes, frequencies MHz, ratios 0 to 1.
type Metric struct {
	PeerID   string
	Version  uint64
	Interval time.Duration // the next one is to be expected within it
	CPU      CPU
	Memory   Space
	Disk     Space // of the file system that holds the node's home
	GPUs     []GPU
	Queue    Queue
}

// CPU of a host. Load is the busy share of all threads since the last measurement, Load1 the kernel's one-minute average
// of runnable threads.
type CPU struct {
	Model          string
	Cores, Threads uint32
	MHz            float64
	Load, Load1    float64
}

// Space is memory or disk, in bytes. Free is what can be had, caches included.
type Space struct {
	Total, Free, Used uint64
}

// GPU is one graphics processor and its memory in bytes.
type GPU struct {
	Model  string
	Memory uint64
}

// Queue is what the task service has to do.
type Queue struct {
	Pending, Running, Slots, Capacity uint32
}

// Invalid says why a metric is not one. Reason is for the sender and for counting; Detail for people.
type Invalid struct {
	Reason, Detail string
}

func (e *Invalid) Error() string { return e.Detail }

func invalid(reason, format string, args ...any) error {
	return &Invalid{reason, fmt.Sprintf(format, args...)}
}

// Check finds what is wrong with a metric that came from the network, as an *Invalid.
func (m *Metric) Check() error {
	switch {
	case !PeerIDShaped(m.PeerID):
		return invalid("PEER_ID_INVALID", "the peer id has %d bytes or is not letters and digits", len(m.PeerID))
	case m.Version == 0:
		return invalid("VERSION_INVALID", "the version is 0; the first is 1")
	case m.Interval <= 0:
		return invalid("INTERVAL_INVALID", "the interval %v is not positive", m.Interval)
	case len(m.GPUs) > MaxGPUs:
		return invalid("GPU_INVALID", "%d graphics processors; there may be %d", len(m.GPUs), MaxGPUs)
	}
	for _, g := range m.GPUs {
		if !modelShaped(g.Model) || g.Memory > maxBytes {
			return invalid("GPU_INVALID", "the model or the memory of a graphics processor is out of range")
		}
	}
	if err := m.CPU.check(); err != nil {
		return err
	}
	if err := m.Memory.check("MEMORY_INVALID", "memory"); err != nil {
		return err
	}
	if err := m.Disk.check("DISK_INVALID", "disk"); err != nil {
		return err
	}
	return m.Queue.Check()
}

func (c *CPU) check() error {
	switch {
	case !modelShaped(c.Model):
		return invalid("CPU_INVALID", "the CPU model is not at most %d printable bytes", maxModel)
	case c.Threads > maxThreads || c.Cores > maxThreads:
		return invalid("CPU_INVALID", "%d cores and %d threads; there may be %d", c.Cores, c.Threads, maxThreads)
	case !within(c.MHz, maxMHz):
		return invalid("CPU_INVALID", "%v MHz is not 0 to %d", c.MHz, maxMHz)
	case !within(c.Load, 1):
		return invalid("CPU_INVALID", "a load of %v is not 0 to 1", c.Load)
	case !within(c.Load1, maxLoad1):
		return invalid("CPU_INVALID", "a load average of %v is not 0 to %d", c.Load1, maxLoad1)
	}
	return nil
}

func (s *Space) check(reason, what string) error {
	if s.Total > maxBytes || s.Free > s.Total || s.Used > s.Total {
		return invalid(reason, "%s of %d bytes with %d free and %d used is out of range", what, s.Total, s.Free, s.Used)
	}
	return nil
}

// Check finds what is wrong with queue figures, as an *Invalid.
func (q *Queue) Check() error {
	if q.Pending > maxQueue || q.Running > maxQueue || q.Slots > maxQueue || q.Capacity > maxQueue {
		return invalid("QUEUE_INVALID", "a queue figure is above %d", maxQueue)
	}
	return nil
}

// Clamped is the metric with its interval within the sane range.
func (m Metric) Clamped() Metric {
	m.Interval = min(max(m.Interval, MinInterval), MaxInterval)
	return m
}

// Sound is a measurement made fit to be told: what a kernel or a driver gave that is not finite or out of range is 0 or
// the nearest bound, never a reason to say nothing.
func (m Metric) Sound() Metric {
	m.CPU.Model = sound(m.CPU.Model)
	m.CPU.Cores, m.CPU.Threads = min(m.CPU.Cores, maxThreads), min(m.CPU.Threads, maxThreads)
	m.CPU.MHz, m.CPU.Load, m.CPU.Load1 = clampTo(m.CPU.MHz, maxMHz), clampTo(m.CPU.Load, 1), clampTo(m.CPU.Load1, maxLoad1)
	m.Memory, m.Disk = m.Memory.sound(), m.Disk.sound()
	gpus := make([]GPU, 0, min(len(m.GPUs), MaxGPUs))
	for _, g := range m.GPUs[:min(len(m.GPUs), MaxGPUs)] {
		gpus = append(gpus, GPU{sound(g.Model), min(g.Memory, maxBytes)})
	}
	m.GPUs = gpus
	return m
}

func (s Space) sound() Space {
	s.Total = min(s.Total, maxBytes)
	s.Free, s.Used = min(s.Free, s.Total), min(s.Used, s.Total)
	return s
}

// MarkedChange tells whether two measurements differ so much that peers should hear of it before their time: the load by
// more than a fifth, the queue at all, and the graphics processors, which are found some time after the first measurement.
func MarkedChange(a, b *Metric) bool {
	return math.Abs(a.CPU.Load-b.CPU.Load) > 0.2 || a.Queue != b.Queue || !slices.Equal(a.GPUs, b.GPUs)
}

// PeerIDShaped tells whether a string could be a peer id. What it really is, only the broker knows.
func PeerIDShaped(id string) bool {
	return len(id) > 0 && len(id) <= maxPeerID && !strings.ContainsFunc(id, func(r rune) bool {
		return r > unicode.MaxASCII || !unicode.IsLetter(r) && !unicode.IsDigit(r)
	})
}

func modelShaped(s string) bool {
	return len(s) <= maxModel && utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

func sound(model string) string {
	model = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) || r == utf8.RuneError {
			return -1
		}
		return r
	}, strings.Join(strings.Fields(model), " "))
	for len(model) > maxModel {
		_, n := utf8.DecodeLastRuneInString(model)
		model = model[:len(model)-n]
	}
	return model
}

// within is false for what is not a number, too.
func within(v, limit float64) bool { return v >= 0 && v <= limit }

func clampTo(v, limit float64) float64 {
	if !(v > 0) { // NaN too
		return 0
	}
	return min(v, limit)
}
