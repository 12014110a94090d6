package app

import (
	"context"
	"sync"
)

// Locks are locks by key, for work that several callers want done once.
type Locks[K comparable] struct {
	mu   sync.Mutex
	held map[K]chan struct{} // closed when it is free
}

// Lock waits for the key's lock. The caller must call unlock, once. An error is ctx's.
func (l *Locks[K]) Lock(ctx context.Context, key K) (unlock func(), err error) {
	for {
		l.mu.Lock()
		other := l.held[key]
		if other == nil {
			if l.held == nil {
				l.held = make(map[K]chan struct{})
			}
			mine := make(chan struct{})
			l.held[key] = mine
			l.mu.Unlock()
			return func() {
				l.mu.Lock()
				delete(l.held, key)
				l.mu.Unlock()
				close(mine)
			}, nil
		}
		l.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}
