package domain_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/shallot-net/shallot/services/metric/internal/domain"
)

var start = time.Unix(1_700_000_000, 0)

func see(t *testing.T, tab *domain.Table, id string, version uint64, now time.Time, want domain.Outcome) {
	t.Helper()
	if got, _ := tab.Observe(metric(id, version), false, 1, now); got != want {
		t.Errorf("Observe(%s version %d) = %v, want %v", id, version, got, want)
	}
}

func TestTheHighestVersionWins(t *testing.T) {
	tab := domain.NewTable(8)
	see(t, tab, "a", 5, start, domain.Added)
	see(t, tab, "a", 5, start, domain.Repeated)
	see(t, tab, "a", 4, start, domain.Repeated)
	see(t, tab, "a", 6, start.Add(time.Second), domain.Newer)
	if k, ok := tab.Get("a", start.Add(time.Second)); !ok || k.Version != 6 || !k.ReceivedAt.Equal(start.Add(time.Second)) {
		t.Errorf("known: %+v", k)
	}
}

func TestFreshnessIsJudgedByTheStatedInterval(t *testing.T) {
	tab := domain.NewTable(8)
	see(t, tab, "a", 5, start, domain.Added)
	fresh := 2 * metric("a", 5).Interval
	if _, ok := tab.Get("a", start.Add(fresh)); !ok {
		t.Error("stale within two stated intervals")
	}
	if _, ok := tab.Get("a", start.Add(fresh+1)); ok || len(tab.All(start.Add(fresh+1))) != 0 {
		t.Error("fresh after two stated intervals")
	}
	if gone := tab.Expire(start.Add(fresh)); len(gone) != 0 {
		t.Errorf("expired early: %v", gone)
	}
	if gone := tab.Expire(start.Add(fresh + 1)); len(gone) != 1 || tab.Len() != 0 {
		t.Errorf("expired: %v", gone)
	}
	see(t, tab, "a", 5, start.Add(time.Hour), domain.Repeated) // what is expired cannot be replayed
	see(t, tab, "a", 6, start.Add(time.Hour), domain.Added)
}

func TestAFullTableLetsGoOfTheStalestFirst(t *testing.T) {
	tab := domain.NewTable(2)
	see(t, tab, "old", 1, start, domain.Added)
	see(t, tab, "new", 1, start.Add(11*time.Second), domain.Added)
	out, evicted := tab.Observe(metric("next", 1), false, 100_000, start.Add(11*time.Second))
	if out != domain.Added || evicted != "old" {
		t.Errorf("Observe = %v, evicted %q", out, evicted)
	}
}

func TestAFullTableStaysAFairSample(t *testing.T) {
	const size, network = 64, 1024
	tab := domain.NewTable(size)
	for i := range size {
		see(t, tab, fmt.Sprint("early", i), 1, start, domain.Added)
	}
	added := 0
	for i := range network - size {
		if out, _ := tab.Observe(metric(fmt.Sprint("late", i), 1), false, network, start); out == domain.Added {
			added++
		}
	}
	if added < 25 || added > 110 || tab.Len() != size {
		t.Errorf("%d of %d newcomers were added, want about 60; %d rows", added, network-size, tab.Len())
	}
}

func TestWhoSaysTooMuchIsNotHeardUnlessAsked(t *testing.T) {
	tab := domain.NewTable(8)
	see(t, tab, "a", 1, start, domain.Added)
	heard := 0
	for v := range 1000 { // ten seconds of a hundred a second
		if out, _ := tab.Observe(metric("a", uint64(v+2)), false, 1, start.Add(time.Duration(v)*10*time.Millisecond)); out == domain.Newer {
			heard++
		}
	}
	if heard < 18 || heard > 22 { // the interval stated is 10 s
		t.Errorf("%d of 1000 reports in 10 s were taken, want a burst of 8 and 1.2 a second", heard)
	}
	if out, _ := tab.Observe(metric("a", 5000), true, 1, start.Add(10*time.Second)); out != domain.Newer {
		t.Errorf("an answer was not taken: %v", out)
	}
}

// What spares looking at every row must not overlook one.
func TestNothingThatIsStaleIsKept(t *testing.T) {
	tab := domain.NewTable(32)
	now := start
	for i := range 20_000 {
		now = now.Add(time.Duration(rand.IntN(2000)) * time.Millisecond)
		m := metric(fmt.Sprint("peer", rand.IntN(64)), uint64(i+1))
		m.Interval = time.Duration(1+rand.IntN(60)) * time.Second
		aged := map[string]bool{}
		for _, k := range tab.All(now) {
			if now.After(k.ReceivedAt.Add(k.Interval)) { // half of its time
				aged[k.PeerID] = true
			}
		}
		if out, evicted := tab.Observe(m, true, 1<<20, now); out == domain.Full && len(aged) > 0 {
			// The one nearest to its expiry need not be one of these, but then it is fresh.
			fresh := true
			var oldest domain.Known
			for _, k := range tab.All(now) {
				ends, first := k.ReceivedAt.Add(2*k.Interval), oldest.ReceivedAt.Add(2*oldest.Interval)
				if oldest.PeerID == "" || ends.Before(first) || ends.Equal(first) && k.Interval > oldest.Interval {
					oldest, fresh = k, !aged[k.PeerID]
				}
			}
			if !fresh {
				t.Fatalf("there was no place, and %s has used up half its time; evicted %q", oldest.PeerID, evicted)
			}
		}
		if rand.IntN(3) == 0 {
			tab.Expire(now)
			if len(tab.All(now)) != tab.Len() {
				t.Fatalf("%d of %d rows are fresh after those that are not expired", len(tab.All(now)), tab.Len())
			}
		}
	}
}
