package executor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/shallot-net/shallot/kit/logging"
)

// pool keeps children ready. A child that died or may not be used again is replaced at once, before it is needed.
type pool struct {
	cfg   *Config
	spawn func(context.Context) (*process, error)
	ctx   context.Context
	stop  context.CancelFunc
	all   sync.WaitGroup

	mu       sync.Mutex
	idle     []*process // the one used last at the end
	live     int        // idle, busy, or dying
	starting int
	waiting  int
	changed  chan struct{} // closed and made anew with each change
	failures int           // of starts, in a row
	failed   int           // in all
	failure  error
	retry    *time.Timer
	trim     *time.Timer
	closed   bool
}

var errClosed = errors.New("the executor is shutting down")

func newPool(cfg *Config) (*pool, error) {
	// Children of an earlier life are gone; their directories may not be.
	children := filepath.Join(cfg.Dir, dirChildren)
	if err := os.RemoveAll(children); err != nil {
		return nil, fmt.Errorf("cannot clear %s: %w", children, err)
	}
	if err := os.MkdirAll(children, 0o700); err != nil {
		return nil, fmt.Errorf("cannot make %s: %w", children, err)
	}
	ctx, stop := context.WithCancel(context.Background())
	p := &pool{cfg: cfg, ctx: ctx, stop: stop, changed: make(chan struct{})}
	run := p.starter()
	p.spawn = func(ctx context.Context) (*process, error) { return spawn(ctx, cfg, run) }
	p.mu.Lock()
	p.refill()
	p.mu.Unlock()
	return p, nil
}

// starter returns what runs a function on one thread that lives as long as the pool: a child is told to die when the
// thread that started it does, and the threads of a Go program come and go.
func (p *pool) starter() func(func()) {
	work := make(chan func())
	p.all.Go(func() {
		runtime.LockOSThread() // never unlocked: the thread ends with this goroutine
		patient()
		for {
			select {
			case f := <-work:
				f()
			case <-p.ctx.Done():
				return
			}
		}
	})
	return func(f func()) {
		done := make(chan struct{})
		select {
		case work <- func() { defer close(done); f() }:
			<-done
		case <-p.ctx.Done():
		}
	}
}

// need says which child a run takes.
type need struct {
	key   moduleKey
	clean bool // only one that has run no program yet
}

// acquire takes a child that fits, waiting for one if it must. An error is the last start's, the pool's end, or ctx's.
func (p *pool) acquire(ctx context.Context, n need) (*process, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	failed := p.failed
	p.waiting++
	defer func() { p.waiting-- }()
	for {
		switch {
		case p.closed:
			return nil, errClosed
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		}
		if i := p.pick(n); i >= 0 {
			c := p.idle[i]
			p.idle = slices.Delete(p.idle, i, i+1)
			p.waiting--
			p.refill()
			p.waiting++
			return c, nil
		}
		if p.failed > failed {
			return nil, p.failure
		}
		p.refill()
		if n.clean && p.starting == 0 && len(p.idle) > 0 {
			p.idle[0].kill() // makes room for one that is clean
			p.idle = p.idle[1:]
		}
		changed := p.changed
		p.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
		}
		p.mu.Lock()
	}
}

// first waits for a child and returns it without taking it, which would start another.
func (p *pool) first(ctx context.Context) (*process, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		switch {
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case len(p.idle) > 0:
			return p.idle[0], nil
		case p.failed > 0:
			return nil, p.failure
		}
		changed := p.changed
		p.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
		}
		p.mu.Lock()
	}
}

// has tells whether an idle child has the module in memory.
func (p *pool) has(key moduleKey) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.ContainsFunc(p.idle, func(c *process) bool { return c.resident.has(key) })
}

// pick prefers the child that has the module, then one that was used, so that a clean one is left for a module that
// must be compiled.
func (p *pool) pick(n need) int {
	best, rank := -1, 0
	for i, c := range p.idle {
		r := 1
		switch {
		case c.resident.has(n.key):
			r = 3
		case n.clean && c.ran:
			continue
		case c.ran:
			r = 2
		}
		if r >= rank {
			best, rank = i, r
		}
	}
	return best
}

