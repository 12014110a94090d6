//go:build cgo

package engines

import (
	"github.com/shallot-net/shallot/services/task/internal/engine"
	"github.com/shallot-net/shallot/services/task/internal/engine/wasmtime"
)

// Default is the engine of this build.
const Default = wasmtime.Name

// Procs is how many threads should run Go code at a time. The program and the compiler have their own; more than one for
// what is left would only wake each other.
const Procs = 1

// New sets the engine of this build up. scratch is an empty directory of its own.
func New(scratch string) (engine.Engine, error) { return wasmtime.New(scratch) }

// FreeMemory gives back what the engine keeps for later. It may be called between runs.
func FreeMemory() { wasmtime.FreeMemory() }
