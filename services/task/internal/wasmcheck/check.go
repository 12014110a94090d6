// Package wasmcheck looks at a WebAssembly module without compiling it: is it one, can it be run here. It is for bytes
// of which nothing is known yet, reads them once or twice, and keeps almost nothing of them in memory.
package wasmcheck

import (
	"fmt"
	"io"
)

// Reasons of an Error.
const (
	ReasonNotWasm   = "WASM_INVALID"     // not a module, or a broken one
	ReasonImport    = "WASM_IMPORT"      // imports what is not offered
	ReasonNoStart   = "WASM_NO_START"    // no program: nothing to call
	ReasonMemory    = "WASM_MEMORY"      // begins with more memory than it may have
	ReasonTooLarge  = "WASM_TOO_LARGE"   // more bytes or parts than accepted
	ReasonUnsupport = "WASM_UNSUPPORTED" // a newer kind of module
)

// Error says why a module cannot be run, and what would mend it.
type Error struct {
	Reason  string
	Message string
}

func (e *Error) Error() string { return e.Message }

func fail(reason, format string, args ...any) error {
	return &Error{Reason: reason, Message: fmt.Sprintf(format, args...)}
}

// Limits of Check. Zero means that there is none but the package's own.
type Limits struct {
	Size   int64 // bytes of the module
	Memory int64 // bytes of linear memory that it may begin with
}

// Bounds on what is looked at; engines have about the same.
const (
	MaxSize      = 256 << 20
	maxSections  = 10_000
	maxTypes     = 1_000_000
	maxFunctions = 1_000_000
	maxImports   = 10_000
	maxExports   = 100_000
	maxName      = 100_000
	pageSize     = 64 << 10
)

// Info is what Check has seen.
type Info struct {
	Imports       int
	Functions     int   // defined in the module
	InitialMemory int64 // bytes
}

// Check reads the module of size bytes. An error is an *Error, or the reader's own.
func Check(r io.ReaderAt, size int64, limits Limits) (Info, error) {
	most := int64(MaxSize)
	if limits.Size > 0 {
		most = min(most, limits.Size)
	}
	if size > most {
		return Info{}, fail(ReasonTooLarge, "the module has %d bytes, and may have %d", size, most)
	}
	m := &module{size: size, limits: limits}
	m.r.r = r
	if err := m.header(); err != nil {
		return Info{}, err
	}
	if err := m.find(); err != nil {
		return Info{}, err
	}
	for _, step := range []func() error{m.imports, m.functions, m.memory, m.start, m.types} {
		if err := step(); err != nil {
			return Info{}, err
		}
	}
	return m.info, nil
}

// Section ids.
const (
	secCustom = iota
	secType
	secImport
	secFunction
	secTable
	secMemory
	secGlobal
	secExport
	secStart
	secElement
	secCode
	secData
	secDataCount
	secTag
	sections
)

// order in which sections must come; they are numbered otherwise for historical reasons.
var order = [sections]int{secType: 1, secImport: 2, secFunction: 3, secTable: 4, secMemory: 5, secTag: 6, secGlobal: 7, secExport: 8, secStart: 9, secElement: 10, secDataCount: 11, secCode: 12, secData: 13}

type span struct{ at, size int64 }

type module struct {
	r      reader
	size   int64
	limits Limits
	info   Info
	spans  [sections]span

	wanted map[uint32]signature // type index -> what it must be
	names  map[uint32]string    // type index -> for which function
}

func (m *module) header() error {
	var b [8]byte
	if m.size < int64(len(b)) {
		return fail(ReasonNotWasm, "this is no WebAssembly module: it has only %d bytes", m.size)
	}
	m.r.seek(0, m.size)
	if err := m.r.read(b[:]); err != nil {
		return err
	}
	if string(b[:4]) != "\x00asm" {
		return fail(ReasonNotWasm, "this is no WebAssembly module: it begins with %q, not with %q (text, or an ELF program? compile to wasm32-wasip1, for example with GOOS=wasip1 GOARCH=wasm)", b[:4], "\x00asm")
	}
	switch string(b[4:]) {
	case "\x01\x00\x00\x00":
		return nil
	case "\x0d\x00\x01\x00":
		return fail(ReasonUnsupport, "this is a WebAssembly component (WASI preview 2): compile to a plain module, target wasm32-wasip1")
	}
	return fail(ReasonUnsupport, "this module is of WebAssembly version %x: version 1 is supported", b[4:])
}

// find notes where the sections are; their order and sizes are checked, their contents are not read.
func (m *module) find() error {
	at, last, r := int64(8), 0, &m.r // right behind the header
	for n := 0; at < m.size; n++ {
		if n == maxSections {
			return fail(ReasonTooLarge, "the module has more than %d sections", maxSections)
		}

		id, err := r.byte()
		if err != nil {
			return err
		}
		size, err := r.u32()
		if err != nil {
			return err
		}
		at = r.pos()
		if int64(size) > m.size-at {
			return fail(ReasonNotWasm, "the module is cut off or broken: section %d at byte %d says that it has %d bytes, and there are %d", id, at, size, m.size-at)
		}
		if id >= sections {
			return fail(ReasonNotWasm, "the module is broken: section %d at byte %d is of no known kind", id, at)
		}
		if id != secCustom {
			if order[id] <= last {
				return fail(ReasonNotWasm, "the module is broken: section %d at byte %d comes too late or twice", id, at)
			}
			last = order[id]
			m.spans[id] = span{at, int64(size)}
		}
		at += int64(size)
		if err := r.skip(int64(size)); err != nil {
			return err
		}
	}
	return nil
}

// section moves the reader, of which there is one, to a section and says how many entries it has; nil when it is not there
// or empty.
func (m *module) section(id int, most uint32, what string) (*reader, uint32, error) {
	s := m.spans[id]
	if s.size == 0 {
		return nil, 0, nil
	}
	m.r.seek(s.at, s.at+s.size)
	n, err := m.r.u32()
	if err != nil {
		return nil, 0, err
	}
	if n > most {
		return nil, 0, fail(ReasonTooLarge, "the module has %d %s, and may have %d", n, what, most)
	}
	return &m.r, n, nil
}
