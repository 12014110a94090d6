package content

import (
	"hash/maphash"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/shallot-net/shallot/broker/internal/domain/content"
)

const (
	// maxGrantBlocks is how many blocks of one pin are given away: 128 GiB with leaves of 1 MiB. What lies behind them is not.
	maxGrantBlocks = 1 << 17
	// maxGrantEntries: about 24 bytes each. Beyond it what was found out first is found out again when somebody asks.
	maxGrantEntries = 1 << 21
	// grantAgain is when a DAG is looked at again of which something was missing.
	grantAgain = time.Minute
)

// GrantsConfig is what Grants work with; all but MaxEntries are required.
type GrantsConfig struct {
	Store Store
	Links Links
	Now   func() time.Time
	Log   *slog.Logger
	// MaxEntries is how much is remembered of what pins have, a block for each of its readers; default two million.
	MaxEntries int
}

// Grants knows which peers may have which blocks from whom: a pin's readers may have what the pin keeps, from its persona, as long as it lasts. The pins are the truth; all
// else is made of them. What blocks a pin keeps is found out when one of its readers first asks for anything, by reading nodes with links only. So how long an answer takes
// depends on who asks, and not on what is asked for.
//
// All methods are safe for concurrent use, and may block on the disk.
type Grants struct {
	cfg  GrantsConfig
	seed maphash.Seed

	mu      sync.Mutex
	pins    map[pinName]*grant
	readers map[reader]*readable
	entries int
	walked  []*grant // in the order in which they were; some are not any more
}

type pinName struct{ cid, owner string }

// reader is a peer as one persona sees it.
type reader struct{ persona, peer string }

// grant is one pin's. Its fields are guarded by Grants.mu.
type grant struct {
	pin    content.Pin
	blocks []uint64  // hashes of keys; meaningful once known
	known  bool      // the DAG has been walked
	again  time.Time // when it is to be walked again; zero: never
	gone   bool
}

// readable is what one reader may have. The maps are guarded by Grants.mu.
type readable struct {
	walking sync.Mutex // held by who finds out what is unknown
	grants  map[*grant]struct{}
	unknown map[*grant]struct{}
	blocks  map[uint64]int // how many grants have it
	next    time.Time      // when something changes by itself; zero: never
}

// NewGrants makes one that knows of no pin.
func NewGrants(cfg GrantsConfig) *Grants {
	if cfg.MaxEntries <= 0 {
		cfg.MaxEntries = maxGrantEntries
	}
	return &Grants{cfg: cfg, seed: maphash.MakeSeed(), pins: make(map[pinName]*grant), readers: make(map[reader]*readable)}
}

// Load takes the grants of all pins in the store.
func (g *Grants) Load() error {
	for cursor := ""; ; {
		pins, next, err := g.cfg.Store.Pins("", "", cursor, pinPage)
		if err != nil {
			return err
		}
		g.mu.Lock()
		for _, p := range pins {
			g.set(p)
		}
		g.mu.Unlock()
		if cursor = next; next == "" {
			return nil
		}
	}
}

// Changed looks at pins again, after they may have been made, replaced or lifted. Whoever changed them last looks last, so what holds in the end is what the store says.
func (g *Grants) Changed(pins ...content.Pin) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, p := range pins {
		now, _, err := g.cfg.Store.Pins(p.CID, p.Owner, "", 1)
		switch {
		case err != nil:
			g.cfg.Log.Warn("who may have some content could not be read: nobody may, until it is pinned again", "error", err.Error())
			g.drop(pinName{p.CID, p.Owner})
		case len(now) == 0:
			g.drop(pinName{p.CID, p.Owner})
		default:
			g.set(now[0])
		}
	}
}

// Allowed says whether a peer may have a block from a persona's host.
func (g *Grants) Allowed(persona, peer, key string) bool {
	hash := maphash.String(g.seed, key)
	g.mu.Lock()
	r := g.readers[reader{persona, peer}]
	if r == nil {
		g.mu.Unlock()
		return false
	}
	g.tick(r)
	known, unknown := r.blocks[hash] > 0, len(r.unknown)
	g.mu.Unlock()
	return known || unknown > 0 && g.findOut(r, hash)
}

// Any tells whether a peer may have anything from a persona's host.
func (g *Grants) Any(persona, peer string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	r := g.readers[reader{persona, peer}]
	if r == nil {
		return false
	}
	g.tick(r)
	return len(r.grants) > 0
}

// Entries is how much is remembered now.
func (g *Grants) Entries() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.entries
}

// set makes or replaces a pin's grant. Under mu.
func (g *Grants) set(p content.Pin) {
	name := pinName{p.CID, p.Owner}
	if old := g.pins[name]; old != nil && old.known && old.again.IsZero() && p.Persona == old.pin.Persona && slices.Equal(p.Readers, old.pin.Readers) {
		old.pin = p // renewed: what it has is known
		for _, peer := range p.Readers {
			g.readers[reader{p.Persona, peer}].until(p.ExpiresAt)
		}
		return
	}
	g.drop(name)
	if len(p.Readers) == 0 || p.Expired(g.cfg.Now()) {
		return
	}
	n := &grant{pin: p}
	g.pins[name] = n
	for _, peer := range p.Readers {
		id := reader{p.Persona, peer}
		r := g.readers[id]
		if r == nil {
			r = &readable{grants: make(map[*grant]struct{}), unknown: make(map[*grant]struct{}), blocks: make(map[uint64]int)}
			g.readers[id] = r
		}
		r.grants[n], r.unknown[n] = struct{}{}, struct{}{}
		r.until(p.ExpiresAt)
	}
}

