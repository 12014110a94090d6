package wasmcheck

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/shallot-net/shallot/services/task/internal/engine/enginetest"
)

// build makes a module of sections: an id followed by the contents.
func build(sections ...[]byte) []byte {
	b := []byte("\x00asm\x01\x00\x00\x00")
	for _, s := range sections {
		b = append(b, s[0])
		b = append(b, leb(len(s)-1)...)
		b = append(b, s[1:]...)
	}
	return b
}

func leb(n int) []byte {
	var b []byte
	for {
		c := byte(n & 0x7f)
		if n >>= 7; n == 0 {
			return append(b, c)
		}
		b = append(b, c|0x80)
	}
}

func cat(parts ...any) []byte {
	var b []byte
	for _, p := range parts {
		switch p := p.(type) {
		case int:
			b = append(b, byte(p))
		case string:
			b = append(append(b, leb(len(p))...), p...)
		case []byte:
			b = append(b, p...)
		}
	}
	return b
}

var (
	// Types: 0 is () -> (), 1 is (i32) -> (), 2 is (i32) -> (i32).
	types     = cat(secType, 3, 0x60, 0, 0, 0x60, 1, 0x7f, 0, 0x60, 1, 0x7f, 1, 0x7f)
	functions = cat(secFunction, 1, 0)
	memory    = cat(secMemory, 1, 0, 1)
	exit      = cat(secImport, 1, Offered, "proc_exit", 0, 1)
	code      = cat(secCode, 1, 2, 0, 0x0b)
)

func export(index int) []byte { return cat(secExport, 1, "_start", 0, index) }

func TestCheck(t *testing.T) {
	custom := cat(secCustom, "name", 1, 2, 3)
	tests := map[string]struct {
		module []byte
		limits Limits
		reason string // empty: accepted
		text   string // in the message
	}{
		"smallest":             {module: build(types, functions, export(0), code)},
		"imports what it may":  {module: build(types, exit, functions, memory, export(1), code)},
		"custom sections":      {module: build(custom, types, custom, functions, export(0), code, custom)},
		"empty custom section": {module: append(build(types, functions, export(0), code), 0, 0)},

		"empty":             {module: nil, reason: ReasonNotWasm, text: "only 0 bytes"},
		"text":              {module: []byte("#!/bin/sh\necho hello\n"), reason: ReasonNotWasm, text: `begins with "#!/b"`},
		"ELF":               {module: []byte("\x7fELF\x02\x01\x01\x00\x00"), reason: ReasonNotWasm, text: "wasip1"},
		"component":         {module: []byte("\x00asm\x0d\x00\x01\x00"), reason: ReasonUnsupport, text: "component"},
		"version 9":         {module: []byte("\x00asm\x09\x00\x00\x00"), reason: ReasonUnsupport, text: "09000000"},
		"section too long":  {module: append([]byte("\x00asm\x01\x00\x00\x00"), secType, 100, 1, 2), reason: ReasonNotWasm, text: "100 bytes"},
		"size of 40 bits":   {module: append([]byte("\x00asm\x01\x00\x00\x00"), secType, 0xff, 0xff, 0xff, 0xff, 0x7f), reason: ReasonNotWasm, text: "32 bits"},
		"unknown section":   {module: build(cat(77)), reason: ReasonNotWasm, text: "no known kind"},
		"order":             {module: build(functions, types), reason: ReasonNotWasm, text: "too late or twice"},
		"twice":             {module: build(types, types), reason: ReasonNotWasm, text: "too late or twice"},
		"cut off":           {module: build(types, functions, export(0), code)[:20], reason: ReasonNotWasm, text: "cut off"},
		"many imports":      {module: build(types, cat(secImport, leb(1<<20))), reason: ReasonTooLarge, text: "imports"},
		"long name":         {module: build(types, cat(secImport, 1, leb(1<<20))), reason: ReasonTooLarge, text: "name"},
		"large":             {module: build(types, functions, export(0), code), limits: Limits{Size: 10}, reason: ReasonTooLarge, text: "may have 10"},
		"lying _start":      {module: build(types, functions, export(7), code), reason: ReasonNotWasm, text: "_start"},
		"type out of range": {module: build(types, cat(secFunction, 1, 9), export(0), code), reason: ReasonNotWasm, text: "type"},

		"other module":        {module: build(types, cat(secImport, 1, "env", "abort", 0, 1), functions, export(1), code), reason: ReasonImport, text: "env.abort"},
		"unknown function":    {module: build(types, cat(secImport, 1, Offered, "sock_open", 0, 1), functions, export(1), code), reason: ReasonImport, text: "wasi_snapshot_preview1.sock_open, which is not offered; these are: args_get,"},
		"imported memory":     {module: build(types, cat(secImport, 1, "env", "memory", 2, 0, 1), functions, export(0), code), reason: ReasonImport, text: "memory env.memory"},
		"memory from WASI":    {module: build(types, cat(secImport, 1, Offered, "proc_exit", 2, 0, 1), functions, export(0), code), reason: ReasonImport, text: "only functions"},
		"wrong type":          {module: build(types, cat(secImport, 1, Offered, "fd_close", 0, 1), functions, export(1), code), reason: ReasonImport, text: "fd_close is (i32) -> (), and must be (i32) -> (i32)"},
		"one type for two":    {module: build(types, cat(secImport, 2, Offered, "fd_close", 0, 1, Offered, "proc_exit", 0, 1), functions, export(2), code), reason: ReasonImport, text: "different"},
		"no exports":          {module: build(types, functions, code), reason: ReasonNoStart, text: "no function _start"},
		"reactor":             {module: build(types, functions, cat(secExport, 1, "_initialize", 0, 0), code), reason: ReasonNoStart, text: "reactor"},
		"_start is a global":  {module: build(types, functions, cat(secExport, 1, "_start", 3, 0), code), reason: ReasonNoStart},
		"_start is an import": {module: build(types, exit, functions, export(0), code), reason: ReasonNoStart, text: "import"},
		"_start takes a word": {module: build(types, cat(secFunction, 1, 1), export(0), code), reason: ReasonNoStart, text: "(i32) -> ()"},
		"two memories":        {module: build(types, functions, cat(secMemory, 2, 0, 1, 0, 1), export(0), code), reason: ReasonTooLarge, text: "linear memories"},
		"shared memory":       {module: build(types, functions, cat(secMemory, 1, 3, 1, 1), export(0), code), reason: ReasonUnsupport, text: "threads"},
		"memory64":            {module: build(types, functions, cat(secMemory, 1, 4, 1), export(0), code), reason: ReasonUnsupport, text: "memory64"},
		"memory at start":     {module: build(types, functions, cat(secMemory, 1, 0, leb(100)), export(0), code), limits: Limits{Memory: 1 << 20}, reason: ReasonMemory, text: "6553600"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := Check(bytes.NewReader(test.module), int64(len(test.module)), test.limits)
			if test.reason == "" {
				if err != nil {
					t.Fatalf("refused: %v", err)
				}
				return
			}
			var bad *Error
			if !errors.As(err, &bad) || bad.Reason != test.reason || !strings.Contains(bad.Message, test.text) {
				t.Errorf("%v, want reason %s and a message with %q", err, test.reason, test.text)
			}
		})
	}
}

