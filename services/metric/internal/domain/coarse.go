package domain

import (
	"cmp"
	"math"
	"math/bits"
	"slices"
)

// Coarse is the metric in classes that many machines share: exact hardware is as good as a name, and an exact load is a clock. It is coarse already when it is
// made coarse again.
//
//	models       are left out
//	processors   a power of two, rounded down, and the same for graphics processors, slots and capacity
//	memory, MHz  the nearest power of two, of the memory of graphics processors too
//	disk         the nearest power of four
//	load         quarters; of memory and disk the free and used parts too, rounded down
//	load average the nearest power of two, 0 below a half
//	tasks        the next power of two, so that 0 is idle and all slots are all
func (m Metric) Coarse() Metric {
	c := &m.CPU
	*c = CPU{Cores: downToPower(c.Cores), Threads: downToPower(c.Threads), MHz: float64(min(nearestPower(uint64(c.MHz), 1), 1<<16)), Load: math.Round(c.Load*4) / 4, Load1: coarseAverage(c.Load1)}
	m.Memory, m.Disk = m.Memory.coarse(1), m.Disk.coarse(2)
	gpus := make([]GPU, downToPower(uint32(len(m.GPUs))))
	for i := range gpus {
		gpus[i].Memory = nearestPower(m.GPUs[i].Memory, 1)
	}
	slices.SortFunc(gpus, func(a, b GPU) int { return cmp.Compare(b.Memory, a.Memory) })
	m.GPUs = gpus
	m.Queue = m.Queue.coarse()
	return m
}

func (q Queue) coarse() Queue {
	q.Slots, q.Capacity = downToPower(q.Slots), downToPower(q.Capacity)
	q.Pending = min(upToPower(q.Pending), maxQueue)
	if q.Running = upToPower(q.Running); q.Slots > 0 {
		q.Running = min(q.Running, q.Slots)
	}
	q.Running = min(q.Running, maxQueue)
	return q
}

// coarse rounds the whole to a power of 1<<step, and its parts to quarters of that.
func (s Space) coarse(step int) Space {
	total := min(nearestPower(s.Total, step), maxBytes)
	quarter := total / 4
	if quarter == 0 {
		return Space{Total: total}
	}
	part := func(v uint64) uint64 { return min(v/quarter, 4) * quarter }
	return Space{Total: total, Free: part(s.Free), Used: part(s.Used)}
}

func coarseAverage(v float64) float64 {
	if v < 0.5 {
		return 0
	}
	return math.Exp2(math.Round(math.Log2(min(v, maxLoad1))))
}

// downToPower is the largest power of two that is not above n; 0 for 0.
func downToPower(n uint32) uint32 {
	if n == 0 {
		return 0
	}
	return 1 << (bits.Len32(n) - 1)
}

// upToPower is the smallest power of two that is not below n; 0 for 0.
func upToPower(n uint32) uint32 {
	if n == 0 {
		return 0
	}
	return 1 << min(bits.Len32(n-1), 31)
}

// nearestPower is the power of 1<<step that is nearest to n by its ratio; 0 for 0.
func nearestPower(n uint64, step int) uint64 {
	if n == 0 {
		return 0
	}
	exponent := math.Round(math.Log2(float64(n)) / float64(step))
	return 1 << min(int(exponent)*step, 62)
}
