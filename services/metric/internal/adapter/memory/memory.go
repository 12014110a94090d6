// Package memory is a version store that lives as long as its process: for tests and simulations.
package memory

import (
	"context"
	"errors"
	"sync"

	"github.com/shallot-net/shallot/services/metric/internal/app"
)

// Versions is an app.Versions. The zero value is ready.
type Versions struct {
	mu   sync.Mutex
	next uint64
	fail error
	gone bool
}

var _ app.Versions = (*Versions)(nil)

// FailNext makes the next call fail.
func (v *Versions) FailNext(err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.fail = err
}

// Break makes every call fail, until it is mended.
func (v *Versions) Break(broken bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.gone = broken
}

// Reserve takes versions.
func (v *Versions) Reserve(_ context.Context, n, atLeast uint64) (uint64, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.gone {
		return 0, errors.New("the disk is gone")
	}
	if err := v.fail; err != nil {
		v.fail = nil
		return 0, err
	}
	first := max(v.next, atLeast, 1)
	v.next = first + n
	return first, nil
}
