package domain

import (
	"slices"
	"testing"
	"time"
)

func announced(n int, version uint64) Announcement {
	return Announcement{PeerID: peerID(n), Version: version, Role: RoleProvider, SealingKey: "age1x", Interval: 10 * time.Second,
		Capabilities: []Capability{{Type: "sum"}}}
}

func TestDirectoryVersions(t *testing.T) {
	d := NewDirectory(DirectoryLimits{})
	if c := d.Hear(announced(1, 5), false, t0); c != Learned {
		t.Fatalf("a new one is %v", c)
	}
	old := announced(1, 4)
	old.SealingKey = "age1old"
	if c := d.Hear(old, false, t0); c != Nothing || d.Get(peerID(1)).SealingKey != "age1x" {
		t.Errorf("an old version is %v, and the key is %s", c, d.Get(peerID(1)).SealingKey)
	}
	if c := d.Hear(announced(1, 6), false, t0); c != Renewed || d.Get(peerID(1)).Version != 6 {
		t.Errorf("a newer version is %v", c)
	}
	leaving := announced(1, 7)
	leaving.Leaving = true
	if d.Hear(leaving, false, t0); d.Get(peerID(1)).State != StateLeaving {
		t.Errorf("one that leaves is %s", d.Get(peerID(1)).State)
	}
	if c := d.Hear(announced(1, 8), false, t0); c != Learned || d.Get(peerID(1)).State != StateAvailable {
		t.Errorf("one that came back is %v, %s", c, d.Get(peerID(1)).State)
	}
	leaving.PeerID = peerID(2)
	if c := d.Hear(leaving, true, t0); c != Nothing || d.Get(peerID(2)) != nil {
		t.Errorf("a stranger that leaves is %v", c)
	}
}

func TestDirectoryLiveness(t *testing.T) {
	d := NewDirectory(DirectoryLimits{})
	d.Hear(announced(1, 1), false, t0)
	at := func(s int) time.Time { return t0.Add(time.Duration(s) * time.Second) }
	state := func(s int) string {
		d.Sweep(at(s))
		if p := d.Get(peerID(1)); p != nil {
			return p.State
		}
		return "forgotten"
	}
	if got := state(30); got != StateAvailable {
		t.Errorf("within three intervals it is %s", got)
	}
	d.Hear(announced(1, 1), false, at(30)) // hearsay about the same version is no sign of life
	if got := state(31); got != StateUnavailable {
		t.Errorf("after three intervals it is %s", got)
	}
	d.Hear(announced(1, 1), true, at(31)) // from itself it is one
	if got := state(60); got != StateAvailable {
		t.Errorf("when it has spoken itself it is %s", got)
	}
	if got := state(62); got != StateUnavailable {
		t.Errorf("silent again it is %s", got)
	}
	if got := state(31 + 121); got != "forgotten" {
		t.Errorf("after twelve intervals it is %s", got)
	}
	// Who asks rarely cannot expect news often.
	d.SetAsking(time.Minute)
	d.Hear(announced(1, 2), false, t0)
	if got := state(179); got != StateAvailable {
		t.Errorf("between two questions it is %s", got)
	}
}

func TestDirectorySuspicion(t *testing.T) {
	d := NewDirectory(DirectoryLimits{})
	d.Hear(announced(1, 1), false, t0)
	p := d.Get(peerID(1))
	d.Suspect(peerID(1), t0)
	if p.State != StateUnavailable {
		t.Fatal("it could not be reached and is available")
	}
	if d.Sweep(t0.Add(3 * time.Second)); p.State != StateUnavailable || !p.Suspected {
		t.Error("time alone clears it")
	}
	if d.Hear(announced(1, 2), false, t0.Add(3*time.Second)); p.State != StateAvailable {
		t.Error("news of it does not clear it")
	}
	d.Suspect(peerID(1), t0.Add(3*time.Second))
	d.Suspect(peerID(1), t0.Add(4*time.Second))
	if d.Hear(announced(1, 3), false, t0.Add(6*time.Second)); p.State != StateUnavailable {
		t.Error("news of it clears it too soon")
	}
	if d.Contact(peerID(1), t0.Add(6*time.Second)); p.State != StateAvailable {
		t.Error("it has spoken and is still suspected")
	}
	d.Suspect(peerID(1), t0.Add(7*time.Second))
	if d.SetConnected(peerID(1), true, t0.Add(7*time.Second)); p.State != StateAvailable || !p.Connected {
		t.Error("it is connected and still suspected")
	}
}

func TestDirectoryIsBounded(t *testing.T) {
	d := NewDirectory(DirectoryLimits{Size: 1})
	for i := range 300 {
		d.Hear(announced(i, 1), false, t0)
	}
	if len(d.View()) != minView {
		t.Fatalf("%d are kept", len(d.View()))
	}
	// Hearsay displaces nobody who is available; who speaks itself does, but never whom we are connected to or work with.
	if c := d.Hear(announced(1000, 1), false, t0); c != Nothing {
		t.Errorf("hearsay is %v", c)
	}
	for i := range minView - 1 {
		d.SetConnected(peerID(i), true, t0)
	}
	d.Placed("task", peerID(minView-1), t0)
	if c := d.Hear(announced(1000, 1), true, t0); c != Nothing {
		t.Errorf("a newcomer is %v although all are needed", c)
	}
	d.Finished("task")
	if c := d.Hear(announced(1000, 1), true, t0); c != Learned || d.Get(peerID(minView-1)) != nil {
		t.Errorf("a newcomer that spoke itself is %v", c)
	}
	for i := range minView - 1 {
		d.SetConnected(peerID(i), false, t0)
	}
	// Those that are unavailable go first, whoever is told of.
	later := t0.Add(40 * time.Second)
	for i := 1; i < minView-1; i++ {
		d.Hear(announced(i, 2), false, later)
	}
	if c := d.Hear(announced(2000, 1), false, later); c != Learned || d.Get(peerID(0)) != nil && d.Get(peerID(1000)) != nil {
		t.Errorf("hearsay is %v although somebody is unavailable", c)
	}
	for i, p := range d.View() {
		if d.rows[p.PeerID].index != i {
			t.Fatalf("row %d of the view thinks it is %d", i, d.rows[p.PeerID].index)
		}
	}
}

