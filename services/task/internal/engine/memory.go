package engine

import (
	"bytes"
	"io"
)

// Tail passes writes on and keeps the last bytes, to tell later why a program failed.
type Tail struct {
	W   io.Writer
	buf []byte
}

const tailBytes = 4 << 10

// Write implements io.Writer.
func (t *Tail) Write(p []byte) (int, error) {
	keep := p
	if len(keep) > tailBytes {
		keep = keep[len(keep)-tailBytes:]
	}
	if over := len(t.buf) + len(keep) - tailBytes; over > 0 {
		t.buf = append(t.buf[:0], t.buf[over:]...)
	}
	t.buf = append(t.buf, keep...)
	if t.W == nil {
		return len(p), nil
	}
	return t.W.Write(p)
}

// What the usual runtimes print when an allocation fails: Go, Rust, C++, AssemblyScript and the C libraries.
var outOfMemoryTexts = [][]byte{
	[]byte("out of memory"), []byte("memory allocation of "), []byte("bad_alloc"), []byte("Cannot allocate memory"), []byte("MemoryError"), []byte("OutOfMemory"),
}

// SaysOutOfMemory tells whether the end of stderr speaks of memory.
func (t *Tail) SaysOutOfMemory() bool {
	for _, text := range outOfMemoryTexts {
		if bytes.Contains(t.buf, text) {
			return true
		}
	}
	return false
}

// Exhausted tells whether a program that failed with this much memory is likely to have failed because more was
// refused. Engines do not all report a refusal, so what is left below the limit has to speak for it: allocators grow
// by a page to an eighth of what they have.
func Exhausted(memory, limit int64) bool {
	return memory > 0 && limit-memory < max(limit/8, PageSize)
}
