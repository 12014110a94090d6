package wasmcheck

import "fmt"

// Kinds of imports and exports.
const (
	kindFunction = iota
	kindTable
	kindMemory
	kindGlobal
	kindTag
)

var kinds = [...]string{"function", "table", "memory", "global", "tag"}

func kindName(k byte) string {
	if int(k) < len(kinds) {
		return kinds[k]
	}
	return fmt.Sprintf("kind %d", k)
}

// imports checks that all are functions which are offered; how they look comes with the types.
func (m *module) imports() error {
	m.wanted, m.names = make(map[uint32]signature), make(map[uint32]string)
	r, n, err := m.section(secImport, maxImports, "imports")
	if r == nil {
		return err
	}
	for range n {
		if err := m.oneImport(r); err != nil {
			return err
		}
	}
	m.info.Imports = int(n)
	return nil
}

func (m *module) oneImport(r *reader) error {
	from, err := r.name()
	if err != nil {
		return err
	}
	name, err := r.name()
	if err != nil {
		return err
	}
	kind, err := r.byte()
	if err != nil {
		return err
	}
	sig, ok := offered[name]
	switch {
	case from != Offered:
		return fail(ReasonImport, "the module imports the %s %s.%s, and only functions of %s are offered (compile to wasm32-wasip1, without bindings to a browser or another host)", kindName(kind), from, name, Offered)
	case kind != kindFunction:
		return fail(ReasonImport, "the module imports the %s %s.%s, and only functions are offered", kindName(kind), from, name)
	case !ok:
		return fail(ReasonImport, "the module imports %s.%s, which is not offered; these are: %s", from, name, offeredNames)
	}
	index, err := r.u32()
	if err != nil {
		return err
	}
	return m.want(index, sig, from+"."+name)
}

func (m *module) want(index uint32, sig signature, name string) error {
	if old, ok := m.wanted[index]; ok && old != sig {
		return fail(ReasonImport, "the module uses one type for %s and for %s, which have different ones: %s and %s", m.names[index], name, old, sig)
	}
	m.wanted[index], m.names[index] = sig, name
	return nil
}

// functions counts them.
func (m *module) functions() error {
	_, n, err := m.section(secFunction, maxFunctions, "functions")
	m.info.Functions = int(n)
	return err
}

// memory checks the one linear memory that a module may have.
func (m *module) memory() error {
	r, n, err := m.section(secMemory, 1, "linear memories")
	if r == nil || n == 0 {
		return err
	}
	flags, err := r.byte()
	if err != nil {
		return err
	}
	if flags > 1 {
		return fail(ReasonUnsupport, "the module's memory is shared or addressed by 64 bits (flags %#x): neither threads nor memory64 are supported", flags)
	}
	pages, err := r.u32()
	if err != nil {
		return err
	}
	m.info.InitialMemory = int64(pages) * pageSize
	if pages > 1<<16 {
		return fail(ReasonNotWasm, "the module is broken: it begins with %d pages of memory, and there can be 65536", pages)
	}
	if m.limits.Memory > 0 && m.info.InitialMemory > m.limits.Memory {
		return fail(ReasonMemory, "the module begins with %d bytes of memory, and may have %d: raise the memory limit", m.info.InitialMemory, m.limits.Memory)
	}
	return nil
}

// start finds the function _start, which is what a program is called by.
func (m *module) start() error {
	r, n, err := m.section(secExport, maxExports, "exports")
	if err != nil {
		return err
	}
	initialize := false
	for range n {
		name, err := r.name()
		if err != nil {
			return err
		}
		kind, err := r.byte()
		if err != nil {
			return err
		}
		index, err := r.u32()
		if err != nil {
			return err
		}
		if name == "_start" && kind == kindFunction {
			return m.startType(index)
		}
		initialize = initialize || name == "_initialize"
	}
	if initialize {
		return fail(ReasonNoStart, "the module exports _initialize, not _start: it is a library (a WASI reactor), not a program; build it without -buildmode=c-shared or -mexec-model=reactor")
	}
	return fail(ReasonNoStart, "the module exports no function _start: it is no WASI program (build an executable for wasm32-wasip1, with a main function)")
}

// startType notes which type _start has.
func (m *module) startType(index uint32) error {
	if int64(index) < int64(m.info.Imports) {
		return fail(ReasonNoStart, "the module's _start is one of its imports, not a function of its own")
	}
	index -= uint32(m.info.Imports) //nolint:gosec // bounded by maxImports
	if int64(index) >= int64(m.info.Functions) {
		return fail(ReasonNotWasm, "the module is broken: _start is function %d, and there are %d", index, m.info.Functions)
	}
	r, _, err := m.section(secFunction, maxFunctions, "functions")
	if err != nil {
		return err
	}
	for {
		t, err := r.u32()
		if err != nil {
			return err
		}
		if index == 0 {
			return m.want(t, "() -> ()", "_start")
		}
		index--
	}
}
