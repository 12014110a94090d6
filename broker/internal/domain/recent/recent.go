// Package recent remembers the events that one peer has sent lately, so that one that is sent again after a broken stream is
// answered again and not delivered twice.
package recent

import "github.com/shallot-net/shallot/broker/internal/domain/event"

// State is what is known of an event.
type State uint8

// States.
const (
	New        State = iota // not seen, or forgotten: deliver it
	InProgress              // being delivered: its outcome will answer this one too
	Finished                // answer with the outcome
)

// Window is bounded by the number of finished events that it remembers; those in progress are bounded by flow control.
// It is not safe for concurrent use.
type Window struct {
	size int
	seen map[event.ID]*entry
	ring []event.ID // finished ones, oldest at next once full
	next int
}

type entry struct {
	finished bool
	outcome  event.Outcome
}

// NewWindow makes a window that remembers size finished events.
func NewWindow(size int) *Window {
	return &Window{size: size, seen: make(map[event.ID]*entry)}
}

// Begin says what is known of an event, and takes note of a new one.
func (w *Window) Begin(id event.ID) (State, event.Outcome) {
	e, ok := w.seen[id]
	switch {
	case !ok:
		w.seen[id] = &entry{}
		return New, event.Outcome{}
	case !e.finished:
		return InProgress, event.Outcome{}
	}
	return Finished, e.outcome
}

// Finish notes an outcome. One that a repeat may change is forgotten, so that the repeat is delivered.
func (w *Window) Finish(id event.ID, o event.Outcome) {
	e, ok := w.seen[id]
	if !ok || e.finished {
		return
	}
	if !o.Final() {
		delete(w.seen, id)
		return
	}
	e.finished, e.outcome = true, o
	if len(w.ring) < w.size {
		w.ring = append(w.ring, id)
		return
	}
	delete(w.seen, w.ring[w.next])
	w.ring[w.next] = id
	w.next = (w.next + 1) % w.size
}

// Idle tells that nothing is in progress.
func (w *Window) Idle() bool { return len(w.seen) == len(w.ring) }
