// Package content keeps what is pinned and lets the rest go. It knows blocks by their names and pins by their owners; what a block's
// links are it is told.
package content

import (
	"context"

	"github.com/shallot-net/shallot/broker/internal/domain/content"
)

// Block is a named piece of content. Key is its multihash, binary: the same bytes have the same name whatever codec links to them.
type Block struct {
	Key  string
	Data []byte
}

// Generation numbers the times between two collections. It replaces the clock where "written before" matters, because a clock jumps.
type Generation uint64

// Change is applied whole or not at all.
type Change struct {
	Blocks []Block
	Pins   []content.Pin
	// Unpins are (cid, owner) pairs; absent ones are no error.
	Unpins []content.Pin
	// Durable: it and every change before it survive a loss of power once Commit has returned. Otherwise it survives the end of the
	// process only.
	Durable bool
}

// Store keeps blocks and pins. All methods are safe for concurrent use and block on the disk. Errors: content.ErrNotFound,
// *content.CorruptError, *content.FullError, *content.QuotaError, *content.TornError, content.ErrClosed.
type Store interface {
	// Get returns the block's bytes, which are the caller's, after checking that they have its hash.
	Get(key string) ([]byte, error)
	// Size is Get without the bytes, and without the check.
	Size(key string) (int, error)
	// Commit keeps the bytes of c only until it returns. A block that is there already counts as touched, one that is damaged is
	// replaced.
	Commit(c Change) error
	// Touch gives blocks to the current generation, and returns those that are not there.
	Touch(keys []string) (missing []string, err error)
	// Hold keeps a collection from taking what is written or touched from now on, until release is called. Idempotent release.
	Hold() (release func())

	// Pins returns at most limit pins of the content (all when cid is empty) and the owner (all when empty), in a fixed order, after
	// the one with the cursor (empty: from the first). next is empty at the end.
	Pins(cid, owner, cursor string, limit int) (pins []content.Pin, next string, err error)

	// Advance begins a new generation and returns the newest one that may be collected: it is over, and nobody holds it.
	Advance() (cutoff Generation, err error)
	// Sweep removes blocks that were last touched in cutoff or before, unless keep says so, and gives their space back: what is cheap to
	// give back, or, when it is thorough, nearly all of it. It may be killed at any moment. It returns what it removed also when it
	// fails half-way.
	Sweep(ctx context.Context, cutoff Generation, keep func(key string) bool, thorough bool) (Swept, error)

	// Each visits the names and sizes of all blocks, in no order that means anything. Those that come or go meanwhile may be left out.
	Each(ctx context.Context, visit func(key string, size int) error) error
}

// Swept is what a Sweep did.
type Swept struct {
	Blocks, Bytes int64 // removed
	Kept          int64 // blocks that stay
	Moved         int64 // bytes written again to give space back
	Expired       int64 // pins that had ended; a Store leaves it
}
