package repository

import (
	"context"

	"github.com/shallot-net/shallot/kit/fault"
)

// maxTransfers is how many files may be put, and how many fetched, at the same time: each holds some MiB.
const maxTransfers = 32

// gate lets so many in as it has room.
type gate chan struct{}

// enter waits for its turn until ctx ends. leave may be called once.
func (g gate) enter(ctx context.Context) (leave func(), err error) {
	select {
	case g <- struct{}{}:
		return func() { <-g }, nil
	default:
	}
	select {
	case g <- struct{}{}:
		return func() { <-g }, nil
	case <-ctx.Done():
		return nil, fault.ResourceExhausted("TOO_MANY_TRANSFERS", "%d transfers are running, and none ended in time: try again later", cap(g)).Because(context.Cause(ctx))
	}
}
