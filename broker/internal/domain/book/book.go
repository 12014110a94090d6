// Package book remembers peers that were dialled with success, and where: what is left to begin with when a node restarts and
// nobody that it was told of is there any more. It says nothing of what those peers are.
package book

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// Bounds of a book.
const (
	MaxPeers     = 64
	MaxAddresses = 4 // of one peer, the latest first
	MaxText      = 256
	KeepFor      = 30 * 24 * time.Hour
	restateAfter = time.Hour // the same word about a peer is no news before
)

// Entry is one peer.
type Entry struct {
	Peer      string    `json:"peer"`
	Addresses []string  `json:"addresses"`
	At        time.Time `json:"at"` // when it was reached last
	// Heard: it was not reached; it answered in the routing table, and the addresses are its own word.
	Heard bool `json:"heard,omitempty"`
}

// Book is not safe for concurrent use. The zero value is empty and ready.
type Book struct{ entries []Entry } // the latest first; after them those that were only heard of

// Restore takes entries of an earlier life; what cannot be one is left out.
func (b *Book) Restore(entries []Entry, now time.Time) {
	slices.SortStableFunc(entries, func(x, y Entry) int { return cmp.Compare(x.At.UnixNano(), y.At.UnixNano()) })
	for _, e := range entries {
		if e.At.After(now) {
			e.At = now // the clock was set back since
		}
		if now.Sub(e.At) > KeepFor {
			continue
		}
		if e.Heard {
			b.Heard(e.Peer, e.Addresses, e.At)
			continue
		}
		for _, a := range slices.Backward(e.Addresses) {
			b.Reached(e.Peer, a, e.At)
		}
	}
}

// Reached notes that a peer was dialled with success.
func (b *Book) Reached(peer, address string, at time.Time) {
	if peer == "" || len(peer) > MaxText || !strings.HasPrefix(address, "/") || len(address) > MaxText {
		return
	}
	e := Entry{Peer: peer, At: at}
	if i := slices.IndexFunc(b.entries, func(e Entry) bool { return e.Peer == peer }); i >= 0 {
		if !b.entries[i].Heard { // what it said of itself is not where it was reached
			e.Addresses = slices.DeleteFunc(b.entries[i].Addresses, func(a string) bool { return a == address })
		}
		b.entries = slices.Delete(b.entries, i, i+1)
	}
	e.Addresses = append([]string{address}, e.Addresses...)
	e.Addresses = e.Addresses[:min(len(e.Addresses), MaxAddresses)]
	b.entries = append([]Entry{e}, b.entries...)
	b.entries = b.entries[:min(len(b.entries), MaxPeers)]
}

// Heard notes where a peer says that it is, and tells whether that is news. It takes the place of nobody that was reached, or whoever connects with enough identities
// would soon be all that is known; of those that were only heard of the oldest makes room.
func (b *Book) Heard(peer string, addresses []string, at time.Time) (news bool) {
	if peer == "" || len(peer) > MaxText {
		return false
	}
	e := Entry{Peer: peer, At: at, Heard: true}
	for _, a := range addresses {
		if strings.HasPrefix(a, "/") && len(a) <= MaxText && len(e.Addresses) < MaxAddresses {
			e.Addresses = append(e.Addresses, a)
		}
	}
	if len(e.Addresses) == 0 {
		return false
	}
	if i := slices.IndexFunc(b.entries, func(e Entry) bool { return e.Peer == peer }); i >= 0 {
		if old := b.entries[i]; !old.Heard || at.Sub(old.At) < restateAfter && slices.Equal(old.Addresses, e.Addresses) {
			return false
		}
		b.entries = slices.Delete(b.entries, i, i+1)
	}
	reached := slices.IndexFunc(b.entries, func(e Entry) bool { return e.Heard })
	if reached < 0 {
		reached = len(b.entries)
	}
	b.entries = slices.Insert(b.entries, reached, e)
	b.entries = b.entries[:min(len(b.entries), MaxPeers)]
	return slices.ContainsFunc(b.entries, func(e Entry) bool { return e.Peer == peer })
}

// Entries returns a copy, the latest first.
func (b *Book) Entries() []Entry {
	out := make([]Entry, len(b.entries))
	for i, e := range b.entries {
		e.Addresses = slices.Clone(e.Addresses)
		out[i] = e
	}
	return out
}
