package app

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"
)

// Leftovers lets go the pins that an earlier life of this process has left: it was killed after it had put content and before it committed what that is
// for, or after it had committed that nobody wants it and before it unpinned.
type Leftovers struct {
	// Kind is the owners', up to the colon and with it.
	Kind       string
	Repository Repository
	// Wanted tells whether content is kept for the task of an id. What this life has put is not asked about.
	Wanted func(ctx context.Context, id, cid string) (bool, error)
	Log    *slog.Logger

	mu   sync.Mutex
	mine map[string]struct{} // ids of tasks for which this life has put something
	done bool                // the leftovers are gone, or given up: mine is nil
}

const (
	leftoversRetry = 5 * time.Second // the broker may be away, or not there yet
	// leftoversMost bounds the pins that are looked at, and the ids that are remembered until then. What is beyond goes after another start, or
	// when its time is over.
	leftoversMost = 1 << 16
)

// Owner is whose pin the content of a task is, which this life is about to put.
func (l *Leftovers) Owner(id string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.done:
	case len(l.mine) >= leftoversMost: // so long away is no broker that comes back with its pins
		l.mine, l.done = nil, true
	default:
		if l.mine == nil {
			l.mine = make(map[string]struct{})
		}
		l.mine[id] = struct{}{}
	}
	return l.Kind + id
}

var errGivenUp = errors.New("too much has been put meanwhile")

// isMine tells whether this life has put something for a task.
func (l *Leftovers) isMine(id string) (bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.done {
		return false, errGivenUp
	}
	_, mine := l.mine[id]
	return mine, nil
}

// Run blocks until the leftovers are gone or given up, or ctx ends.
func (l *Leftovers) Run(ctx context.Context) {
	for {
		n, err := l.letGo(ctx)
		if err == nil {
			if n > 0 {
				l.Log.Info("content was unpinned that an earlier life of this process had left", "kind", l.Kind, "pins", n)
			}
			l.mu.Lock()
			l.mine, l.done = nil, true
			l.mu.Unlock()
		}
		if err == nil || errors.Is(err, errGivenUp) {
			return
		}
		t := time.NewTimer(leftoversRetry)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return
		}
	}
}

func (l *Leftovers) letGo(ctx context.Context) (n int, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	pins, err := l.Repository.Pinned(ctx, l.Kind, leftoversMost)
	if err != nil {
		return 0, err
	}
	var left []Pinned
	for _, p := range pins {
		id := p.Owner[len(l.Kind):]
		mine, err := l.isMine(id)
		if err != nil {
			return 0, err
		}
		if mine {
			continue
		}
		if wanted, err := l.Wanted(ctx, id, p.CID); err != nil {
			return 0, err
		} else if !wanted {
			left = append(left, p)
		}
	}
	for n < len(left) {
		some := left[n:min(len(left), n+MaxUnpins)]
		if err := l.Repository.Unpin(ctx, some...); err != nil {
			return n, err
		}
		n += len(some)
	}
	return n, nil
}
