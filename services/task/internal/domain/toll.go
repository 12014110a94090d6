package domain

import (
	"math"
	"time"
)

// TollRules say what a provider asks of strangers. The zero value of each but Min takes its default.
type TollRules struct {
	Min  uint32        // effort that is asked for whatever the load is; 0: nothing while there is little to do
	Max  uint32        // effort that is asked for at most; 16,384
	Rate float64       // strangers' submissions taken in a second, above which the price rises; 100
	Calm time.Duration // how long there has to be little to do before the price falls by one step; 10 s
}

// How a price moves.
const (
	// FirstEffort is the first price: some milliseconds, which nobody notices, and which thousands of submissions a second cannot pay.
	FirstEffort = 16
	// DefaultMaxEffort is some seconds of one core.
	DefaultMaxEffort = 1 << 14
	// DefaultTollRate is many times what the consumers of one provider bring where each of them has to reach it over Tor first.
	DefaultTollRate = 100

	tollTick    = time.Second
	tollGrace   = 15 * time.Second // how long what was asked for before still pays
	tollLenient = 4                // a payment of so much less never pays
	tollSmooth  = 2 * time.Second  // the span that rates are of
)

// WithDefaults fills in what is not set.
func (r TollRules) WithDefaults() TollRules {
	if r.Max == 0 {
		r.Max = DefaultMaxEffort
	}
	if r.Rate <= 0 {
		r.Rate = DefaultTollRate
	}
	if r.Calm <= 0 {
		r.Calm = 10 * time.Second
	}
	r.Max = max(r.Max, r.Min)
	return r
}

// Toll is the price of a submission. It doubles in each second in which strangers bring more than is welcome: too many submissions, or any while the queue is a
// quarter full. It halves when there was little to do for some time. Who pays too little never makes it rise, or a flood that costs nothing would make others pay;
// but while such a flood goes on the price does not fall to nothing. It is not safe for concurrent use.
type Toll struct {
	rules  TollRules
	effort uint32
	last   time.Time // of the last tick
	calm   time.Time // since when there is little to do; zero: there is not
	taken  float64   // since the last tick
	turned float64
	rate   float64 // of those turned away, a second
	steps  []tollStep
}

// tollStep is a price that held until a moment.
type tollStep struct {
	effort uint32
	until  time.Time
}

// NewToll makes one that asks for the least.
func NewToll(r TollRules, now time.Time) *Toll {
	r = r.WithDefaults()
	return &Toll{rules: r, effort: r.Min, last: now}
}

// Effort is what is asked for now.
func (t *Toll) Effort() uint32 { return t.effort }

// Enough is the least that pays now, and not above Effort. Whoever has just solved what was asked for a moment ago is let in, where that is not much less.
func (t *Toll) Enough(now time.Time) uint32 {
	least := t.effort
	for _, s := range t.steps {
		if s.effort > 0 && now.Sub(s.until) <= tollGrace {
			least = min(least, max(s.effort, t.effort/tollLenient))
		}
	}
	return least
}

// Took counts a stranger's submission that was let in.
func (t *Toll) Took() { t.taken++ }

// Turned counts one that paid too little.
func (t *Toll) Turned() { t.turned++ }

// Tick looks at what has happened since the last time, not more often than once a second, and tells whether the price has changed.
func (t *Toll) Tick(now time.Time, q Queue) bool {
	span := now.Sub(t.last)
	if span < tollTick {
		return false
	}
	taken := t.taken / span.Seconds()
	share := 1 - math.Exp(-float64(span)/float64(tollSmooth))
	t.rate += share * (t.turned/span.Seconds() - t.rate)
	full := float64(max(q.Pending, 0)) / float64(max(q.Capacity, 1))
	t.last, t.taken, t.turned = now, 0, 0
	was := t.effort
	switch {
	case taken > t.rules.Rate || full > 1.0/4 && taken > 0:
		t.calm = time.Time{}
		t.set(now, min(max(2*t.effort, FirstEffort), t.rules.Max))
	case taken > t.rules.Rate/2 || full > 1.0/8:
		t.calm = time.Time{}
	case t.calm.IsZero():
		t.calm = now
	case now.Sub(t.calm) >= t.rules.Calm:
		t.calm = now
		t.set(now, t.lower())
	}
	return t.effort != was
}

// lower is the next price down.
func (t *Toll) lower() uint32 {
	if next := t.effort / 2; next >= FirstEffort {
		return max(next, t.rules.Min)
	}
	if t.rate > t.rules.Rate/2 { // who pays nothing would be let in at once
		return t.effort
	}
	return t.rules.Min
}

func (t *Toll) set(now time.Time, effort uint32) {
	if effort == t.effort {
		return
	}
	kept := t.steps[:0]
	for _, s := range t.steps {
		if now.Sub(s.until) <= tollGrace {
			kept = append(kept, s)
		}
	}
	t.steps = append(kept, tollStep{t.effort, now})
	t.effort = effort
}
