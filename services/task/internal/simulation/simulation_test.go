// Package simulation_test lives through whole lives of tasks, in virtual time: a consumer, two or three providers and a network that loses,
// repeats and reorders, where processes end between any two commits. Every seed is another world, and the same again.
package simulation_test

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

var (
	oneSeed = flag.Uint64("seed", 0, "run this seed alone, and print its trace")
	twice   = flag.Int("twice", 40, "how many seeds are run twice and compared")
	seeds   = flag.Int("seeds", 0, "how many seeds, from 1")
)

const (
	fewSeeds  = 150
	manySeeds = 10_000
)

// start is after the times that ids count from: a bubble begins in 2000.
var start = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

// live runs one seed.
func live(t *testing.T, seed uint64, dir string, tl *tally) (w *world) {
	synctest.Test(t, func(t *testing.T) {
		<-time.After(time.Until(start))
		w = newWorld(t, seed, dir, tl)
		var nodes, users sync.WaitGroup
		for i, s := range append(slices.Clone(w.providers), w.consumer) {
			nodes.Go(func() {
				<-time.After(time.Duration(i)*7*time.Millisecond + time.Duration(i+1)) // their clocks do not tick together
				s.live()
			})
			s.crashes()
			s.absences()
		}
		for _, task := range w.tasks {
			users.Go(func() { w.user(task) })
		}
		<-time.After(time.Until(w.begin.Add(faultsEnd)))
		users.Wait()
		w.settle()
		w.judge()
		w.judgePins()
		w.cancelCtx()
		nodes.Wait()
		w.forget()
		tl.add("seeds", 1)
	})
	return w
}

// forget lets every time run out, and looks at what is left.
func (w *world) forget() {
	w.mu.Lock()
	w.quiet = true
	w.mu.Unlock()
	for range 3 { // a result that nobody came for leaves a tombstone, and that goes, too
		<-time.After(50 * time.Hour)
		synctest.Wait() // what was under way has ended
		again := w.again()
		<-time.After(3 * time.Minute)
		if c := w.consumer.current(); c != nil {
			if err := c.consumer().Prune(c.ctx); err != nil {
				w.failf("prune: %v", err)
			}
		}
		again()
	}
	w.judgeEmpty()
}

func TestSimulation(t *testing.T) {
	tl := &tally{n: make(map[string]int)}
	t.Cleanup(func() { t.Log(tl) })
	if *oneSeed > 0 {
		one(t, *oneSeed, tl, true)
		return
	}
	n := fewSeeds
	switch {
	case *seeds > 0:
		n = *seeds
	case os.Getenv("SHALLOT_LONG") != "":
		n = manySeeds
	case testing.Short():
		n = fewSeeds / 10
	}
	var next, failed atomic.Uint64
	for i := range runtime.GOMAXPROCS(0) {
		t.Run("worker"+strconv.Itoa(i), func(t *testing.T) {
			t.Parallel()
			for seed := next.Add(1); seed <= uint64(n) && failed.Load() < 5; seed = next.Add(1) {
				if !one(t, seed, tl, false) {
					failed.Add(1)
				}
			}
		})
	}
}

// one runs a seed and reports what was wrong.
func one(t *testing.T, seed uint64, tl *tally, talk bool) bool {
	t.Helper()
	w := live(t, seed, t.TempDir(), tl)
	if talk || len(w.failed) > 0 {
		t.Log(w.story(talk))
	}
	for _, f := range w.failed {
		t.Errorf("seed %d: %s", seed, f)
	}
	if len(w.failed) > 0 {
		t.Errorf("to see it again: go test ./internal/simulation -run TestSimulation -seed=%d", seed)
	}
	return len(w.failed) == 0
}

// story is the trace; a long one without its beginning, unless all is wanted.
func (w *world) story(all bool) string {
	const most = 400
	from := 0
	if !all && len(w.trace) > most {
		from = len(w.trace) - most
	}
	var b strings.Builder
	for _, l := range w.trace[from:] {
		fmt.Fprintf(&b, "%14.6fs %s\n", l.at.Seconds(), l.text)
	}
	return b.String()
}

// TestSimulationIsRepeatable: what a seed has shown it shows again.
func TestSimulationIsRepeatable(t *testing.T) {
	t.Parallel()
	if *oneSeed > 0 {
		t.Skip("one seed was asked for")
	}
	tl, other := &tally{n: make(map[string]int)}, 0
	for seed := uint64(1); seed <= uint64(*twice); seed++ {
		a, b := live(t, seed, t.TempDir(), tl).ordered(), live(t, seed, t.TempDir(), tl).ordered()
		if !slices.Equal(a, b) {
			other++
			t.Logf("seed %d went two ways:\n%s", seed, difference(a, b))
		}
	}
	// Goroutines that wake at the same nanosecond run in any order: about one seed in 100 shows that. Two timers of one length would show it in one of ten.
	if other > *twice/10 {
		t.Errorf("%d of %d seeds went two ways", other, *twice)
	}
}

func difference(a, b []line) string {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return fmt.Sprintf("after %d lines %s %s\nor %s %s", i, a[i].at, a[i].text, b[i].at, b[i].text)
		}
	}
	return fmt.Sprintf("%d or %d lines", len(a), len(b))
}
