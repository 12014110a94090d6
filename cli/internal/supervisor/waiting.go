package supervisor

import (
	"context"
	"fmt"
	"sort"
	"strings"
	"sync"
	"time"
)

// waiting collects what each node still waits for and says so now and then.
type waiting struct {
	mu   sync.Mutex
	what map[string]string
}

func newWaiting(nodes []*Node) *waiting {
	w := &waiting{what: map[string]string{}}
	for _, n := range nodes {
		w.what[n.Name()] = "not started"
	}
	return w
}

func (w *waiting) note(node string) func(string) {
	return func(complaint string) {
		w.mu.Lock()
		defer w.mu.Unlock()
		if complaint == "" {
			delete(w.what, node)
			return
		}
		w.what[node] = complaint
	}
}

// maxNamed bounds how many nodes one message names.
const maxNamed = 4

func (w *waiting) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	names := make([]string, 0, len(w.what))
	for n := range w.what {
		names = append(names, n)
	}
	sort.Strings(names)
	var parts []string
	for i, n := range names {
		if i == maxNamed {
			parts = append(parts, fmt.Sprintf("and %d more", len(names)-maxNamed))
			break
		}
		parts = append(parts, n+": "+w.what[n])
	}
	return strings.Join(parts, "; ")
}

// remind prints what is waited for, until ctx ends.
func (w *waiting) remind(ctx context.Context, every time.Duration, print *Printer) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if s := w.String(); s != "" {
				print.Printf("still waiting for %s", s)
			}
		}
	}
}
