package pace_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/shallot-net/shallot/kit/pace"
)

var begin = time.Unix(1_000_000, 0)

// crowd are n speakers who keep an interval; speak lets them do so for d, each at its own time, and returns when that is over.
type crowd struct {
	n        int
	interval time.Duration
}

func (c crowd) speak(s *pace.Size, from time.Time, d time.Duration) time.Time {
	step := c.interval / time.Duration(c.n)
	for i := 0; time.Duration(i)*step < d; i++ {
		s.Heard(from.Add(time.Duration(i)*step), fmt.Sprint("speaker", i%c.n), pace.Stated(c.interval))
	}
	return from.Add(d)
}

func near(t *testing.T, what string, got, want int) {
	t.Helper()
	if got < want*70/100 || got > want*130/100 { // 256 of many, or 128: an error of a third is four standard deviations
		t.Errorf("%s: the estimate is %d, want about %d", what, got, want)
	}
}

func TestSizeEstimatesSpeakersThatItDoesNotRemember(t *testing.T) {
	for _, n := range []int{20, 300, 5000} {
		var s pace.Size
		interval := cfg.Interval(n)
		now := crowd{n, interval}.speak(&s, begin, 2*interval)
		near(t, fmt.Sprint(n, " speakers"), s.Estimate(now, 0), n)
		if n <= 20 && s.Estimate(now, 0) != n {
			t.Errorf("few speakers are not counted exactly: %d", s.Estimate(now, 0))
		}
		if got := s.Estimate(now.Add(3*time.Hour), 7); got != 7 {
			t.Errorf("long after the last of %d speakers fell silent the estimate is %d, want the 7 known", n, got)
		}
	}
}

// Who says far more than its interval promises, as newcomers do, is still one.
func TestWhoSpeaksOftenCountsOnce(t *testing.T) {
	var s pace.Size
	now := begin
	for range 10 {
		now = crowd{1000, time.Second}.speak(&s, now, time.Second)
		for i := range 1000 {
			s.Heard(now, fmt.Sprint("speaker", i), time.Hour)
		}
	}
	near(t, "1000 who speak ten times", s.Estimate(now, 0), 1000)
}

func TestTheEstimateFollowsAShrinkingNetwork(t *testing.T) {
	var s pace.Size
	now := crowd{8000, 40 * time.Minute}.speak(&s, begin, 80*time.Minute)
	near(t, "8000 speakers", s.Estimate(now, 0), 8000)
	for range 16 {
		now = crowd{100, 100 * time.Second}.speak(&s, now, 30*time.Minute)
		s.Estimate(now, 0)
	}
	near(t, "100 of 8000 speakers", s.Estimate(now, 0), 100)
}

func TestWhoSaysThatItLeavesCountsNoMore(t *testing.T) {
	var s pace.Size
	now := crowd{10, time.Minute}.speak(&s, begin, time.Minute)
	s.Left(now, "speaker3")
	if got := s.Estimate(now, 0); got != 9 {
		t.Errorf("10 speakers of whom one left were estimated as %d", got)
	}
}

func TestOneLiarMovesNoHint(t *testing.T) {
	var s pace.Size
	s.Hint(begin, "liar", 1<<31)
	s.Hint(begin, "a", 40)
	s.Hint(begin, "b", 50)
	if got := s.Estimate(begin, 3); got != 50 {
		t.Errorf("estimate = %d, want the median hint 50", got)
	}
	if got := s.Estimate(begin.Add(time.Hour), 3); got != 3 {
		t.Errorf("an old hint still counts: %d", got)
	}
}

// Nodes that tell each other their counts come down together when the network shrinks.
func TestHintsDoNotGoRoundForEver(t *testing.T) {
	nodes := make([]pace.Size, 8)
	now := begin
	for i := range nodes {
		nodes[i].Hint(now, "past", 1000)
	}
	for range 60 {
		now = now.Add(time.Minute)
		for i := range nodes {
			for k := range 10 {
				nodes[i].Heard(now, fmt.Sprint("speaker", k), 15*time.Second)
			}
			nodes[(i+1)%len(nodes)].Hint(now, fmt.Sprint(i), nodes[i].Told(now, 11))
		}
	}
	if got := nodes[0].Estimate(now, 11); got != 11 {
		t.Errorf("an hour after 1000 were hinted at the estimate is %d, want the 11 that there are", got)
	}
}
