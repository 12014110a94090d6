package domain

import (
	"fmt"
	"testing"
	"time"
)

func TestTrailsAreBounded(t *testing.T) {
	var trails Trails[int]
	for i := range 3 * TrailPoints {
		trails.Add("a", i, t0.Add(time.Duration(i)*trailApart))
	}
	trails.Add("a", -1, t0.Add(time.Duration(3*TrailPoints-1)*trailApart+time.Second)) // too soon after the last
	var got []int
	trails.Each("a", func(_ time.Time, m int) { got = append(got, m) })
	if len(got) != TrailPoints || got[len(got)-1] != -1 || got[0] != 2*TrailPoints {
		t.Errorf("%d points from %d to %d", len(got), got[0], got[len(got)-1])
	}
	for i := range 2 * trailPeers {
		trails.Add(fmt.Sprint(i), i, t0.Add(time.Hour+time.Duration(i)))
	}
	if len(trails.by) != trailPeers || trails.by["a"] != nil || trails.by[fmt.Sprint(2*trailPeers-1)] == nil {
		t.Errorf("%d peers", len(trails.by))
	}
}
