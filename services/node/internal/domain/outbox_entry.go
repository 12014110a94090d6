package domain

import (
	"cmp"
	"slices"
	"time"
)

type entry struct {
	Message
	lane     *lane
	arrival  uint64
	session  uint64 // in which it was told last
	inLine   bool   // in lane.waiting
	flying   bool
	gone     bool // withdrawn while flying: its outcome is of no interest
	epoch    uint64
	deadline time.Time // zero: none
	heapAt   int       // -1 when not in the heap
	behind   []*entry  // later messages of the same task, which wait for this one
	follows  *entry    // the one that this waits behind
}

type lane struct {
	Lane
	waiting   []*entry // by arrival
	flying    int
	held      int // entries, those behind others included
	bytes     int
	window    int
	failures  int
	epoch     uint64 // counts back-offs
	retryAt   time.Time
	queued    bool // in ready
	truncated bool // something was let go: nothing later may overtake it
	tasks     map[string]*entry
}

// line puts an entry where it belongs by its arrival: nearly always at the end, and at the front after a failure.
func (l *lane) line(e *entry) {
	e.inLine = true
	i, _ := slices.BinarySearchFunc(l.waiting, e.arrival, func(x *entry, at uint64) int { return cmp.Compare(x.arrival, at) })
	l.waiting = slices.Insert(l.waiting, i, e)
}

func without(list []*entry, e *entry) []*entry {
	if i := slices.Index(list, e); i >= 0 {
		return slices.Delete(list, i, i+1)
	}
	return list
}

// expiryHeap is a container/heap of entries by deadline.
type expiryHeap []*entry

func (h expiryHeap) Len() int           { return len(h) }
func (h expiryHeap) Less(i, j int) bool { return h[i].deadline.Before(h[j].deadline) }
func (h expiryHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].heapAt, h[j].heapAt = i, j
}

// Push is for container/heap.
func (h *expiryHeap) Push(x any) {
	e, ok := x.(*entry)
	if !ok {
		return
	}
	e.heapAt = len(*h)
	*h = append(*h, e)
}

// Pop is for container/heap.
func (h *expiryHeap) Pop() any {
	old := *h
	e := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	e.heapAt = -1
	return e
}
