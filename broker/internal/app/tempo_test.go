package app

import (
	"testing"
	"time"

	"github.com/shallot-net/shallot/broker/internal/domain/event"
)

func TestTempo(t *testing.T) {
	l := Limits{}
	l.defaults()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		e       event.Event
		size, n int
		hurried bool
		wait    time.Duration // of the last, about
	}{
		"a burst of tasks":       {event.Event{Type: event.TaskSubmission}, 2000, 4000, false, 0},
		"more tasks":             {event.Event{Type: event.TaskSubmission}, 2000, 6000, false, time.Second},
		"large ones":             {event.Event{Type: event.TaskSubmission}, 200 << 10, 480, false, 940 * time.Millisecond},
		"questions after a rest": {event.Event{Type: event.TaskQuery}, 100, 1000, false, 0},
		"a flood of questions":   {event.Event{Type: event.Ping}, 100, 1200, true, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			p := newTempo(&l)
			var wait time.Duration
			hurried := false
			for range c.n {
				wait, hurried = p.delay(&c.e, c.size, now)
			}
			if hurried != c.hurried || wait < c.wait*9/10 || wait > c.wait*11/10 {
				t.Errorf("the last waits %v, hurried %v", wait, hurried)
			}
		})
	}
}
