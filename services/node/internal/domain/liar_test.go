package domain

import (
	"testing"
	"time"
)

// Also where most of them lie, those who work get nearly everything.
func TestManyLiars(t *testing.T) {
	d := NewDirectory(DirectoryLimits{})
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	honest := map[string]bool{peerID(0): true, peerID(1): true}
	for i := range 8 {
		a := available(i, "sum").Announcement
		a.Version, a.Interval = 1, time.Minute
		d.Hear(a, true, now)
		load := Load{Running: 1, Slots: 2, Version: 1, At: now, Interval: time.Minute}
		if !honest[a.PeerID] {
			load.Running, load.Slots = 0, 1<<24
		}
		d.SetLoad(a.PeerID, load, now)
	}
	draw, lied := seeded(), 0
	for n := range 500 {
		p := Place(d.View(), &Need{Type: "sum"}, Asked{}, draw).Chosen
		if honest[p.PeerID] {
			continue
		}
		d.Refused(p.PeerID, now)
		if lied++; n >= 100 {
			t.Fatalf("a liar is chosen for task %d, after %d others", n, lied)
		}
	}
}

// A provider that says it is idle and huge, and then refuses what it is given or is silent, is chosen less often than those who work, and is tried
// again when its faults have faded.
func TestALiarIsChosenLessOften(t *testing.T) {
	for name, c := range map[string]struct {
		slots    uint32
		letsDown func(d *Directory, peer string, now time.Time)
	}{
		"idle, refuses":              {2, (*Directory).Refused},
		"idle, silent":               {2, (*Directory).Penalise},
		"millions of slots, refuses": {1 << 24, (*Directory).Refused},
		"millions of slots, silent":  {1 << 24, (*Directory).Penalise},
	} {
		t.Run(name, func(t *testing.T) {
			d := NewDirectory(DirectoryLimits{})
			now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
			liar := peerID(0)
			say := func() {
				for i := range 3 {
					a := available(i, "sum").Announcement
					a.Version, a.Interval = uint64(now.UnixNano()), time.Minute
					d.Hear(a, true, now)
					load := Load{Running: 1, Slots: 2, Version: a.Version, At: now, Interval: time.Minute} // honest ones have something to do
					if a.PeerID == liar {
						load.Running, load.Slots = 0, c.slots
					}
					d.SetLoad(a.PeerID, load, now)
				}
				d.Sweep(now)
			}
			draw := seeded()
			chosen := func(tasks int) (n int) {
				for range tasks {
					now = now.Add(10 * time.Millisecond)
					p := Place(d.View(), &Need{Type: "sum"}, Asked{}, draw).Chosen
					if p.PeerID == liar {
						n++
						c.letsDown(d, liar, now)
					}
				}
				return n
			}
			say()
			chosen(30) // it may be believed at first
			if n := chosen(300); n > 0 {
				t.Errorf("of the next 300 tasks it gets %d, and two others have room", n)
			}
			now = now.Add(time.Hour)
			say()
			if n := chosen(30); n == 0 {
				t.Error("an hour later it is not tried again")
			}
		})
	}
}
