package crew

import (
	"sync"
	"time"
)

// Term is for how long a replica may take itself for the one that leads, as the store has told it last: after that another one may do so as well. It is for one replica, and safe for
// concurrent use.
type Term struct {
	over func()

	mu    sync.Mutex
	until time.Time // of the monotonic clock
	said  bool      // over was called for it
	timer *time.Timer
}

// NewTerm makes one that does not hold yet. over is called each time it runs out; it must not block.
func NewTerm(over func()) *Term { return &Term{over: over} }

// Holds tells whether it does now.
func (t *Term) Holds() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return time.Now().Before(t.until)
}

// Renew has it hold until then: a lease from before the store was asked, since it counts from when it has answered. It tells whether it holds now and did not before.
func (t *Term) Renew(until time.Time) (begins bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	left := time.Until(until)
	if left <= 0 || until.Before(t.until) { // the answer was under way for too long
		return false
	}
	begins = !time.Now().Before(t.until)
	t.until, t.said = until, false
	if t.timer == nil {
		t.timer = time.AfterFunc(left, t.runOut)
	} else {
		t.timer.Reset(left)
	}
	return begins
}

// Stop has it run out without a word, at its time.
func (t *Term) Stop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.timer != nil {
		t.timer.Stop()
	}
	t.said = true
}

func (t *Term) runOut() {
	t.mu.Lock()
	now := !t.said && !time.Now().Before(t.until) // else it was renewed just now
	t.said = t.said || now
	t.mu.Unlock()
	if now {
		t.over()
	}
}
