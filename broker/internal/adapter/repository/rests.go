package repository

import (
	"sync"
	"time"
)

// rests keeps the sessions of a lane apart. When a session ends, bitswap takes its wants back in the background, and with them those of a session that has asked for the same
// since: the peer never sends what it was told is not wanted. So after a session that was broken off in the middle the next one begins a moment later.
type rests struct {
	mu    sync.Mutex
	lines map[*line]struct{}
	until time.Time
}

func (r *rests) begin(l *line) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.lines == nil {
		r.lines = make(map[*line]struct{})
	}
	r.lines[l] = struct{}{}
}

func (r *rests) end(l *line) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.lines, l)
}

// broken notes that a session has ended while something was wanted by it.
func (r *rests) broken() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.until = time.Now().Add(wayRest)
}

// left is for how long no session may begin. One that is broken off this very moment, and has not said so yet, counts.
func (r *rests) left() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	for l := range r.lines {
		if l.ctx.Err() != nil && l.wanted.Load() > 0 {
			r.until = time.Now().Add(wayRest)
		}
	}
	return time.Until(r.until)
}
