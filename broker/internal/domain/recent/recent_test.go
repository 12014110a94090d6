package recent_test

import (
	"encoding/binary"
	"testing"

	"github.com/shallot-net/shallot/broker/internal/domain/event"
	"github.com/shallot-net/shallot/broker/internal/domain/recent"
)

func id(n int) (out event.ID) {
	binary.BigEndian.PutUint64(out[:], uint64(n))
	return out
}

func expect(t *testing.T, w *recent.Window, n int, want recent.State) event.Outcome {
	t.Helper()
	got, o := w.Begin(id(n))
	if got != want {
		t.Errorf("event %d: got state %d, want %d", n, got, want)
	}
	return o
}

func TestWindow(t *testing.T) {
	w := recent.NewWindow(2)
	expect(t, w, 1, recent.New)
	expect(t, w, 1, recent.InProgress)
	if w.Idle() {
		t.Error("idle with an event in progress")
	}
	refusal := event.Outcome{Status: event.Rejected, Detail: "NO"}
	w.Finish(id(1), refusal)
	if o := expect(t, w, 1, recent.Finished); o != refusal {
		t.Errorf("got %v", o)
	}
	// One that asks for a repeat is forgotten.
	expect(t, w, 2, recent.New)
	w.Finish(id(2), event.Outcome{Status: event.TimedOut})
	expect(t, w, 2, recent.New)
	w.Finish(id(2), event.Outcome{})
	// The oldest gives way; an outcome of what is not known changes nothing.
	expect(t, w, 3, recent.New)
	w.Finish(id(3), event.Outcome{})
	w.Finish(id(99), event.Outcome{})
	expect(t, w, 2, recent.Finished)
	expect(t, w, 3, recent.Finished)
	if !w.Idle() {
		t.Error("not idle")
	}
	expect(t, w, 1, recent.New)
}

func TestWindowIsBounded(t *testing.T) {
	w := recent.NewWindow(8)
	for n := range 1000 {
		expect(t, w, n, recent.New)
		w.Finish(id(n), event.Outcome{})
		w.Finish(id(n), event.Outcome{Status: event.Rejected}) // only the first counts
	}
	known := 0
	for n := range 1000 {
		if s, o := w.Begin(id(n)); s == recent.Finished {
			known++
			if o.Status != event.Acknowledged {
				t.Errorf("event %d: %v", n, o)
			}
		}
	}
	if known != 8 {
		t.Errorf("%d are remembered, want 8", known)
	}
}
