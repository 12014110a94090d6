package content

import (
	"errors"
	"fmt"
)

// ErrNotFound says that a block is not kept here.
var ErrNotFound = errors.New("the block is not here")

// ErrClosed says that the store has been closed.
var ErrClosed = errors.New("the content store is closed")

// InvalidError says which part of a request is wrong.
type InvalidError struct {
	Field, Value, Why string
}

func (e *InvalidError) Error() string {
	return fmt.Sprintf("%s %q is not usable: %s", e.Field, e.Value, e.Why)
}

// CorruptError says that what is on disk under a block's name is not that block.
type CorruptError struct {
	Key  string // the block's multihash, binary
	Path string // the file it lies in
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("the block %x in %s is corrupted: its bytes do not have its hash", e.Key, e.Path)
}

// FullError says that nothing more can be written to the disk below Path.
type FullError struct {
	Path string
	Err  error
}

func (e *FullError) Error() string {
	return fmt.Sprintf("the disk of %s is full (%v): free some space, or unpin content", e.Path, e.Err)
}

func (e *FullError) Unwrap() error { return e.Err }

// QuotaError says that the store may not grow any more.
type QuotaError struct {
	Used, Quota int64 // bytes
}

func (e *QuotaError) Error() string {
	return fmt.Sprintf("the content store has %s of the %s that it may have: unpin content and collect what nobody keeps, or raise the quota",
		SizeText(e.Used), SizeText(e.Quota))
}

// SizeText is a number of bytes as people read it.
func SizeText(n int64) string {
	if n < 1<<20 {
		return fmt.Sprintf("%d bytes", n)
	}
	if n < 1<<30 {
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
}

// TornError says that the store itself cannot be read.
type TornError struct {
	Path string
	Err  error
}

func (e *TornError) Error() string {
	return fmt.Sprintf("the content store %s is damaged: %v", e.Path, e.Err)
}

func (e *TornError) Unwrap() error { return e.Err }
