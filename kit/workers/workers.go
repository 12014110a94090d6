// Package workers keeps goroutines for the next function. A goroutine starts with a small stack, and one that decrypts or decodes
// has to grow it step by step, each time by a copy; where many short functions are run, that was a thirtieth of all processor time.
package workers

import "sync"

// idle is how many goroutines a Group keeps: with the stacks of their last function, some ten KiB each.
const idle = 16

// Group is a sync.WaitGroup whose goroutines stay. The zero value works; do not copy one.
type Group struct {
	running sync.WaitGroup

	mu     sync.Mutex
	parked []chan func() // the one parked last is the first to be used: its stack is warm
}

// Go runs f in a goroutine, one that is parked or a new one. It never blocks. As with sync.WaitGroup, the first call must not
// come while Wait is called.
func (g *Group) Go(f func()) {
	g.running.Add(1)
	g.mu.Lock()
	n := len(g.parked)
	if n == 0 {
		g.mu.Unlock()
		go g.work(f)
		return
	}
	w := g.parked[n-1]
	g.parked[n-1] = nil
	g.parked = g.parked[:n-1]
	g.mu.Unlock()
	w <- f
}

// Wait blocks until all functions have returned, and ends the goroutines that are parked. The Group can be used again.
func (g *Group) Wait() {
	g.running.Wait()
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, w := range g.parked {
		close(w)
	}
	g.parked = nil
}

func (g *Group) work(f func()) {
	w := make(chan func(), 1)
	for {
		if !g.run(f, w) {
			return
		}
		var ok bool
		if f, ok = <-w; !ok {
			return
		}
	}
}

// run tells whether the goroutine is parked. It is before the function counts as done, so that Wait sees it.
func (g *Group) run(f func(), w chan func()) (parked bool) {
	defer g.running.Done()
	f()
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.parked) >= idle {
		return false
	}
	g.parked = append(g.parked, w)
	return true
}
