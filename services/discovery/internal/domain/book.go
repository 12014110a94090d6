package domain

import (
	"math/rand/v2"
	"time"
)

// Forgotten is the state of a peer that is in the book and no longer in the table.
const Forgotten State = "forgotten"

// Book keeps where peers were that the table has forgotten. Nobody is told of them; they are dialled once in a while, because
// after an outage that outlasts the table's patience they are all that is left of the rest of the network. It is not safe for
// concurrent use.
type Book struct {
	max   int
	peers map[string]Peer
}

// NewBook makes a book of at most max peers.
func NewBook(max int) *Book { return &Book{max: max, peers: make(map[string]Peer)} }

// Len is the number of peers.
func (b *Book) Len() int { return len(b.peers) }

// Has tells whether a peer is in the book.
func (b *Book) Has(id string) bool { _, ok := b.peers[id]; return ok }

// Add enters a peer and returns who had to make room for it, "" for nobody. A full book lets go of one by chance: were it the
// oldest, whoever made up peers in number could turn the whole book over.
func (b *Book) Add(p Peer) (evicted string) {
	if len(p.Addresses) == 0 || b.max <= 0 {
		return p.PeerID
	}
	if _, there := b.peers[p.PeerID]; !there && len(b.peers) >= b.max {
		skip := rand.IntN(len(b.peers))
		for id := range b.peers {
			if skip--; skip < 0 {
				evicted = id
				delete(b.peers, id)
				break
			}
		}
	}
	p.State, p.Connected, p.Vouched, p.RTT = Forgotten, false, false, 0
	b.peers[p.PeerID] = p
	return evicted
}

// Get returns a peer.
func (b *Book) Get(id string) (Peer, bool) {
	p, ok := b.peers[id]
	return p, ok
}

// Remove strikes a peer out.
func (b *Book) Remove(id string) { delete(b.peers, id) }

// Expire strikes out who was not seen since a time, and returns them.
func (b *Book) Expire(before time.Time) (gone []string) {
	for id, p := range b.peers {
		if p.LastSeen.Before(before) {
			delete(b.peers, id)
			gone = append(gone, id)
		}
	}
	return gone
}

// All returns every peer, in no order.
func (b *Book) All() []Peer {
	out := make([]Peer, 0, len(b.peers))
	for _, p := range b.peers {
		out = append(out, p)
	}
	return out
}
