package domain

import "sync"

// Update is a task as it is after a change. Revision counts up with every change.
type Update[T any] struct {
	ID       string
	Revision uint64
	Terminal bool
	Value    T
}

// Hub tells watchers in memory of what changes. A watch holds the newest state only, so a slow watcher costs one
// state, skips those in between and never holds anybody up. It is safe for concurrent use.
type Hub[T any] struct {
	mu      sync.Mutex
	watches map[string]map[*Watch[T]]struct{}
	count   int
	most    int
}

// Watch is one watcher's view of one task.
type Watch[T any] struct {
	hub     *Hub[T]
	id      string
	changed chan struct{} // room for one

	// Under hub.mu:
	latest  Update[T]
	fresh   bool
	resync  bool
	highest uint64
	closed  bool
}

// NewHub makes a hub with at most so many watches at once.
func NewHub[T any](most int) *Hub[T] {
	return &Hub[T]{watches: make(map[string]map[*Watch[T]]struct{}), most: most}
}

// Watch begins to watch a task; nil when there are too many watches. Close it.
func (h *Hub[T]) Watch(id string) *Watch[T] {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.count >= h.most {
		return nil
	}
	w := &Watch[T]{hub: h, id: id, changed: make(chan struct{}, 1)}
	set := h.watches[id]
	if set == nil {
		set = make(map[*Watch[T]]struct{}, 1)
		h.watches[id] = set
	}
	set[w] = struct{}{}
	h.count++
	return w
}

// Publish tells the task's watchers. It never blocks; a revision that is not newer changes nothing.
func (h *Hub[T]) Publish(u Update[T]) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for w := range h.watches[u.ID] {
		w.offer(u)
	}
}

// Resync tells every watcher that changes may have been missed: each asks the owner for the state as it is.
func (h *Hub[T]) Resync() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, set := range h.watches {
		for w := range set {
			w.resync = true
			w.wake()
		}
	}
}

// Count is how many watches there are.
func (h *Hub[T]) Count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.count
}

// Resync is Hub.Resync for this watch alone.
func (w *Watch[T]) Resync() {
	w.hub.mu.Lock()
	defer w.hub.mu.Unlock()
	w.resync = true
	w.wake()
}

// Offer gives this watch a state that its holder has learned elsewhere.
func (w *Watch[T]) Offer(u Update[T]) {
	w.hub.mu.Lock()
	defer w.hub.mu.Unlock()
	w.offer(u)
}

func (w *Watch[T]) offer(u Update[T]) {
	if u.Revision <= w.highest && w.highest > 0 {
		return
	}
	w.highest, w.latest, w.fresh = u.Revision, u, true
	w.wake()
}

func (w *Watch[T]) wake() {
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

// Changed gets a value when Next has something to say.
func (w *Watch[T]) Changed() <-chan struct{} { return w.changed }

// Next takes the newest state, if there is one that was not taken yet, and whether changes may have been missed.
func (w *Watch[T]) Next() (u Update[T], fresh, resync bool) {
	w.hub.mu.Lock()
	defer w.hub.mu.Unlock()
	u, fresh, resync = w.latest, w.fresh, w.resync
	var none Update[T]
	w.latest, w.fresh, w.resync = none, false, false
	if !fresh {
		return none, false, resync
	}
	return u, true, resync
}

// Close ends the watch.
func (w *Watch[T]) Close() {
	w.hub.mu.Lock()
	defer w.hub.mu.Unlock()
	if w.closed {
		return
	}
	w.closed = true
	set := w.hub.watches[w.id]
	delete(set, w)
	if len(set) == 0 {
		delete(w.hub.watches, w.id)
	}
	w.hub.count--
}
