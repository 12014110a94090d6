package domain

import (
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// Known is a peer's metric and when it was received.
type Known struct {
	Metric
	ReceivedAt time.Time

	news allowance
}

// Outcome is what the table made of a metric.
type Outcome int

// The outcomes.
const (
	Repeated Outcome = iota // this version, or a newer one, is known
	Full                    // the table has no place for it
	Newer                   // of a peer that was known
	Added                   // of a peer not known before
	TooOften                // newer, from one who says more than anybody has to
)

// patience is for how many of its stated intervals a metric is fresh: one report may be lost.
const patience = 2

// Longest is for how long any metric is fresh, at most.
const Longest = patience * MaxInterval

// Table holds the freshest metrics of peers, bounded. It is not safe for concurrent use.
type Table struct {
	max   int
	known map[string]*Known
	// What has expired is forgotten, but its version must not come back: the last word of each for as long as there is room.
	past map[string]uint64
	// Before aging nobody has used up half its time, and before dated all of it: rows are looked at one by one only after.
	aging, dated time.Time
}

// NewTable makes a table of at most max metrics.
func NewTable(max int) *Table {
	return &Table{max: max, known: make(map[string]*Known), past: make(map[string]uint64)}
}

// Len is the number of metrics.
func (t *Table) Len() int { return len(t.known) }

// Observe takes a metric that has passed Check. asked says that this node asked for it; network is the estimated number
// of providers.
//
// A full table lets go of the metric nearest to its expiry when that has used up half its time; otherwise a newcomer takes
// the place of a random one with the chance that it has of being in a fair sample of the network.
func (t *Table) Observe(m Metric, asked bool, network int, now time.Time) (Outcome, string) {
	m = m.Clamped()
	k := t.known[m.PeerID]
	if k != nil {
		if m.Version <= k.Version {
			return Repeated, ""
		}
		if !asked && !k.news.take(now, k.Interval) {
			return TooOften, ""
		}
		k.Metric, k.ReceivedAt = m, now
		t.note(k)
		return Newer, ""
	}
	if m.Version <= t.past[m.PeerID] {
		return Repeated, ""
	}
	evicted, ok := t.makeRoom(network, now)
	if !ok {
		return Full, ""
	}
	delete(t.past, m.PeerID)
	k = &Known{Metric: m, ReceivedAt: now}
	t.known[m.PeerID] = k
	t.note(k)
	return Added, evicted
}

// Restore puts back a metric that was stored, while it is fresh and there is room.
func (t *Table) Restore(k Known, now time.Time) {
	k.Metric, k.news = k.Clamped(), allowance{}
	if k.ReceivedAt.After(now) { // by another clock
		k.ReceivedAt = now
	}
	if t.known[k.PeerID] == nil && len(t.known) < t.max && !k.expires().Before(now) {
		t.known[k.PeerID] = &k
		t.note(&k)
	}
}

func (t *Table) makeRoom(network int, now time.Time) (string, bool) {
	if len(t.known) < t.max {
		return "", true
	}
	if !now.Before(t.aging) {
		if oldest := t.oldest(); now.After(oldest.ages()) {
			t.drop(oldest.PeerID)
			return oldest.PeerID, true
		}
	}
	if rand.IntN(max(network, t.max)) >= t.max {
		return "", false
	}
	for id := range t.known { // Go's order of a map is random enough
		t.drop(id)
		return id, true
	}
	return "", false
}

// oldest is the metric nearest to its expiry, and of several the one that has used up most of its time.
func (t *Table) oldest() *Known {
	var oldest *Known
	t.aging = time.Time{}
	for _, k := range t.known {
		if oldest == nil || k.expires().Before(oldest.expires()) || k.expires().Equal(oldest.expires()) && k.ages().Before(oldest.ages()) {
			oldest = k
		}
		if a := k.ages(); t.aging.IsZero() || a.Before(t.aging) {
			t.aging = a
		}
	}
	return oldest
}

// note lowers what the times of all rows are known to be after.
func (t *Table) note(k *Known) {
	if a := k.ages(); a.Before(t.aging) {
		t.aging = a
	}
	if e := k.expires(); e.Before(t.dated) {
		t.dated = e
	}
}

func (t *Table) drop(id string) {
	for old := range t.past {
		if len(t.past) < t.max {
			break
		}
		delete(t.past, old)
	}
	t.past[id] = t.known[id].Version
	delete(t.known, id)
}

func (k *Known) expires() time.Time { return k.ReceivedAt.Add(patience * k.Interval) }

// ages is when half of its time is used up.
func (k *Known) ages() time.Time { return k.ReceivedAt.Add(patience * k.Interval / 2) }

// Expire drops what is no longer fresh and returns whose it was.
func (t *Table) Expire(now time.Time) []string {
	if !now.After(t.dated) {
		return nil
	}
	var gone []string
	t.dated = now.Add(Longest)
	for id, k := range t.known {
		switch e := k.expires(); {
		case e.Before(now):
			t.drop(id)
			gone = append(gone, id)
		case e.Before(t.dated):
			t.dated = e
		}
	}
	return gone
}

// Get returns a peer's metric while it is fresh.
func (t *Table) Get(id string, now time.Time) (Known, bool) {
	k := t.known[id]
	if k == nil || k.expires().Before(now) {
		return Known{}, false
	}
	return *k, true
}

// All returns what is fresh, ordered by peer id.
func (t *Table) All(now time.Time) []Known {
	out := make([]Known, 0, len(t.known))
	for _, k := range t.known {
		if !k.expires().Before(now) {
			out = append(out, *k)
		}
	}
	slices.SortFunc(out, func(a, b Known) int { return strings.Compare(a.PeerID, b.PeerID) })
	return out
}
