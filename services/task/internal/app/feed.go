package app

// Feed collects the ids of tasks that change, each once until it is taken, so that whoever is slow costs no more than its bound.
type Feed struct {
	w       *Watchers
	most    int
	changed chan struct{} // room for one

	// Under w.mu:
	ids    []string // in the order in which they changed first
	has    map[string]struct{}
	missed bool
}

// MaxFeeds is how many feeds there may be at once.
const MaxFeeds = 64

// Feed begins to collect every task that changes from now on, so many at most until they are taken; nil when there are MaxFeeds already. Close it.
func (w *Watchers) Feed(most int) *Feed {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.feeds) >= MaxFeeds {
		return nil
	}
	f := &Feed{w: w, most: most, changed: make(chan struct{}, 1), has: make(map[string]struct{})}
	w.feeds[f] = struct{}{}
	return f
}

// add notes one. w.mu is held.
func (f *Feed) add(id string) {
	if _, known := f.has[id]; known {
		return
	}
	if len(f.ids) >= f.most {
		f.ids, f.missed = nil, true // a list that lacks some is worth nothing more than none
		clear(f.has)
	} else if !f.missed {
		f.ids = append(f.ids, id)
		f.has[id] = struct{}{}
	}
	select {
	case f.changed <- struct{}{}:
	default:
	}
}

// Changed gets a value when Take has something to say.
func (f *Feed) Changed() <-chan struct{} { return f.changed }

// Take returns the tasks that have changed since the last one. missed: there were more than the bound, and which they were is not known.
func (f *Feed) Take() (ids []string, missed bool) {
	f.w.mu.Lock()
	defer f.w.mu.Unlock()
	ids, missed = f.ids, f.missed
	f.ids, f.missed = nil, false
	clear(f.has)
	return ids, missed
}

// Close ends it.
func (f *Feed) Close() {
	f.w.mu.Lock()
	defer f.w.mu.Unlock()
	delete(f.w.feeds, f)
}
