package pace_test

import (
	"testing"
	"time"

	"github.com/shallot-net/shallot/kit/pace"
)

var cfg = pace.Config{Min: 10 * time.Second, Max: 40 * time.Minute, PerPeer: time.Second}

func TestStatedClass(t *testing.T) {
	for in, want := range map[time.Duration]time.Duration{0: time.Second, time.Second: 2 * time.Second, 10 * time.Second: 16 * time.Second, 12 * time.Hour: 1 << 16 * time.Second} {
		got := pace.StatedClass(in)
		if got != want || got < pace.Stated(in) || pace.StatedClass(pace.Mean(got)) != got {
			t.Errorf("the class of %v is %v, want %v, and that of what follows from it %v", in, got, want, pace.StatedClass(pace.Mean(got)))
		}
	}
}

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

// Times that are drawn are about what was asked for, and never at a bound, which several would share.
func TestDrawnTimesShareNoBound(t *testing.T) {
	const n = 20_000
	sum, seen := time.Duration(0), map[time.Duration]bool{}
	for range n {
		d := pace.Drawn(time.Hour)
		if d < 0 || d >= 3*time.Hour {
			t.Fatalf("%v was drawn for an hour", d)
		}
		if seen[d] {
			t.Errorf("%v was drawn twice", d)
		}
		seen[d], sum = true, sum+d
	}
	if mean := sum / n; mean < 45*time.Minute || mean > time.Hour {
		t.Errorf("an hour is %v in the mean", mean)
	}
}
