package app

import "github.com/shallot-net/shallot/services/task/internal/domain"

// PuzzleWork is one evaluation of a puzzle: what costs the same to solve with and to check. It takes less than a millisecond, and is safe for concurrent use.
type PuzzleWork func(text []byte, nonce domain.Nonce, found [16]byte) uint64
