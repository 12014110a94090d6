package app

import (
	"context"
	"io"
	"time"
)

// SmallLimit is what fits an event's attachment: a payload's or result's ciphertext, in bytes.
const SmallLimit = 64 << 10

// Pin says for whom content is kept, and how long (0: until unpinned).
type Pin struct {
	Owner string
	Keep  time.Duration
	// Readers are the peers, MaxReaders at most, that may fetch it from its persona's host in anonymous mode, as long as it is pinned. In open mode
	// everybody may.
	Readers []string
}

// MaxReaders is how many peers a pin may name.
const MaxReaders = 16

// Pinned is content that is kept for an owner.
type Pinned struct{ CID, Owner string }

// MaxUnpins is how many pins one Unpin may name.
const MaxUnpins = 10_000

// SmallRepository keeps small content, of at most SmallLimit bytes.
type SmallRepository interface {
	// PutSmall returns the CID when the block is served. It is not durable: the caller has the bytes and puts them again.
	// persona is whose content it is.
	PutSmall(ctx context.Context, persona string, data []byte, pin Pin) (cid string, err error)
}

// Repository keeps content of any size.
type Repository interface {
	SmallRepository
	// Put streams src into the repository and returns when it is durable. persona is whose content it is.
	Put(ctx context.Context, persona string, src io.Reader, pin Pin) (cid string, err error)
	// Get streams content; from are peers that should have it, and in anonymous mode the only ones that are asked. More than maxSize bytes are an error. The reader must be closed.
	Get(ctx context.Context, persona, cid string, from []string, maxSize int64) (io.ReadCloser, error)
	// Renew keeps content that is here for longer, under the pin's owner, for its readers in the place of those before. ErrNotFound when not all of it is here.
	Renew(ctx context.Context, persona, cid string, pin Pin) error
	// Unpin lets content go: at most MaxUnpins pins, all or none. What is not there is no error.
	Unpin(ctx context.Context, pins ...Pinned) error
	// Pinned lists what is pinned for owners of a kind, such as "task:", most at most.
	Pinned(ctx context.Context, kind string, most int) ([]Pinned, error)
}