// until has r looked at when t has come.
func (r *readable) until(t time.Time) {
	if !t.IsZero() && (r.next.IsZero() || t.Before(r.next)) {
		r.next = t
	}
}

// drop ends a pin's grant. Under mu.
func (g *Grants) drop(name pinName) {
	n := g.pins[name]
	if n == nil {
		return
	}
	delete(g.pins, name)
	g.forget(n)
	n.gone = true
	for _, peer := range n.pin.Readers {
		id := reader{n.pin.Persona, peer}
		r := g.readers[id]
		if r == nil { // a peer that was named twice
			continue
		}
		delete(r.grants, n)
		delete(r.unknown, n)
		if len(r.grants) == 0 {
			delete(g.readers, id)
		}
	}
}

// forget makes unknown what a grant has. Under mu.
func (g *Grants) forget(n *grant) {
	if !n.known {
		return
	}
	for r := range g.of(n) {
		for _, b := range n.blocks {
			if r.blocks[b]--; r.blocks[b] <= 0 {
				delete(r.blocks, b)
			}
		}
		r.unknown[n] = struct{}{}
		g.entries -= len(n.blocks)
	}
	n.known, n.blocks, n.again = false, nil, time.Time{}
}

// of are the readers of a grant, each once. Under mu.
func (g *Grants) of(n *grant) map[*readable]struct{} {
	out := make(map[*readable]struct{}, len(n.pin.Readers))
	for _, peer := range n.pin.Readers {
		if r := g.readers[reader{n.pin.Persona, peer}]; r != nil {
			out[r] = struct{}{}
		}
	}
	return out
}

// tick ends what has ended of a reader's, and has walked again what is due. Under mu.
func (g *Grants) tick(r *readable) {
	now := g.cfg.Now()
	if r.next.IsZero() || now.Before(r.next) {
		return
	}
	r.next = time.Time{}
	for n := range r.grants {
		if n.pin.Expired(now) {
			g.drop(pinName{n.pin.CID, n.pin.Owner})
			continue
		}
		if !n.again.IsZero() && !now.Before(n.again) {
			g.forget(n)
		}
		r.until(n.pin.ExpiresAt)
		r.until(n.again)
	}
}

// findOut walks the DAGs of a reader that are unknown, one caller at a time. It tells whether one of them has a block.
func (g *Grants) findOut(r *readable, hash uint64) (found bool) {
	r.walking.Lock()
	defer r.walking.Unlock()
	g.mu.Lock()
	if r.blocks[hash] > 0 { // another caller has found it
		g.mu.Unlock()
		return true
	}
	todo := make([]*grant, 0, len(r.unknown))
	for n := range r.unknown {
		todo = append(todo, n)
	}
	g.mu.Unlock()
	for _, n := range todo {
		blocks, complete := g.walk(n.pin.CID)
		g.mu.Lock()
		if !n.gone && !n.known {
			g.learn(n, blocks, complete)
		}
		found = found || !n.gone && slices.Contains(blocks, hash)
		g.mu.Unlock()
	}
	return found
}

// learn notes what a grant has. Under mu.
func (g *Grants) learn(n *grant, blocks []uint64, complete bool) {
	n.known, n.blocks = true, blocks
	if !complete {
		n.again = g.cfg.Now().Add(grantAgain)
	}
	for r := range g.of(n) {
		for _, b := range blocks {
			r.blocks[b]++
		}
		delete(r.unknown, n)
		r.until(n.again)
		g.entries += len(blocks)
	}
	g.walked = append(g.walked, n)
	for g.entries > g.cfg.MaxEntries && len(g.walked) > 1 {
		g.forget(g.walked[0])
		g.walked = g.walked[1:]
	}
	if len(g.walked) > 2*len(g.pins)+64 { // most of them have ended
		kept := g.walked[:0:0]
		for _, n := range g.walked {
			if n.known && !n.gone {
				kept = append(kept, n)
			}
		}
		g.walked = kept
	}
}

// walk returns the hashes of a DAG's blocks, each once. It is not complete when some of it could not be read.
func (g *Grants) walk(root string) (blocks []uint64, complete bool) {
	complete = true
	found := make(map[uint64]struct{})
	add := func(key string) {
		if len(found) < maxGrantBlocks {
			found[maphash.String(g.seed, key)] = struct{}{}
		}
	}
	seen := map[string]struct{}{root: {}}
	for todo := []string{root}; len(todo) > 0 && len(found) < maxGrantBlocks; {
		cid := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		n, err := g.cfg.Links(cid, g.cfg.Store.Get)
		if n.Key != "" {
			add(n.Key)
		}
		if err != nil {
			complete = false
			continue
		}
		for _, key := range n.Leaves {
			add(key)
		}
		for _, child := range n.Inner {
			if _, ok := seen[child]; !ok && len(seen) < MaxInner {
				seen[child] = struct{}{}
				todo = append(todo, child)
			}
		}
	}
	blocks = make([]uint64, 0, len(found))
	for b := range found {
		blocks = append(blocks, b)
	}
	return blocks, complete
}
