package domain

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// span is some seconds of a provider's life.
type span struct {
	seconds       int
	taken, turned int // in each
	pending       int // of 100
}

// live plays spans, and returns the price after each second.
func live(t *Toll, now *time.Time, spans ...span) (prices []uint32) {
	for _, s := range spans {
		for range s.seconds {
			for range s.taken {
				t.Took()
			}
			for range s.turned {
				t.Turned()
			}
			*now = now.Add(time.Second)
			t.Tick(*now, Queue{Pending: s.pending, Capacity: 100})
			prices = append(prices, t.Effort())
		}
	}
	return prices
}

func TestThePriceFollowsTheLoad(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		rules TollRules
		spans []span
		want  uint32
	}{
		"nothing to do":                          {TollRules{}, []span{{seconds: 60}}, 0},
		"as much as is welcome":                  {TollRules{}, []span{{seconds: 60, taken: 100, pending: 20}}, 0},
		"a second of too much":                   {TollRules{}, []span{{seconds: 1, taken: 101}}, FirstEffort},
		"four seconds of too much":               {TollRules{}, []span{{seconds: 4, taken: 500}}, 8 * FirstEffort},
		"too much without end":                   {TollRules{}, []span{{seconds: 60, taken: 500}}, DefaultMaxEffort},
		"a bound of its own":                     {TollRules{Max: 64}, []span{{seconds: 60, taken: 500}}, 64},
		"few, while the queue is full":           {TollRules{}, []span{{seconds: 3, taken: 1, pending: 90}}, 4 * FirstEffort},
		"nobody, while the queue is full":        {TollRules{}, []span{{seconds: 3, pending: 90}}, 0},
		"calm again, not long":                   {TollRules{}, []span{{seconds: 4, taken: 500}, {seconds: 10}}, 8 * FirstEffort},
		"calm again, one step":                   {TollRules{}, []span{{seconds: 4, taken: 500}, {seconds: 11}}, 4 * FirstEffort},
		"calm again, for good":                   {TollRules{}, []span{{seconds: 4, taken: 500}, {seconds: 60}}, 0},
		"never quite calm":                       {TollRules{}, []span{{seconds: 4, taken: 500}, {seconds: 60, taken: 60}}, 8 * FirstEffort},
		"a standing price":                       {TollRules{Min: 4}, []span{{seconds: 4, taken: 500}, {seconds: 90}}, 4},
		"a standing price above the first":       {TollRules{Min: 64}, []span{{seconds: 1, taken: 500}, {seconds: 90}}, 64},
		"a flood that pays nothing, from before": {TollRules{}, []span{{seconds: 1, taken: 5000}, {seconds: 600, turned: 5000}}, FirstEffort},
		"the flood has ended":                    {TollRules{}, []span{{seconds: 1, taken: 5000}, {seconds: 600, turned: 5000}, {seconds: 30}}, 0},
	} {
		now := time.Unix(1_000_000, 0)
		toll := NewToll(c.rules, now)
		if p := live(toll, &now, c.spans...); p[len(p)-1] != c.want {
			t.Errorf("%s: the price is %d, want %d: %v", name, p[len(p)-1], c.want, p)
		}
	}
}

// TestWhatPaysStill: whoever has just solved what was asked for is let in when the price has risen meanwhile, not by much and not for long.
func TestWhatPaysStill(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_000_000, 0)
	toll := NewToll(TollRules{}, now)
	if toll.Enough(now) != 0 {
		t.Error("something is asked for nothing")
	}
	live(toll, &now, span{seconds: 1, taken: 500})
	if got := toll.Enough(now); got != FirstEffort { // what was free before costs now
		t.Errorf("%d is enough", got)
	}
	live(toll, &now, span{seconds: 2, taken: 500})
	if got := toll.Enough(now); toll.Effort() != 4*FirstEffort || got != FirstEffort {
		t.Errorf("of %d %d is enough", toll.Effort(), got)
	}
	live(toll, &now, span{seconds: 3, taken: 500})
	if got := toll.Enough(now); toll.Effort() != 32*FirstEffort || got != 8*FirstEffort {
		t.Errorf("of %d %d is enough", toll.Effort(), got)
	}
	if got := toll.Enough(now.Add(time.Minute)); got != 32*FirstEffort {
		t.Errorf("a minute later %d is enough", got)
	}
}

// TestWhateverHappensThePriceIsOne: it is a power of two within its bounds, moves by one step at a time, is never paid by more than itself, and those who pay too
// little never make it rise.
func TestWhateverHappensThePriceIsOne(t *testing.T) {
	t.Parallel()
	efforts := rapid.SampledFrom([]uint32{0, 1, 4, 16, 64, 1 << 14})
	rapid.Check(t, func(t *rapid.T) {
		rules := TollRules{Min: efforts.Draw(t, "min"), Max: max(efforts.Draw(t, "max"), 1), Rate: rapid.Float64Range(0.1, 200).Draw(t, "rate")}
		now := time.Unix(1_000_000, 0)
		toll := NewToll(rules, now)
		rules = rules.WithDefaults()
		for range 200 {
			taken, was := rapid.IntRange(0, 400).Draw(t, "taken"), toll.Effort()
			for range taken {
				toll.Took()
			}
			for range rapid.IntRange(0, 400).Draw(t, "turned") {
				toll.Turned()
			}
			now = now.Add(time.Duration(rapid.IntRange(1, 3000).Draw(t, "ms")) * time.Millisecond)
			changed := toll.Tick(now, Queue{Pending: rapid.IntRange(-1, 101).Draw(t, "pending"), Capacity: rapid.SampledFrom([]int{0, 100}).Draw(t, "capacity")})
			is := toll.Effort()
			switch {
			case !ValidEffort(is) || is < rules.Min || is > rules.Max || toll.Enough(now) > is:
				t.Fatalf("the price is %d, and %d is enough", is, toll.Enough(now))
			case changed != (is != was):
				t.Fatalf("from %d to %d, and it says that it changed: %v", was, is, changed)
			case is > was && is > max(2*was, FirstEffort):
				t.Fatalf("it jumps from %d to %d", was, is)
			}
		}
		before := toll.Effort()
		for range 30 {
			toll.Turned()
			now = now.Add(time.Second)
			if toll.Tick(now, Queue{}); toll.Effort() > before {
				t.Fatalf("who pays too little makes it rise from %d to %d", before, toll.Effort())
			}
		}
	})
}
