package executor

import (
	"sync"
	"time"

	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/engine/pulse"
)

// watchEvery is how often it is looked whether a run lasts.
const watchEvery = 25 * time.Millisecond

// watch ends a child's run that takes too long, to compile or to end. It sets a timer only for a run that lasts: most
// are over before, and setting timers for them would cost more than they do.
type watch struct {
	pulse *pulse.Pulse
	first time.Duration // how long a run may compile before that is watched

	mu       sync.Mutex
	run      *run // nil between runs
	since    time.Time
	compiled chan struct{} // closed when the module is compiled; nil while that is not watched
	deadline time.Time     // of the program; zero until it runs
	timer    *time.Timer   // for the deadline
}

func newWatch(cfg *Config) *watch {
	w := &watch{first: min(compileLook, cfg.CompileTime/4)}
	w.pulse = pulse.New(min(watchEvery, w.first+1), w.look)
	return w
}

// begin watches a run until end.
func (w *watch) begin(r *run) {
	w.mu.Lock()
	w.run, w.since, w.deadline = r, time.Now(), time.Time{}
	w.mu.Unlock()
	w.pulse.Need()
}

// started says that the program has run for a while already, and for how long it may run in all.
func (w *watch) started(ago, limit time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stopCompile()
	left := limit - ago
	w.deadline = time.Now().Add(left)
	if left < 4*watchEvery {
		w.arm()
		return
	}
	w.pulse.Need() // it rests while compiling is watched
}

func (w *watch) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stopCompile()
	if w.timer != nil {
		w.timer.Stop()
	}
	w.run, w.timer = nil, nil
}

func (w *watch) stopCompile() {
	if w.compiled != nil {
		close(w.compiled)
		w.compiled = nil
	}
}

// arm has the run ended at its deadline. A timer that comes too late finds that its run is over.
func (w *watch) arm() {
	r := w.run
	end := func() { r.end(app.ReasonTimeLimit, "the program ran longer than its limit of %v", r.run.Limits.Time) }
	left := time.Until(w.deadline)
	if left <= 0 {
		end()
	}
	w.timer = time.AfterFunc(left, end)
}

func (w *watch) look() {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.run == nil || w.timer != nil || w.compiled != nil:
	case time.Since(w.since) < min(watchEvery, w.first):
		w.pulse.Need() // a run that has only begun: not worth a timer yet
	case !w.deadline.IsZero():
		w.arm()
	case time.Since(w.since) < w.first:
		w.pulse.Need()
	default:
		w.compiled = make(chan struct{})
		go w.run.watchCompile(w.compiled)
	}
}
