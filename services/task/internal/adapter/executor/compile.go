package executor

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/shallot-net/shallot/services/task/internal/app"
)

// compiling has the modules that are being compiled now. Several runs of one module that come together would each
// compile it, on cores that they share.
type compiling struct {
	mu  sync.Mutex
	now map[moduleKey]chan struct{} // closed when it is over
}

// begin waits for a compilation of the same module to be over, however it ended, and then makes the caller the one that
// compiles, unless it is needless. The caller must call over, once or more. An error is ctx's.
func (c *compiling) begin(ctx context.Context, key moduleKey, needless func() bool) (over func(), err error) {
	for {
		c.mu.Lock()
		other := c.now[key]
		if other == nil {
			if needless() {
				c.mu.Unlock()
				return func() {}, nil
			}
			if c.now == nil {
				c.now = make(map[moduleKey]chan struct{})
			}
			mine := make(chan struct{})
			c.now[key] = mine
			c.mu.Unlock()
			return sync.OnceFunc(func() {
				c.mu.Lock()
				delete(c.now, key)
				c.mu.Unlock()
				close(mine)
			}), nil
		}
		c.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// compileLook is how often a child that compiles is looked at.
const compileLook = 250 * time.Millisecond

// watchCompile ends the run when compiling takes too long, by the child's CPU time: what else the machine does is not
// the module's fault. It blocks until done is closed.
func (r *run) watchCompile(done <-chan struct{}) {
	limit, wall := r.w.cfg.CompileTime, r.w.cfg.CompileWall
	begun := time.Now()
	before, known := r.p.cpuTime()
	look := time.NewTicker(min(compileLook, limit/4+1))
	defer look.Stop()
	for {
		select {
		case <-done:
			return
		case <-look.C:
		}
		passed := time.Since(begun)
		used := passed // the best guess where CPU time cannot be known
		if cpu, ok := r.p.cpuTime(); known && ok {
			used = cpu - before
		}
		switch {
		case used > limit:
			r.end(app.ReasonCompile, "compiling the module takes more than its limit of %v of CPU time", limit)
			return
		case passed > wall:
			r.fail(fmt.Errorf("this machine is too busy: compiling the module got %v of CPU time in %v", used.Round(time.Millisecond), passed.Round(time.Second)))
			return
		}
	}
}
