package app

import (
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/shallot-net/shallot/broker/internal/domain/book"
	"github.com/shallot-net/shallot/kit/logging"
)

// Book keeps the peers that the node's own persona has reached. Losing it costs nothing but a bootstrap address.
type Book interface {
	Load() ([]book.Entry, error)
	Save(entries []book.Entry) error
}

// saveAfter is how long what was learned may wait for the disk, so that many connections are one write.
const saveAfter = 3 * time.Second

// known is the book and what of it is not on disk yet.
type known struct {
	store Book // nil: nothing is kept
	log   *slog.Logger

	saving sync.Mutex // held over a write, or an older one could come last; taken before mu

	mu     sync.Mutex
	book   book.Book
	timer  *time.Timer // until it fires, what changed is not saved
	closed bool
}

// load takes what an earlier life left. A file that cannot be read is left behind: the next save replaces it.
func (k *known) load() {
	if k.store == nil {
		return
	}
	entries, err := k.store.Load()
	if err != nil {
		k.log.Warn("the peers that this node has reached before are forgotten", logging.Err(err))
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.book.Restore(entries, time.Now())
}

// reached notes where a peer was dialled with success. It does not block.
func (k *known) reached(peer string, addresses []string) {
	if k.store == nil || len(addresses) == 0 {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return
	}
	for _, a := range addresses {
		k.book.Reached(peer, a, time.Now())
	}
	if k.timer == nil {
		k.timer = time.AfterFunc(saveAfter, k.save)
	}
}

// routed notes where a peer of the routing table says that it is. It does not block.
func (k *known) routed(peer string, addresses []string) {
	if k.store == nil || len(addresses) == 0 {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.closed && k.book.Heard(peer, addresses, time.Now()) && k.timer == nil {
		k.timer = time.AfterFunc(saveAfter, k.save)
	}
}

// seeds are all peers in the book.
func (k *known) seeds() []Target {
	k.mu.Lock()
	defer k.mu.Unlock()
	var out []Target
	for _, e := range k.book.Entries() {
		out = append(out, Target{Peer: e.Peer, Addresses: e.Addresses})
	}
	return out
}

func (k *known) save() {
	k.saving.Lock()
	defer k.saving.Unlock()
	k.mu.Lock()
	if k.timer == nil {
		k.mu.Unlock()
		return
	}
	k.timer.Stop()
	k.timer = nil
	entries := k.book.Entries()
	k.mu.Unlock()
	if err := k.store.Save(entries); err != nil {
		k.log.Warn("the peers that this node has reached are not saved", logging.Err(err))
	}
}

func (k *known) close() {
	k.mu.Lock()
	k.closed = true
	k.mu.Unlock()
	k.save()
}

// KnownPeers lists the peers that a persona has reached, the latest first. Only the node's own has any: whoever uses another
// does so to leave no trace.
func (b *Broker) KnownPeers(name string) ([]book.Entry, error) {
	if _, err := b.persona(name); err != nil {
		return nil, err
	}
	if name != "" {
		return nil, nil
	}
	b.known.mu.Lock()
	defer b.known.mu.Unlock()
	return slices.DeleteFunc(b.known.book.Entries(), func(e book.Entry) bool { return e.Heard }), nil
}
