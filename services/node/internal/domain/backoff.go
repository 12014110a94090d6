package domain

import (
	"math/rand/v2"
	"time"
)

// Backoff is how long to wait after a number of failures in a row: First, doubled with each, never more than Max, and
// spread by a quarter to both sides, so that many that failed together do not come back together.
type Backoff struct {
	First, Max time.Duration
}

// After is the wait after the nth failure, counted from 1. draw gives numbers from [0, 1).
func (b Backoff) After(n int, draw func() float64) time.Duration {
	d := b.First
	for i := 1; i < n && d < b.Max; i++ {
		d *= 2
	}
	return Jitter(min(d, b.Max), draw)
}

// Jitter spreads d by a quarter to both sides.
func Jitter(d time.Duration, draw func() float64) time.Duration {
	if draw == nil {
		draw = rand.Float64
	}
	return time.Duration(float64(d) * (0.75 + draw()/2))
}
