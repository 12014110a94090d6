package workers_test

import (
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/shallot-net/shallot/kit/workers"
)

func TestEveryFunctionIsRunOnce(t *testing.T) {
	var g workers.Group
	var ran [2000]atomic.Int32
	var callers sync.WaitGroup
	for c := range 4 {
		callers.Go(func() {
			for i := range len(ran) / 4 {
				g.Go(func() { ran[c*len(ran)/4+i].Add(1) })
			}
		})
	}
	callers.Wait()
	g.Wait()
	for i := range ran {
		if n := ran[i].Load(); n != 1 {
			t.Fatalf("function %d ran %d times", i, n)
		}
	}
}

func TestFunctionsRunSideBySide(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g workers.Group
		var begun atomic.Int32
		end := make(chan struct{})
		for range 100 {
			g.Go(func() { begun.Add(1); <-end })
		}
		synctest.Wait()
		if begun.Load() != 100 {
			t.Errorf("%d of 100 functions have begun", begun.Load())
		}
		close(end)
		g.Wait()
	})
}

func TestAGoroutineIsUsedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g workers.Group
		names := make(map[string]int)
		for range 1000 {
			g.Go(func() { names[name()]++ })
			synctest.Wait()
		}
		g.Wait()
		if len(names) != 1 {
			t.Fatalf("%d goroutines where one is enough", len(names))
		}
	})
}

// name is the goroutine's, as a trace has it.
func name() string {
	var b [32]byte
	head, _, _ := strings.Cut(string(b[:runtime.Stack(b[:], false)]), "[")
	return head
}

// A bubble that is left with goroutines blocked in it fails.
func TestWaitLeavesNoGoroutine(t *testing.T) {
	synctest.Test(t, func(*testing.T) {
		var g workers.Group
		for range 3 {
			for range 50 {
				g.Go(func() {
					g.Go(func() {}) // one that is running may begin another
				})
			}
			g.Wait()
		}
	})
}

func TestAFunctionMayEndItsGoroutine(t *testing.T) {
	synctest.Test(t, func(*testing.T) {
		var g workers.Group
		g.Go(runtime.Goexit)
		g.Wait()
		g.Go(func() {})
		g.Wait()
	})
}
