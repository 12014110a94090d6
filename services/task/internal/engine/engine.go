// Package engine is the port to a WebAssembly engine: compile a module or load what was compiled before, and run it
// as a WASI preview 1 command. Nothing in here can stop a program that runs: stop checks in the compiled code slow
// tight loops several times, so whoever needs to stop a program ends the process that it runs in.
package engine

import (
	"errors"
	"io"
)

// Engine compiles programs. It is not for concurrent use: one process runs one program at a time.
type Engine interface {
	// Name is "wasmtime" or "wazero".
	Name() string
	// Version changes whenever an artefact of an older build may not be loaded any more.
	Version() string
	// Compile translates a module. The time and memory that it takes are the module's to decide: bound both from
	// outside. An error is a *CompileError.
	Compile(module []byte) (Program, error)
	// Load makes a program of the artefact in the file at path, which must be what Program.Artefact gave for the same
	// module, byte for byte: an artefact is machine code, and a changed one does what it likes. The file must not
	// change while the program is open. module gives the module again, for engines which need it.
	Load(path string, module func() ([]byte, error)) (Program, error)
	Close() error
}

// Program is a compiled module.
type Program interface {
	// Artefact writes what Load takes.
	Artefact(w io.Writer) error
	// Files tells whether the program could see In or Out of its Config, by what it imports. If not, they can be left
	// out, which makes a short run shorter.
	Files() bool
	// Run instantiates the module in a fresh sandbox, calls _start and blocks until the program has ended. Nothing of
	// one run is there in the next. An error means that the run could not be set up.
	Run(cfg Config) (Result, error)
	Close() error
}

// Config is all that a program can see of its host.
type Config struct {
	Args []string // with argv[0]
	Env  []EnvVar
	// Stdin is the bytes, or the file at StdinPath where that is set.
	Stdin     []byte
	StdinPath string
	// Stdout and Stderr are called with pieces of any size, each one call at a time, and may block, which blocks the
	// program once it has written some more. After an error they are called no more.
	Stdout, Stderr io.Writer
	// In is a directory that the program sees as /in and cannot change; Out one that it sees as /out and can.
	// Empty means that there is none.
	In, Out string
	// Memory bounds the program's linear memory, in bytes. Growth beyond is refused. Not every engine can bound tables,
	// whose elements take 8 bytes of the process each: bound the process too.
	Memory int64
}

// EnvVar is one environment variable.
type EnvVar struct{ Name, Value string }

// Result is how a run ended.
type Result struct {
	ExitCode int32
	// Trap is empty when the program ended by itself, otherwise what went wrong, on one line.
	Trap string
	// OutOfMemory: the program failed after its memory could not grow.
	OutOfMemory bool
	// PeakMemory is the size of the program's linear memory at its end, in bytes; it never shrinks.
	PeakMemory int64
}

// CompileError is what a compiler says of a module. The text is for the module's author.
type CompileError struct{ Err error }

func (e *CompileError) Error() string { return "the module does not compile: " + e.Err.Error() }

// Unwrap gives the engine's own error.
func (e *CompileError) Unwrap() error { return e.Err }

// ErrArtefact says that a file is no artefact of this engine and version.
var ErrArtefact = errors.New("not an artefact of this engine")

// Bounds that every engine keeps to.
const (
	PageSize = 64 << 10
	// MaxMemory is what a 32-bit linear memory can have.
	MaxMemory = 4 << 30
	// MaxTableElements bounds tables: an element costs 8 bytes of the host.
	MaxTableElements = 1 << 20
	// WasmStack is what a program's calls may take, in bytes.
	WasmStack = 1 << 20
)