// refill starts what is missing: enough for those who wait, and the warm ones. The lock is held.
func (p *pool) refill() {
	if p.closed || p.retry != nil {
		return
	}
	want := max(p.waiting, p.cfg.Warm-len(p.idle))
	for p.starting < want && p.live+p.starting < p.cfg.Max {
		p.starting++
		p.all.Go(p.startOne)
	}
}

func (p *pool) startOne() {
	c, err := p.spawn(p.ctx)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.starting--
	switch {
	case err != nil:
		p.startFailed(err)
	case p.closed:
		c.kill()
		p.all.Go(func() { <-c.dead })
	default:
		p.failures, p.failure = 0, nil
		p.live++
		c.idle = time.Now()
		p.idle = append([]*process{c}, p.idle...)
		p.tidySoon()
		p.all.Go(func() { <-c.dead; p.gone(c) })
	}
	p.notify()
}

const (
	retryFirst = 50 * time.Millisecond
	retryMost  = 5 * time.Second
)

func (p *pool) startFailed(err error) {
	p.failed++
	p.failure = err
	if p.closed {
		return
	}
	p.cfg.Log.Error("an executor process did not start", logging.Err(err))
	wait := min(retryFirst<<min(p.failures, 10), retryMost)
	p.failures++
	if p.retry == nil {
		p.retry = time.AfterFunc(wait, func() {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.retry = nil
			p.refill()
		})
	}
}

// gone takes note of a child's end, whatever it was.
func (p *pool) gone(c *process) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.live--
	if i := slices.Index(p.idle, c); i >= 0 {
		p.idle = slices.Delete(p.idle, i, i+1)
	}
	p.refill()
	p.notify()
}

// maxCPU is far below the limit on CPU time that a child is started with.
const maxCPU = 24 * time.Hour

// release gives a child back after a run; reuse says whether it ended cleanly.
func (p *pool) release(c *process, reuse bool) {
	if !reuse || c.runs >= p.cfg.Runs || c.cpu > maxCPU || c.grown(p.cfg.IdleMemory) {
		c.kill()
		return // gone does the rest
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		c.kill()
		return
	}
	select {
	case <-c.dead:
		return
	default:
	}
	c.idle = time.Now()
	p.idle = append(p.idle, c)
	p.tidySoon()
	p.notify()
}

// tidySoon has tidy look when there can be something for it. The lock is held.
func (p *pool) tidySoon() {
	if p.trim == nil {
		p.trim = time.AfterFunc(min(p.cfg.IdleTime, p.cfg.RefreshTime), p.tidy)
	}
}

// tidy ends children that had nothing to do for a while: those beyond the warm ones, and those that have run something,
// for a fresh one that holds less memory. It comes again for as long as there are such.
func (p *pool) tidy() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.trim = nil
	if p.closed {
		return
	}
	next := time.Duration(-1)
	for _, c := range slices.Clone(p.idle) {
		after := p.cfg.RefreshTime
		switch {
		case len(p.idle) > p.cfg.Warm:
			after = p.cfg.IdleTime
		case !c.ran:
			continue
		}
		if left := after - time.Since(c.idle); left > 0 {
			if next < 0 || left < next {
				next = left
			}
			continue
		}
		p.idle = slices.DeleteFunc(p.idle, func(i *process) bool { return i == c })
		c.kill()
	}
	if next >= 0 {
		p.trim = time.AfterFunc(next, p.tidy)
	}
}

func (p *pool) notify() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// close ends every idle child and waits for all; those that run are for their runs' contexts to end.
func (p *pool) close() {
	p.mu.Lock()
	p.closed = true
	for _, c := range p.idle {
		c.kill()
	}
	p.idle = nil
	for _, t := range []*time.Timer{p.retry, p.trim} {
		if t != nil {
			t.Stop()
		}
	}
	p.notify()
	p.mu.Unlock()
	// The starter's thread must outlive the children that still have to say how they ended.
	p.mu.Lock()
	for p.live+p.starting > 0 {
		changed := p.changed
		p.mu.Unlock()
		<-changed
		p.mu.Lock()
	}
	p.mu.Unlock()
	p.stop()
	p.all.Wait()
}
