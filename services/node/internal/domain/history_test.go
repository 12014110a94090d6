package domain

import (
	"testing"
	"time"
)

func TestHistoryIsBounded(t *testing.T) {
	var h History
	for i := range 3 * HistoryPoints {
		h.Add(Point{Time: t0.Add(time.Duration(i) * HistoryStep), Finished: 1})
	}
	if n := len(h.points); n < HistoryPoints || n > HistoryPoints+HistoryPoints/8 {
		t.Errorf("%d points are kept", n)
	}
	end := h.points[len(h.points)-1].Time
	h.Add(Point{Time: end})
	if _, got := h.Since(end.Add(-HistoryStep), 100); len(got) != 1 || got[0].Finished != 1 {
		t.Errorf("one that is not newer was taken: %v", got)
	}
	for _, span := range []time.Duration{time.Minute, time.Hour, 24 * time.Hour} {
		step, got := h.Since(end.Add(-span), 720)
		finished := uint32(0)
		for i, p := range got {
			finished += p.Finished
			if i > 0 && !p.Time.After(got[i-1].Time) {
				t.Fatalf("%v after %v", p.Time, got[i-1].Time)
			}
		}
		if len(got) > 720 || len(got) < 6 || finished != uint32(span/HistoryStep) || step%HistoryStep != 0 {
			t.Errorf("%v: %d points of %v with %d tasks", span, len(got), step, finished)
		}
	}
	if _, got := h.Since(end, 10); got != nil {
		t.Errorf("of the future: %v", got)
	}
}

func TestQuantile(t *testing.T) {
	var d []time.Duration
	if Quantile(d, .5) != 0 {
		t.Error("of nothing")
	}
	for i := 100; i > 0; i-- {
		d = append(d, time.Duration(i))
	}
	if p50, p99 := Quantile(d, .5), Quantile(d, .99); p50 != 51 || p99 != 100 {
		t.Errorf("%d, %d", p50, p99)
	}
}
