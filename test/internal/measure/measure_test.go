package measure

import (
	"errors"
	"os"
	"os/exec"
	"sync/atomic"
	"testing"
	"time"
)

func TestInFlight(t *testing.T) {
	var n, now, most atomic.Int64
	d, err := InFlight(100, 8, func() error {
		most.Store(max(most.Load(), now.Add(1)))
		defer now.Add(-1)
		n.Add(1)
		return nil
	})
	if err != nil || len(d) != 100 || n.Load() != 100 || most.Load() > 8 {
		t.Errorf("%d durations, %d done, %d at a time, %v", len(d), n.Load(), most.Load(), err)
	}
	boom := errors.New("boom")
	if _, err := InFlight(1000, 4, func() error {
		if n.Add(1) == 110 {
			return boom
		}
		return nil
	}); !errors.Is(err, boom) || n.Load() > 120 {
		t.Errorf("error %v after %d", err, n.Load())
	}
}

func TestQuantile(t *testing.T) {
	d := []time.Duration{3, 1, 2, 5, 4}
	if Quantile(d, 0.5) != 3 || Quantile(d, 0.99) != 5 || Quantile(nil, 0.5) != 0 {
		t.Error(d)
	}
	if _, err := Latencies(3, func() error { return errors.New("no") }); err == nil {
		t.Error("the error is lost")
	}
}

// The time of a child that has ended is its parent's.
func TestCPUOfChildren(t *testing.T) {
	before := CPU(os.Getpid())
	if err := exec.Command("sh", "-c", "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done").Run(); err != nil {
		t.Skip(err)
	}
	if took := CPU(os.Getpid()) - before; took < 20*time.Millisecond {
		t.Errorf("a busy child took %v", took)
	}
	if CPU(1<<30) != 0 || PSS(1<<30) != 0 || PSS(os.Getpid()) <= 0 {
		t.Error("a process that is not there has taken something, or this one nothing")
	}
}
