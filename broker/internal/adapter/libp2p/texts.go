package libp2p

import (
	"sync"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shallot-net/shallot/kit/bounded"
)

// maxTexts bounds what is kept, at some 150 bytes each.
const maxTexts = 1024

// peerTexts are peer ids as text, those of late: gossipsub asks for a peer's standing with every message, and to write an id in base 58 each time was a
// tenth of a broker's processor time among a hundred others. The zero value works, and it is safe for concurrent use.
type peerTexts struct {
	mu    sync.Mutex
	known *bounded.Map[peer.ID, string]
}

func (t *peerTexts) of(p peer.ID) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.known == nil {
		t.known = bounded.New[peer.ID, string](maxTexts)
	}
	return t.known.GetOrMake(p, p.String)
}
