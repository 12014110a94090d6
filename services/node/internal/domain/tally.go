package domain

import "time"

const (
	maxOpen      = 1 << 16 // tasks that are counted
	maxLatencies = 1 << 12 // of one step; what is more says little that these do not
	runningState = "RUNNING"
)

// Tally counts a consumer's tasks by what is heard of them.
type Tally struct {
	open      map[string]string    // task to state
	ended     map[string]time.Time // tasks that have ended lately: their last states are told more than once
	latencies []time.Duration
}

// NewTally makes one.
func NewTally() *Tally { return &Tally{open: map[string]string{}, ended: map[string]time.Time{}} }

// Seed says which tasks are open, in place of what was heard before.
func (t *Tally) Seed(open map[string]string) { t.open = open }

// Changed hears of a task. took is from its beginning to its end, where it has ended.
func (t *Tally) Changed(id, state string, terminal bool, took time.Duration, now time.Time) {
	if !terminal {
		if _, known := t.open[id]; known || len(t.open) < maxOpen {
			t.open[id] = state
		}
		return
	}
	delete(t.open, id)
	if _, again := t.ended[id]; again || len(t.latencies) >= maxLatencies {
		return
	}
	t.ended[id] = now
	t.latencies = append(t.latencies, took)
}

// Take returns the counts of now, and how long the tasks took that have ended since the last Take.
func (t *Tally) Take(now time.Time) (waiting, running uint32, took []time.Duration) {
	for _, s := range t.open {
		if s == runningState {
			running++
		} else {
			waiting++
		}
	}
	for id, at := range t.ended {
		if now.Sub(at) > time.Minute {
			delete(t.ended, id)
		}
	}
	took, t.latencies = t.latencies, nil
	return waiting, running, took
}
