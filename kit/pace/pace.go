// Package pace decides how often a node says the same kind of thing to everybody, so that what each node hears per minute
// stays the same whatever the size of the network. It follows RTCP's reports (RFC 3550 §6.2): the interval grows with the
// number of speakers, and is drawn anew each time so that speakers do not fall into step.
package pace

import (
	"math"
	"math/rand/v2"
	"slices"
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

// Mean turns a stated interval back into the mean one.
func Mean(stated time.Duration) time.Duration { return stated / 3 * 2 }

const (
	// window is how far back Size remembers. At one message per PerPeer (about a second) it holds some 600 of them,
	// which gives the number of speakers to about 4 %.
	window   = 10 * time.Minute
	maxHints = 8
)

// Size estimates how many speakers there are beside those that are known by name, without remembering them: one that
// speaks every T is heard window/T times in the window, so each time counts T/window. The zero value is ready; it is
// not safe for concurrent use.
type Size struct {
	began, at time.Time
	sum       float64 // seconds, decayed to at
	hints     []hint
}

type hint struct {
	at time.Time
	n  int
}

// Heard counts one message of an unknown speaker with its stated interval.
func (s *Size) Heard(now time.Time, stated time.Duration) {
	s.decay(now)
	s.sum += Mean(stated).Seconds()
}

// Hint takes another node's count, for the time before this one has heard enough itself. The median of a few counts, so
// that one liar moves nothing.
func (s *Size) Hint(now time.Time, n int) {
	s.hints = append(s.hints, hint{now, n})
	if len(s.hints) > maxHints {
		s.hints = s.hints[1:]
	}
}

// Estimate is the number of speakers, of which known are known by name.
func (s *Size) Estimate(now time.Time, known int) int {
	s.decay(now)
	// What was heard in less than a window says as much about the whole of it in proportion.
	share := 1 - math.Exp(-now.Sub(s.began).Seconds()/window.Seconds())
	unknown := 0.0
	if share > 0 {
		unknown = s.sum / window.Seconds() / max(share, 0.05)
	}
	return max(known+int(math.Round(unknown)), s.hinted(now))
}

func (s *Size) hinted(now time.Time) int {
	var live []int
	for _, h := range s.hints {
		if now.Sub(h.at) < window {
			live = append(live, h.n)
		}
	}
	return median(live)
}

func (s *Size) decay(now time.Time) {
	if s.began.IsZero() {
		s.began, s.at = now, now
	}
	if d := now.Sub(s.at); d > 0 {
		s.sum *= math.Exp(-d.Seconds() / window.Seconds())
		s.at = now
	}
}

// median of an even number is the lower of the middle two: of two counts the smaller is believed.
func median(v []int) int {
	if len(v) == 0 {
		return 0
	}
	slices.Sort(v)
	return v[(len(v)-1)/2]
}
