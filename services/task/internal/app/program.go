package app

import (
	"crypto/sha256"

	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// PartModule is the part that holds a task's program; names of input files begin with PrefixInput.
const (
	PartModule  = "module"
	PrefixInput = "input:"
)

// ProgramHash is what a receipt says of the program: the module's hash, or that of the type's name where there is none.
func ProgramHash(taskType string, parts []Part) domain.Hash {
	for i := range parts {
		if parts[i].Name == PartModule {
			return parts[i].SHA256
		}
	}
	return sha256.Sum256([]byte(taskType))
}