func TestDirectoryLoads(t *testing.T) {
	d := NewDirectory(DirectoryLimits{})
	d.Hear(announced(1, 1), true, t0)
	d.Hear(announced(2, 1), true, t0)
	p := d.Get(peerID(1))
	d.Placed("a", peerID(1), t0)
	d.Placed("b", peerID(1), t0.Add(2*time.Second))
	if p.Placed != 2 || p.PlacedSince != 2 {
		t.Fatalf("placed %d, since %d", p.Placed, p.PlacedSince)
	}
	if !d.SetLoad(peerID(1), Load{Running: 1, Slots: 2, Version: 3, At: t0.Add(time.Second), Interval: 10 * time.Second}, t0.Add(3*time.Second)) {
		t.Fatal("a metric is not taken")
	}
	if p.PlacedSince != 1 || p.Busy() != 1 {
		t.Errorf("placed since %d, busy %v", p.PlacedSince, p.Busy())
	}
	if d.SetLoad(peerID(1), Load{Version: 2}, t0) {
		t.Error("an older metric is taken")
	}
	if d.SetLoad(peerID(9), Load{Version: 2}, t0) {
		t.Error("a stranger's metric is taken")
	}
	d.Placed("b", peerID(2), t0.Add(4*time.Second)) // redirected
	if p.Placed != 1 || p.PlacedSince != 0 || d.Get(peerID(2)).Placed != 1 || d.At("b") != peerID(2) {
		t.Errorf("after a redirect: %d, %d and %d", p.Placed, p.PlacedSince, d.Get(peerID(2)).Placed)
	}
	d.Finished("a")
	d.Finished("a")
	d.Finished("b")
	if p.Placed != 0 || d.Get(peerID(2)).Placed != 0 {
		t.Error("finished tasks are counted")
	}
	d.Contact(peerID(1), t0.Add(40*time.Second))
	if d.Sweep(t0.Add(40 * time.Second)); p.Load != nil {
		t.Error("a metric is kept longer than three of its intervals")
	}
}

func TestDirectoryPenaltyDecays(t *testing.T) {
	d := NewDirectory(DirectoryLimits{Decay: time.Minute})
	a := announced(1, 1)
	a.Interval = MaxInterval
	d.Hear(a, true, t0)
	p := d.Get(peerID(1))
	for range 20 {
		d.Penalise(peerID(1), t0)
	}
	if p.Penalty != 32 {
		t.Errorf("many faults make %v", p.Penalty)
	}
	if d.Sweep(t0.Add(time.Minute)); p.Penalty != 16 {
		t.Errorf("after a half-life it is %v", p.Penalty)
	}
	if d.Sweep(t0.Add(20 * time.Minute)); p.Penalty != 0 {
		t.Errorf("long after it is %v", p.Penalty)
	}
}

func TestDirectoryList(t *testing.T) {
	d := NewDirectory(DirectoryLimits{})
	for _, i := range []int{3, 1, 2, 5, 4} {
		d.Hear(announced(i, 1), true, t0)
	}
	var got []string
	after, more := "", true
	for more {
		var page []Provider
		page, more = d.List(after, 2, func(p *Provider) bool { return p.PeerID != peerID(3) })
		for _, p := range page {
			got = append(got, p.PeerID)
			after = p.PeerID
		}
	}
	if want := []string{peerID(1), peerID(2), peerID(4), peerID(5)}; !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
}

// A provider of which one peer alone tells may be that peer's invention.
func TestVouching(t *testing.T) {
	d := NewDirectory(DirectoryLimits{})
	d.Hear(announced(1, 5), false, t0)
	p := d.Get(peerID(1))
	need := &Need{Type: p.Capabilities[0].Type, Vouched: true}
	for _, by := range []string{"", peerID(1), peerID(2), peerID(2)} {
		d.Vouch(peerID(1), by)
	}
	if p.Vouched() || need.fits(p) || !unfit(need, p) {
		t.Error("one peer is enough")
	}
	if only := (&Need{Type: need.Type, Vouched: true, Only: []string{peerID(1)}}); !only.fits(p) {
		t.Error("the user cannot name it")
	}
	d.Vouch(peerID(1), peerID(3))
	if !p.Vouched() || !need.fits(p) || unfit(need, p) {
		t.Error("two are not enough")
	}
	d.Hear(announced(4, 1), true, t0)
	d.Name(peerID(4))
	if q := d.Get(peerID(4)); !q.Vouched() {
		t.Error("a bootstrap node is not")
	}
	d.Name("nobody")
	d.Vouch("nobody", peerID(1))
}
