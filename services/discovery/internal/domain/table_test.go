package domain_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/shallot-net/shallot/services/discovery/internal/domain"
)

var (
	start    = time.Unix(1_700_000_000, 0)
	patience = domain.Patience{Unavailable: 3, Forgotten: 30, MinForget: time.Hour}
)

func anybody(*domain.Peer) bool { return true }

func see(t *testing.T, tab *domain.Table, id string, version uint64, src domain.Source, now time.Time, want domain.Outcome) {
	t.Helper()
	if got, _ := tab.Observe(announcement(id, version), []byte(id), src, 1, now); got != want {
		t.Errorf("Observe(%s version %d) = %v, want %v", id, version, got, want)
	}
}

func TestTheHighestVersionWins(t *testing.T) {
	tab := domain.NewTable(8)
	see(t, tab, "a", 5, domain.FromGossip, start, domain.Added)
	see(t, tab, "a", 4, domain.FromGossip, start.Add(time.Second), domain.Old)
	see(t, tab, "a", 5, domain.FromGossip, start.Add(2*time.Second), domain.Repeated)
	if p, _ := tab.Get("a"); !p.LastSeen.Equal(start) {
		t.Error("a repeated announcement counts as a sign of life, which anybody could replay")
	}
	see(t, tab, "a", 9, domain.FromGossip, start.Add(3*time.Second), domain.Newer)
	p, _ := tab.Get("a")
	if p.Version != 9 || !p.FirstSeen.Equal(start) || !p.LastSeen.Equal(start.Add(3*time.Second)) {
		t.Errorf("after version 9: %+v", p)
	}
	see(t, tab, "a", 9, domain.FromItself, start.Add(4*time.Second), domain.Repeated)
	if p, _ = tab.Get("a"); !p.LastSeen.Equal(start.Add(4 * time.Second)) {
		t.Error("what a peer says itself is no sign of life")
	}
}

func TestSilenceMakesUnavailableThenForgotten(t *testing.T) {
	tab := domain.NewTable(8)
	see(t, tab, "a", 1, domain.FromGossip, start, domain.Added)
	stated := announcement("a", 1).Interval
	at := func(d time.Duration) ([]string, []string) {
		changed, rows := tab.Sweep(start.Add(d), start, patience)
		var forgotten []string
		for _, p := range rows {
			forgotten = append(forgotten, p.PeerID)
		}
		return changed, forgotten
	}
	if c, f := at(3 * stated); len(c)+len(f) > 0 {
		t.Errorf("within three stated intervals: changed %v, forgotten %v", c, f)
	}
	if c, f := at(3*stated + 1); len(c) != 1 || len(f) != 0 {
		t.Errorf("after three stated intervals: changed %v, forgotten %v", c, f)
	}
	if p, _ := tab.Get("a"); p.State != domain.Unavailable {
		t.Errorf("state %s", p.State)
	}
	see(t, tab, "a", 2, domain.FromGossip, start.Add(4*stated), domain.Newer)
	if p, _ := tab.Get("a"); p.State != domain.Available {
		t.Errorf("heard again, the state is %s", p.State)
	}
	if _, f := at(4*stated + time.Hour); len(f) != 0 {
		t.Error("forgotten before its time")
	}
	if _, f := at(4*stated + time.Hour + 1); len(f) != 1 || tab.Len() != 0 {
		t.Errorf("after an hour forgotten: %v", f)
	}
}

func TestAnOutageForgetsNobody(t *testing.T) {
	tab := domain.NewTable(8)
	see(t, tab, "a", 1, domain.FromGossip, start, domain.Added)
	back := start.Add(48 * time.Hour)
	if c, f := tab.Sweep(back, time.Time{}, patience); len(c) != 1 || len(f) != 0 {
		t.Errorf("while cut off: changed %v, forgotten %v", c, f)
	}
	if _, f := tab.Sweep(back.Add(time.Hour), back, patience); len(f) != 0 {
		t.Error("forgotten as soon as this node was back")
	}
	if _, f := tab.Sweep(back.Add(time.Hour+1), back, patience); len(f) != 1 {
		t.Error("never forgotten")
	}
}

func TestLastWords(t *testing.T) {
	tab := domain.NewTable(8)
	see(t, tab, "a", 1, domain.FromGossip, start, domain.Added)
	bye := announcement("a", 2)
	bye.Leaving = true
	tab.Observe(bye, nil, domain.FromGossip, 1, start)
	if p, _ := tab.Get("a"); p.State != domain.Leaving {
		t.Errorf("state %s", p.State)
	}
	if got := tab.Sample(8, nil, anybody); len(got) != 0 {
		t.Error("one that leaves is recommended")
	}
	see(t, tab, "a", 3, domain.FromGossip, start, domain.Newer)
	if p, _ := tab.Get("a"); p.State != domain.Available {
		t.Errorf("back again, the state is %s", p.State)
	}
}

func TestAFullTableLetsGoOfTheDeadFirst(t *testing.T) {
	tab := domain.NewTable(3)
	see(t, tab, "live", 1, domain.FromGossip, start.Add(time.Hour), domain.Added)
	see(t, tab, "older", 1, domain.FromGossip, start, domain.Added)
	see(t, tab, "old", 1, domain.FromGossip, start.Add(time.Second), domain.Added)
	tab.Sweep(start.Add(time.Hour), time.Time{}, patience)
	for _, want := range []string{"older", "old"} {
		_, evicted := tab.Observe(announcement("for"+want, 1), nil, domain.FromGossip, 1, start.Add(time.Hour))
		if evicted != want {
			t.Errorf("evicted %q, want %q", evicted, want)
		}
	}
}

