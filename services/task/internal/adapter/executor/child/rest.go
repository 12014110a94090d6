package child

import (
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/shallot-net/shallot/services/task/internal/engine/pulse"
)

// restAfter is how long a process has nothing to do before it makes itself small.
const restAfter = 2 * time.Second

// rest gives memory back in quiet times: what the heaps keep for the next run, and the pages of the program file, most of
// which were needed once, at the start. They come back by themselves, which costs the first run after a rest some
// milliseconds. An idle provider has such a process for as long as it is up.
type rest struct {
	pulse  *pulse.Pulse
	last   atomic.Int64 // when there was something to do, by the monotonic clock
	busy   atomic.Bool
	begin  time.Time
	unmap  func()
	freeUp func()
}

func newRest(freeUp func()) *rest {
	r := &rest{begin: time.Now(), unmap: fileMappings(), freeUp: freeUp}
	r.pulse = pulse.New(restAfter, r.look)
	r.touch()
	return r
}

// touch is called when a run begins and ends.
func (r *rest) touch() {
	r.last.Store(int64(time.Since(r.begin)))
	r.pulse.Need()
}

func (r *rest) look() {
	if r.busy.Load() || time.Since(r.begin)-time.Duration(r.last.Load()) < restAfter {
		r.pulse.Need()
		return
	}
	r.freeUp()
	debug.FreeOSMemory()
	r.unmap()
}
