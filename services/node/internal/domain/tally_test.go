package domain

import (
	"fmt"
	"testing"
	"time"
)

func TestTally(t *testing.T) {
	y := NewTally()
	y.Seed(map[string]string{"old": "PENDING"})
	y.Changed("a", "SUBMITTED", false, 0, t0)
	y.Changed("a", "RUNNING", false, 0, t0)
	y.Changed("b", "COMPLETED", true, 5*time.Second, t0)
	y.Changed("b", "COMPLETED", true, 5*time.Second, t0) // collected
	if waiting, running, took := y.Take(t0); waiting != 1 || running != 1 || len(took) != 1 || took[0] != 5*time.Second {
		t.Errorf("%d, %d, %v", waiting, running, took)
	}
	y.Changed("a", "FAILED", true, time.Second, t0)
	y.Changed("b", "COMPLETED", true, 5*time.Second, t0)
	if waiting, running, took := y.Take(t0.Add(time.Hour)); waiting != 1 || running != 0 || len(took) != 1 || len(y.ended) != 0 {
		t.Errorf("%d, %d, %v", waiting, running, took)
	}
	for i := range 2 * maxOpen {
		y.Changed(fmt.Sprint(i), "PENDING", false, 0, t0)
		y.Changed(fmt.Sprint("e", i), "FAILED", true, 0, t0)
	}
	if len(y.open) != maxOpen || len(y.latencies) != maxLatencies || len(y.ended) != maxLatencies {
		t.Errorf("%d open, %d latencies, %d ended", len(y.open), len(y.latencies), len(y.ended))
	}
}
