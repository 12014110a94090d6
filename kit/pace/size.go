package pace

import (
	"hash/maphash"
	"math/bits"
	"slices"
	"time"
)

const (
	sample   = 256              // speakers that are remembered; more are estimated to about 8 %
	scarce   = sample / 4       // fewer than these say too little: then the sample is taken from more of them
	minLife  = 10 * time.Minute // how long a hint counts at least, and how often the sample is taken from more
	lookOver = 10 * time.Second // between two looks for those that have fallen silent, at least
	maxHints = 8
	// Whoever lies about the network's size, or about how long it will be silent, makes everybody who believes it speak too seldom. So what
	// others say counts for no more than a few times what a node has heard itself, and nobody's silence for longer than a few times what
	// most of them state.
	trusted    = 16 // times what was heard; a newcomer to a network of any size gets there in a few steps
	trustedFew = 64 // before anything was heard
	unheardOf  = 3  // times the median interval that is stated
	crowdFrom  = 5  // speakers whose stated intervals have a median that means something
)

// Size estimates how many speakers there are without remembering them all: of many it keeps those alone whose hashes begin with
// so many zero bits, and each that is kept stands for 2 to the power of so many. It counts speakers and not what they say: after a count
// that was wrong, or when many come at once, they say more or less than their intervals promise, and a rate would mislead everybody
// together. The zero value is ready; it is not safe for concurrent use.
type Size struct {
	// PerPeer is that of the speakers' Config. With it a newcomer learns from the intervals that they state how many they think there are.
	PerPeer time.Duration

	seed    maphash.Seed
	heard   map[uint64]speaker // by hash
	kept    int                // zero bits of the hashes that are kept
	counted int                // zero bits of those that are counted: more for a while after more began to be kept
	fuller  time.Time          // when all that are kept have been heard
	looked  time.Time
	life    time.Duration // the longest interval stated, as far as it is believed
	typical time.Duration // the median of those stated; 0 while there are few
	live    int           // speakers that were counted at the last look
	began   time.Time
	hints   []hint
}

type speaker struct {
	until  time.Time
	stated time.Duration
}

type hint struct {
	at  time.Time
	who string
	n   int
}

func (s *Size) begin(now time.Time) {
	if s.heard == nil {
		s.seed, s.heard, s.began = maphash.MakeSeed(), map[uint64]speaker{}, now // nobody else knows whom it will keep
	}
}

// Heard counts a speaker, which is to be heard again within its stated interval.
func (s *Size) Heard(now time.Time, who string, stated time.Duration) {
	s.begin(now)
	h := maphash.String(s.seed, who)
	if bits.LeadingZeros64(h) < s.kept {
		return
	}
	if s.typical > 0 {
		stated = min(stated, unheardOf*s.typical)
	}
	s.life = max(s.life, stated)
	if _, known := s.heard[h]; !known && bits.LeadingZeros64(h) >= s.counted {
		s.live++
	}
	s.heard[h] = speaker{now.Add(stated + stated/2), stated} // one may come late
	if len(s.heard) > sample || s.typical == 0 && len(s.heard) == crowdFrom {
		s.look(now)
	}
	for len(s.heard) > sample {
		s.kept++
		s.counted = max(s.counted, s.kept)
		s.look(now)
	}
}

// Left says that a speaker has said that it stops.
func (s *Size) Left(now time.Time, who string) {
	s.begin(now)
	delete(s.heard, maphash.String(s.seed, who))
	s.look(now)
}

// look forgets who is silent or no longer kept, and counts the others.
func (s *Size) look(now time.Time) {
	s.looked, s.life, s.live, s.typical = now, 0, 0, 0
	stated := make([]time.Duration, 0, len(s.heard))
	for h, p := range s.heard {
		if now.After(p.until) || bits.LeadingZeros64(h) < s.kept {
			delete(s.heard, h)
			continue
		}
		s.life = max(s.life, p.stated)
		stated = append(stated, p.stated)
		if bits.LeadingZeros64(h) >= s.counted {
			s.live++
		}
	}
	if len(stated) >= crowdFrom {
		s.typical = median(stated)
	}
	switch {
	case s.counted > s.kept:
		if now.After(s.fuller) {
			s.counted = s.kept
			s.look(now)
		}
	case s.kept > 0 && s.live < scarce:
		s.kept--
		s.fuller = now.Add(max(s.life, minLife))
	}
}

// Hint takes another node's count, for the time before this one has heard enough itself: the last count of each of a few, and of
// these the median, so that one liar moves nothing however often it is asked.
func (s *Size) Hint(now time.Time, who string, n int) {
	s.hints = slices.DeleteFunc(s.hints, func(h hint) bool { return h.who == who })
	s.hints = append(s.hints, hint{now, who, n})
	if len(s.hints) > maxHints {
		s.hints = s.hints[1:]
	}
}

// Estimate is the number of speakers, of which known are known by name.
func (s *Size) Estimate(now time.Time, known int) int {
	own := s.count(now, known)
	if s.complete(now, own) {
		return own
	}
	return max(own, min(max(s.hinted(now), s.crowd()), trustedFew+trusted*own))
}

// Told is what others may be told as a Hint: what this node counted itself, once everybody had time to speak. Were it to hand on
// what it was told, the highest count that there ever was would go round between nodes for ever, long after the network has shrunk.
func (s *Size) Told(now time.Time, known int) int { return s.Estimate(now, known) }

// complete tells whether this node has listened for long enough to have heard everybody: the interval that most of them state, and the one that as
// many as it has counted would keep. Were there more of them, it would have counted more by then.
func (s *Size) complete(now time.Time, own int) bool {
	return now.Sub(s.began) >= max(s.typical, Stated(time.Duration(min(own, 1<<20))*s.PerPeer), minLife)
}

// crowd is how many speakers there are in the mind of most of them, by the intervals that they keep; 0: not known.
func (s *Size) crowd() int {
	if s.PerPeer <= 0 {
		return 0
	}
	if n := int(min(Mean(s.typical)/s.PerPeer, 1<<30)); n > trustedFew { // fewer are heard themselves soon enough
		return n
	}
	return 0
}

func (s *Size) count(now time.Time, known int) int {
	s.begin(now)
	if now.Sub(s.looked) >= max(lookOver, s.typical/64) {
		s.look(now)
	}
	return max(known, s.live<<s.counted)
}

// hinted: a hint counts as long as an interval, in which another is to be expected.
func (s *Size) hinted(now time.Time) int {
	var live []int
	for _, h := range s.hints {
		if now.Sub(h.at) < max(s.typical, minLife) {
			live = append(live, h.n)
		}
	}
	return median(live)
}

// median of an even number is the lower of the middle two: of two counts the smaller is believed.
func median[T int | time.Duration](v []T) T {
	if len(v) == 0 {
		return 0
	}
	slices.Sort(v)
	return v[(len(v)-1)/2]
}