func TestAFullTableStaysAFairSample(t *testing.T) {
	const size, network = 64, 1024
	tab := domain.NewTable(size)
	for i := range size {
		see(t, tab, fmt.Sprint("early", i), 1, domain.FromGossip, start, domain.Added)
	}
	tab.SetConnected("early0", true)
	added := 0
	for i := range network - size {
		if out, _ := tab.Observe(announcement(fmt.Sprint("late", i), 1), nil, domain.FromGossip, network, start); out == domain.Added {
			added++
		}
	}
	// Each newcomer gets in with a chance of 64/1024, so 60 of 960.
	if added < 25 || added > 110 || tab.Len() != size {
		t.Errorf("%d of %d newcomers were added, want about 60; %d rows", added, network-size, tab.Len())
	}
	if _, ok := tab.Get("early0"); !ok {
		t.Error("a neighbour was put out")
	}
}

func TestSamples(t *testing.T) {
	tab := domain.NewTable(100)
	for i := range 50 {
		see(t, tab, fmt.Sprint("p", i), 1, domain.FromGossip, start, domain.Added)
	}
	see(t, tab, "hearsay", 1, domain.FromSample, start, domain.Added)
	got := tab.Sample(32, []string{"wasm"}, func(p *domain.Peer) bool { return p.PeerID != "p7" })
	seen := map[string]bool{}
	for _, p := range got {
		if p.PeerID == "p7" || p.PeerID == "hearsay" || seen[p.PeerID] {
			t.Errorf("%s is in the sample", p.PeerID)
		}
		seen[p.PeerID] = true
	}
	if len(got) != 32 {
		t.Errorf("%d peers, want 32", len(got))
	}
	if got := tab.Sample(32, []string{"unheard-of"}, anybody); len(got) != 0 {
		t.Errorf("%d peers offer a type that none has", len(got))
	}
	// Once it speaks for itself it may be recommended.
	see(t, tab, "hearsay", 1, domain.FromItself, start, domain.Repeated)
	if p, _ := tab.Get("hearsay"); !p.Vouched {
		t.Error("not vouched for by itself")
	}
}

func TestConnections(t *testing.T) {
	tab := domain.NewTable(8)
	if tab.SetConnected("a", true) {
		t.Error("a row that is not there has changed")
	}
	see(t, tab, "a", 1, domain.FromGossip, start, domain.Added)
	if p, _ := tab.Get("a"); !p.Connected {
		t.Error("connected before it was known, it is not now")
	}
	if !tab.SetRTT("a", 10*time.Millisecond) || tab.SetRTT("a", 12*time.Millisecond) || !tab.SetRTT("a", 16*time.Millisecond) {
		t.Error("the first round trip and one that differs by half are news, others are not")
	}
	if tab.Unreachable("a") {
		t.Error("unreachable while connected")
	}
	if !tab.SetConnected("a", false) || tab.SetConnected("a", false) {
		t.Error("a lost connection is news once")
	}
	if p, _ := tab.Get("a"); p.RTT != 0 {
		t.Error("a round trip without a connection")
	}
	if !tab.Unreachable("a") {
		t.Error("not unreachable")
	}
}

func TestWhoSaysTooMuchIsNotHeard(t *testing.T) {
	tab := domain.NewTable(8)
	see(t, tab, "a", 1, domain.FromGossip, start, domain.Added)
	heard := 0
	for v := range 1000 { // ten seconds of a hundred a second
		if out, _ := tab.Observe(announcement("a", uint64(v+2)), nil, domain.FromGossip, 1, start.Add(time.Duration(v)*10*time.Millisecond)); out == domain.Newer {
			heard++
		}
	}
	if heard < 16 || heard > 20 {
		t.Errorf("%d of 1000 announcements in 10 s were taken, want a burst of 8 and one a second", heard)
	}
	see(t, tab, "a", 5000, domain.FromGossip, start.Add(time.Minute), domain.Newer)
}

// What spares looking at every row must not overlook one.
func TestTheCountAndTheSweepMissNobody(t *testing.T) {
	tab := domain.NewTable(32)
	now := start
	for i := range 20_000 {
		now = now.Add(time.Duration(rand.IntN(3000)) * time.Millisecond)
		id := fmt.Sprint("peer", rand.IntN(64))
		a := announcement(id, uint64(i+1))
		a.Interval = time.Duration(1+rand.IntN(60)) * time.Second
		a.Leaving = rand.IntN(20) == 0
		switch rand.IntN(5) {
		case 0:
			tab.SetConnected(id, rand.IntN(2) == 0)
		case 1:
			tab.Unreachable(id)
		default:
			tab.Observe(a, []byte(id), domain.Source(rand.IntN(3)), 64, now)
		}
		if rand.IntN(3) > 0 {
			continue
		}
		tab.Sweep(now, start, patience)
		available, neighbours := 0, 0
		for _, p := range tab.All() {
			if p.State != domain.Available {
				continue
			}
			available++
			if p.Connected {
				neighbours++
			}
			if now.Sub(p.LastSeen) > time.Duration(patience.Unavailable)*p.Interval {
				t.Fatalf("a peer that stated %v is available after a silence of %v", p.Interval, now.Sub(p.LastSeen))
			}
		}
		if tab.CountAvailable() != available || len(tab.Neighbours()) != neighbours {
			t.Fatalf("%d of %d available peers are counted, %d of %d neighbours", tab.CountAvailable(), available, len(tab.Neighbours()), neighbours)
		}
	}
}
