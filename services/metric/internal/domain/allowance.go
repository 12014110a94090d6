package domain

import "time"

// What one peer may tell unasked: far more than one that keeps its interval ever does, and too little to cost anybody much.
const (
	allowedBurst       = 8
	allowedPerSecond   = 1
	allowedPerInterval = 12 // for one who states a short interval
)

// allowance is a bucket of tokens; its zero value is full.
type allowance struct {
	used float64
	at   time.Time
}

// take uses one token, if there is one. stated is the peer's interval.
func (a *allowance) take(now time.Time, stated time.Duration) bool {
	if d := now.Sub(a.at); d > 0 {
		a.used = max(a.used-d.Seconds()*max(allowedPerSecond, allowedPerInterval/stated.Seconds()), 0)
		a.at = now
	}
	if a.used+1 > allowedBurst {
		return false
	}
	a.used++
	return true
}
