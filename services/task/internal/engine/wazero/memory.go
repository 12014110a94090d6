package wazero

import (
	"errors"
	"runtime/debug"

	"github.com/tetratelabs/wazero/experimental"
)

var errRefused = errors.New("initial memory refused")

// allocator bounds linear memory and sees what it refuses.
type allocator struct {
	limit, peak uint64
	refused     bool
}

// Allocate implements experimental.MemoryAllocator.
func (a *allocator) Allocate(_, most uint64) experimental.LinearMemory {
	m, err := reserve(min(most, a.limit))
	if err != nil {
		panic(errRefused)
	}
	return &memory{a: a, m: m}
}

type memory struct {
	a     *allocator
	m     *mapping
	begun bool
}

// Reallocate implements experimental.LinearMemory. nil refuses to grow; the first call is for what the module begins
// with, where wazero takes no refusal.
func (m *memory) Reallocate(size uint64) []byte {
	var b []byte
	if size <= m.a.limit {
		b = m.m.grow(size)
	}
	if b == nil {
		m.a.refused = true
		if !m.begun {
			m.m.free()
			panic(errRefused)
		}
		return nil
	}
	m.begun = true
	m.a.peak = max(m.a.peak, size)
	return b
}

// Free implements experimental.LinearMemory.
func (m *memory) Free() { m.m.free() }

// pauseGC turns the collector off while a program runs, up to a bound. The collector has to stop every goroutine, a
// program in a tight loop cannot be stopped, and until it ends nothing else of the process would run: neither what
// sends its output, nor what ends the process when the service is gone.
func pauseGC(memory int64) (resume func()) {
	percent := debug.SetGCPercent(-1)
	limit := debug.SetMemoryLimit(gcFloor + memory)
	return func() {
		debug.SetMemoryLimit(limit)
		debug.SetGCPercent(percent)
	}
}

// gcFloor is the heap from which on collecting is better than growing, in bytes.
const gcFloor = 128 << 20
