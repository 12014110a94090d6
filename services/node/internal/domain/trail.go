package domain

import "time"

// Bounds of what is remembered of peers' metrics.
const (
	trailPeers  = 256
	TrailPoints = 240
	trailApart  = 2 * time.Second // what comes sooner takes the place of the last
)

// Trails are the metrics of peers as they have come, the newest of each peer, in memory.
type Trails[M any] struct {
	by map[string]*trail[M]
}

type trail[M any] struct {
	at     []time.Time
	values []M
}

// Add notes a peer's metric. When there are too many peers, the one of whom nothing was heard for longest is forgotten.
func (t *Trails[M]) Add(peer string, m M, now time.Time) {
	if t.by == nil {
		t.by = map[string]*trail[M]{}
	}
	x := t.by[peer]
	if x == nil {
		if len(t.by) >= trailPeers {
			t.forget()
		}
		x = &trail[M]{}
		t.by[peer] = x
	}
	switch n := len(x.at); {
	case n > 0 && now.Sub(x.at[n-1]) < trailApart:
		x.values[n-1] = m
		return
	case n == TrailPoints:
		copy(x.at, x.at[1:])
		copy(x.values, x.values[1:])
		x.at, x.values = x.at[:n-1], x.values[:n-1]
	}
	x.at, x.values = append(x.at, now), append(x.values, m)
}

func (t *Trails[M]) forget() {
	oldest, at := "", time.Time{}
	for id, x := range t.by {
		if last := x.at[len(x.at)-1]; oldest == "" || last.Before(at) {
			oldest, at = id, last
		}
	}
	delete(t.by, oldest)
}

// Each calls f with what is known of a peer, the oldest first.
func (t *Trails[M]) Each(peer string, f func(at time.Time, m M)) {
	if x := t.by[peer]; x != nil {
		for i := range x.at {
			f(x.at[i], x.values[i])
		}
	}
}
