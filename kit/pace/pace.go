// Package pace decides how often a node says the same kind of thing to everybody, so that what each node hears per minute
// stays the same whatever the size of the network. It follows RTCP's reports (RFC 3550 §6.2): the interval grows with the
// number of speakers, and is drawn anew each time so that speakers do not fall into step.
package pace

import (
	"math/rand/v2"
	"time"
)

// Config says how often one node speaks. With n speakers everybody hears one message per PerPeer on average, from
// n = Min/PerPeer up to n = Max/PerPeer.
type Config struct {
	Min     time.Duration // in a small network
	Max     time.Duration // however large it is
	PerPeer time.Duration // for every speaker
}

// Interval is the mean time between two messages of one of n speakers.
func (c Config) Interval(n int) time.Duration {
	t := float64(n) * float64(c.PerPeer)
	return time.Duration(min(max(t, float64(c.Min)), float64(c.Max)))
}

// Jitter draws a time between half and one and a half of interval, as RFC 3550 §6.3.1 does.
func Jitter(interval time.Duration) time.Duration {
	return time.Duration((0.5 + rand.Float64()) * float64(interval))
}

// Stated is what a speaker says of its interval: the longest that Jitter draws, so that the next message is never later.
func Stated(interval time.Duration) time.Duration { return interval + interval/2 }

// StatedClass is Stated, rounded up to a power of two of seconds: how many speakers a node believes in is its own, and would tell it from others. Whoever
// takes it for Stated makes the network twice as large as it is at most, and what follows from that states the same class again.
func StatedClass(interval time.Duration) time.Duration {
	class := time.Second
	for class < Stated(interval) {
		class *= 2
	}
	return class
}

// Mean turns a stated interval back into the mean one.
func Mean(stated time.Duration) time.Duration { return stated / 3 * 2 }

// Drawn is a time about d: exponential, so that when something happens says nothing of when what led to it did, and less than three times d. A bound to which longer times were
// cut would be a time that several share.
func Drawn(d time.Duration) time.Duration {
	for {
		if t := time.Duration(rand.ExpFloat64() * float64(d)); t < 3*d {
			return t
		}
	}
}
