// Package versionstest is what every store of the version counter must do.
package versionstest

import (
	"sync"
	"testing"

	"github.com/shallot-net/shallot/services/metric/internal/app"
)

// Store is one that can be opened again, as after a crash.
type Store struct {
	app.Versions
	Reopen func() app.Versions
}

// Run tests what open makes: a counter that has given nothing out, each time another.
func Run(t *testing.T, open func(t *testing.T) Store) {
	t.Run("versions never repeat", func(t *testing.T) {
		s := open(t)
		next := uint64(1)
		take := func(v app.Versions, n, atLeast uint64) {
			t.Helper()
			first, err := v.Reserve(t.Context(), n, atLeast)
			if err != nil {
				t.Fatal(err)
			}
			if first < next || first < atLeast {
				t.Fatalf("reserved %d from %d on, after %d were given out", n, first, next-1)
			}
			next = first + n
		}
		take(s, 10, 0)
		take(s, 1, 0)
		take(s, 256, 5000)
		take(s, 256, 1)
		again := s.Reopen()
		take(again, 256, 0)
		take(again, 256, 0)
		if next < 5000+4*256 {
			t.Errorf("the counter is at %d", next)
		}
	})
	t.Run("side by side", func(t *testing.T) {
		s := open(t)
		var mu sync.Mutex
		var wg sync.WaitGroup
		taken := map[uint64]bool{}
		for range 16 {
			wg.Go(func() {
				first, err := s.Reserve(t.Context(), 3, 0)
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				for v := first; v < first+3; v++ {
					if taken[v] {
						t.Errorf("version %d was given out twice", v)
					}
					taken[v] = true
				}
			})
		}
		wg.Wait()
	})
}
