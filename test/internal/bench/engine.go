package bench

import (
	"errors"
	"time"
)

// errNoEngine: the bare engine needs a C compiler, as the wasm executor's faster one does.
var errNoEngine = errors.New("not measured: no C compiler")

// bareEngine is wasmtime in this process, without stop checks, limits or anything around it.
type bareEngine interface {
	// compile translates a module and returns what runs it.
	compile(module []byte) (bareProgram, time.Duration, error)
}

// bareProgram is a compiled module that is in memory.
type bareProgram interface {
	// run is one whole run, from instantiation to exit; stdin and stdout are files.
	run(args []string, stdin, stdout string) (time.Duration, error)
	close()
}
