package pace_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/shallot-net/shallot/kit/pace"
)

var cfg = pace.Config{Min: 10 * time.Second, Max: 40 * time.Minute, PerPeer: time.Second}

func TestIntervalGrowsWithTheNetworkBetweenItsBounds(t *testing.T) {
	for _, c := range []struct {
		n    int
		want time.Duration
	}{{0, 10 * time.Second}, {10, 10 * time.Second}, {11, 11 * time.Second}, {1000, 1000 * time.Second}, {1 << 40, 40 * time.Minute}} {
		if got := cfg.Interval(c.n); got != c.want {
			t.Errorf("Interval(%d) = %v, want %v", c.n, got, c.want)
		}
	}
}

func TestJitterStaysWithinWhatIsStated(t *testing.T) {
	lo, hi := time.Hour, time.Duration(0)
	for range 10_000 {
		d := pace.Jitter(10 * time.Second)
		lo, hi = min(lo, d), max(hi, d)
	}
	if lo < 5*time.Second || lo > 6*time.Second || hi < 14*time.Second || hi > pace.Stated(10*time.Second) {
		t.Errorf("Jitter drew %v to %v, want the whole of 5 s to 15 s", lo, hi)
	}
	if got := pace.Mean(pace.Stated(10 * time.Second)); got != 10*time.Second {
		t.Errorf("Mean(Stated(10 s)) = %v", got)
	}
}

func TestSizeEstimatesSpeakersThatItDoesNotRemember(t *testing.T) {
	for _, n := range []int{20, 300, 5000} {
		rng := rand.New(rand.NewPCG(1, uint64(n)))
		interval := cfg.Interval(n)
		stated := pace.Stated(interval)
		var s pace.Size
		begin := time.Unix(1_000_000, 0)
		s.Estimate(begin, 0)
		// All speakers together are a Poisson stream with n messages per interval.
		now := begin
		for now.Sub(begin) < 30*time.Minute {
			now = now.Add(time.Duration(rng.ExpFloat64() * float64(interval) / float64(n)))
			s.Heard(now, stated)
		}
		if got := s.Estimate(now, 0); got < n*8/10 || got > n*12/10 {
			t.Errorf("%d speakers were estimated as %d", n, got)
		}
		if got := s.Estimate(now.Add(3*time.Hour), 7); got != 7 {
			t.Errorf("long after the last of %d speakers fell silent the estimate is %d, want the 7 known", n, got)
		}
	}
}

func TestOneLiarMovesNoHint(t *testing.T) {
	var s pace.Size
	now := time.Unix(1_000_000, 0)
	s.Hint(now, 1<<31)
	s.Hint(now, 40)
	s.Hint(now, 50)
	if got := s.Estimate(now, 3); got != 50 {
		t.Errorf("estimate = %d, want the median hint 50", got)
	}
	if got := s.Estimate(now.Add(time.Hour), 3); got != 3 {
		t.Errorf("an old hint still counts: %d", got)
	}
}
