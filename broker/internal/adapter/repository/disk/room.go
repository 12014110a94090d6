package disk

import (
	"fmt"
	"sync"
	"time"

	"github.com/shallot-net/shallot/broker/internal/domain/content"
)

// room refuses writes before the disk is so full that the index itself could not be written. It looks seldom: looking costs as much
// as a small write.
type room struct {
	fsys    FS
	dir     string
	reserve uint64

	mu     sync.Mutex
	left   int64
	looked time.Time
}

func (r *room) check(n int) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.left -= int64(n)
	if r.left > 0 && time.Since(r.looked) < time.Second {
		return nil
	}
	free, err := r.fsys.Free(r.dir)
	if err != nil {
		return err
	}
	r.looked = time.Now()
	if free < r.reserve+uint64(n) {
		r.left = 0
		return &content.FullError{Path: r.dir, Err: fmt.Errorf("%d MiB are free, and %d MiB are left to others", free>>20, r.reserve>>20)}
	}
	// Others write too: trust a part of it only, and for a second.
	r.left = int64(min((free-r.reserve)/2, 64<<20))
	return nil
}

func (r *room) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.left = 0
}
