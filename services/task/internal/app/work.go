package app

import "sync"

// Work runs a function for each key that is added, at most parallel at once, in goroutines that exist only while
// there is work. A key that waits is not added twice.
type Work struct {
	do       func(key string)
	parallel int

	mu      sync.Mutex
	queue   []string
	waiting map[string]bool
	workers int
	stopped bool
	wg      sync.WaitGroup
}

// NewWork makes a Work.
func NewWork(parallel int, do func(key string)) *Work {
	return &Work{do: do, parallel: parallel, waiting: make(map[string]bool)}
}

// Add queues a key. It does not block.
func (w *Work) Add(key string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.waiting[key] || w.stopped {
		return
	}
	w.waiting[key] = true
	w.queue = append(w.queue, key)
	if w.workers < w.parallel {
		w.workers++
		w.wg.Go(w.work)
	}
}

func (w *Work) work() {
	for {
		w.mu.Lock()
		if len(w.queue) == 0 || w.stopped {
			w.workers--
			w.mu.Unlock()
			return
		}
		key := w.queue[0]
		w.queue = w.queue[1:]
		delete(w.waiting, key)
		w.mu.Unlock()
		w.do(key)
	}
}

// Stop takes nothing more and waits for what runs.
func (w *Work) Stop() {
	w.mu.Lock()
	w.stopped = true
	w.mu.Unlock()
	w.wg.Wait()
}
