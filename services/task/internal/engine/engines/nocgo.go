//go:build !cgo

package engines

import (
	"github.com/shallot-net/shallot/services/task/internal/engine"
	"github.com/shallot-net/shallot/services/task/internal/engine/wazero"
)

// Default is the engine of this build.
const Default = wazero.Name

// Procs is how many threads should run Go code at a time: the program takes one and does not let go of it.
const Procs = 3

// New sets the engine of this build up. scratch is an empty directory of its own.
func New(scratch string) (engine.Engine, error) { return wazero.New(scratch) }

// FreeMemory gives back what the engine keeps for later, which is nothing beyond Go's own heap.
func FreeMemory() {}
