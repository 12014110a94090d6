package app

import (
	"container/heap"
	"context"
	"sync"
	"time"
)

// Alarms wake what waits for a time, with one goroutine and one timer for however many.
type Alarms struct {
	mu    sync.Mutex
	heap  alarmHeap
	byKey map[string]*alarm
	kick  chan struct{}
}

type alarm struct {
	key   string
	at    time.Time
	index int
}

// NewAlarms makes them; nothing rings before Run.
func NewAlarms() *Alarms {
	return &Alarms{byKey: make(map[string]*alarm), kick: make(chan struct{}, 1)}
}

// Set makes key ring at this time and no other; the zero time never.
func (a *Alarms) Set(key string, at time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	al := a.byKey[key]
	switch {
	case at.IsZero():
		if al != nil {
			heap.Remove(&a.heap, al.index)
			delete(a.byKey, key)
		}
		return
	case al == nil:
		al = &alarm{key: key, at: at}
		a.byKey[key] = al
		heap.Push(&a.heap, al)
	default:
		al.at = at
		heap.Fix(&a.heap, al.index)
	}
	if a.heap[0] == al {
		select {
		case a.kick <- struct{}{}:
		default:
		}
	}
}

// Len is how many are set.
func (a *Alarms) Len() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.heap)
}

// Run calls ring for each key when its time has come, at most parallel at once, until ctx ends; it returns when no
// ring is left. A key that rings is not set any more.
func (a *Alarms) Run(ctx context.Context, parallel int, ring func(key string)) error {
	slots := make(chan struct{}, parallel)
	var wg sync.WaitGroup
	defer wg.Wait()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		key, wait := a.next(time.Now())
		if key != "" {
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				return nil
			}
			wg.Go(func() {
				defer func() { <-slots }()
				ring(key)
			})
			continue
		}
		timer.Reset(wait)
		select {
		case <-timer.C:
		case <-a.kick:
		case <-ctx.Done():
			return nil
		}
	}
}

// next takes a key that is due, or says how long there is none.
func (a *Alarms) next(now time.Time) (key string, wait time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.heap) == 0 {
		return "", time.Hour
	}
	first := a.heap[0]
	if d := first.at.Sub(now); d > 0 {
		// The wall clock may be set back or forward meanwhile: look again now and then.
		return "", min(d, time.Minute)
	}
	heap.Pop(&a.heap)
	delete(a.byKey, first.key)
	return first.key, 0
}

type alarmHeap []*alarm

func (h alarmHeap) Len() int           { return len(h) }
func (h alarmHeap) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h alarmHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i]; h[i].index, h[j].index = i, j }
func (h *alarmHeap) Push(x any)        { al := x.(*alarm); al.index = len(*h); *h = append(*h, al) }
func (h *alarmHeap) Pop() any {
	old := *h
	al := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return al
}
