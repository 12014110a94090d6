package domain_test

import (
	"fmt"
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
