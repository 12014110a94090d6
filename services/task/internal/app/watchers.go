package app

import (
	"sync"

	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// Watchers wake those who follow something by its key. A wake-up says only that there is news: whoever is slow finds
// the latest and misses what was between.
type Watchers struct {
	mu    sync.Mutex
	byKey map[string]map[chan struct{}]struct{}
	feeds map[*Feed]struct{}
}

// NewWatchers makes it.
func NewWatchers() *Watchers {
	return &Watchers{byKey: make(map[string]map[chan struct{}]struct{}), feeds: make(map[*Feed]struct{})}
}

// Watch returns a channel that gets a wake-up after each Tell of this key, and a function that ends it.
func (w *Watchers) Watch(key string) (<-chan struct{}, func()) {
	c := make(chan struct{}, 1)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.byKey[key] == nil {
		w.byKey[key] = make(map[chan struct{}]struct{}, 1)
	}
	w.byKey[key][c] = struct{}{}
	return c, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if delete(w.byKey[key], c); len(w.byKey[key]) == 0 {
			delete(w.byKey, key)
		}
	}
}

// Tell wakes everybody who watches this key.
func (w *Watchers) Tell(key string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.feeds) > 0 && domain.ValidID(key) {
		for f := range w.feeds {
			f.add(key)
		}
	}
	for c := range w.byKey[key] {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}