func TestProgramsAreAccepted(t *testing.T) {
	for _, name := range enginetest.Names() {
		b := enginetest.Program(name)
		if _, err := Check(bytes.NewReader(b), int64(len(b)), Limits{}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// failing is storage that breaks.
type failing struct{}

func (failing) ReadAt([]byte, int64) (int, error) { return 0, os.ErrPermission }

func TestStorageErrorsAreNotTheModules(t *testing.T) {
	var bad *Error
	if _, err := Check(failing{}, 100, Limits{}); !errors.Is(err, os.ErrPermission) || errors.As(err, &bad) {
		t.Errorf("%v", err)
	}
}

func TestMemoryIsConstant(t *testing.T) {
	module := build(types, functions, export(0), code, cat(secCustom, "pad", make([]byte, 8<<20)))
	small := testing.AllocsPerRun(10, func() { check(t, build(types, functions, export(0), code)) })
	large := testing.AllocsPerRun(10, func() { check(t, module) })
	if large > small {
		t.Errorf("%v allocations for 8 MiB, %v for nothing", large, small)
	}
}

func check(t testing.TB, b []byte) {
	if _, err := Check(bytes.NewReader(b), int64(len(b)), Limits{}); err != nil {
		t.Fatal(err)
	}
}

func FuzzCheck(f *testing.F) {
	for _, name := range enginetest.Names() {
		f.Add(enginetest.Program(name))
	}
	f.Add(build(types, exit, functions, memory, export(1), code))
	f.Add(build(types, cat(secImport, 2, Offered, "fd_close", 0, 1, Offered, "proc_exit", 0, 1)))
	f.Fuzz(func(t *testing.T, b []byte) {
		info, err := Check(bytes.NewReader(b), int64(len(b)), Limits{Memory: 1 << 30})
		var bad *Error
		if err != nil && !errors.As(err, &bad) {
			t.Fatalf("an error of the storage from memory: %v", err)
		}
		if err == nil && (info.Functions == 0 || info.InitialMemory > 1<<30) {
			t.Fatalf("accepted with %+v", info)
		}
	})
}

func BenchmarkCheck(b *testing.B) {
	module := enginetest.Program("hello")
	for b.Loop() {
		check(b, module)
	}
}
