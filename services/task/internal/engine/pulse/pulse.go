// Package pulse is a timer for what must be looked at soon, again and again, while there is something to look at.
package pulse

import (
	"sync/atomic"
	"time"
)

// Pulse calls a function every so often for as long as it is needed. Unlike a timer set and stopped around each short
// piece of work, it costs such work nothing: setting a timer wakes a thread, and stopping it comes too late for that.
type Pulse struct {
	every  time.Duration
	f      func()
	timer  *time.Timer
	armed  atomic.Bool
	needed atomic.Bool
}

// New makes one that rests.
func New(every time.Duration, f func()) *Pulse {
	p := &Pulse{every: every, f: f}
	p.timer = time.AfterFunc(time.Hour, p.beat)
	p.timer.Stop()
	return p
}

// Need has f called at least once, within twice the interval from now. It may be called by anyone at any time.
func (p *Pulse) Need() {
	p.needed.Store(true)
	if p.armed.CompareAndSwap(false, true) {
		p.timer.Reset(p.every)
	}
}

func (p *Pulse) beat() {
	if p.needed.Swap(false) {
		p.f()
		p.timer.Reset(p.every)
		return
	}
	p.armed.Store(false)
	if p.needed.Load() { // between the two lines above
		p.Need()
	}
}
