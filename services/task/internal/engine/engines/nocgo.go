//go:build !cgo

package engines

import (
	"github.com/shallot-net/shallot/services/task/internal/engine"
	"github.com/shallot-net/shallot/services/task/internal/engine/wazero"
)

// Default is the engine of this build.
const Default = wazero.Name

// New sets the engine of this build up. scratch is an empty directory of its own.
func New(scratch string) (engine.Engine, error) { return wazero.New(scratch) }
