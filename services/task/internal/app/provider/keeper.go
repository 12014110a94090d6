package provider

import (
	"context"
	"slices"
	"sync"

	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// leastCharge is what a replica counts at least, in bytes: so that the quota bounds their number as well.
const leastCharge = 64 << 10

// keeper counts what is kept here for others, and stops fetching what is not wanted any more.
type keeper struct {
	work *app.Work // fetches large results, by keyName

	mu       sync.Mutex
	bytes    int64
	byPeer   map[string]int64 // of whoever made it, and of its consumer
	charged  map[domain.EntryKey]charge
	fetching map[domain.EntryKey]context.CancelFunc
}

type charge struct {
	size  int64
	peers []string
}

func newKeeper(s *Service, parallel int) *keeper {
	return &keeper{work: app.NewWork(parallel, func(name string) { s.fetchReplica(keyOf(name)) }), byPeer: make(map[string]int64),
		charged: make(map[domain.EntryKey]charge), fetching: make(map[domain.EntryKey]context.CancelFunc)}
}

// add takes room for a replica, or says why there is none. A negative bound is none: what was taken in before counts, whatever the bounds are now.
func (k *keeper) add(key domain.EntryKey, runner string, size, all, perPeer int64) (reason string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, ok := k.charged[key]; ok {
		return ""
	}
	c := charge{size: max(size, leastCharge), peers: []string{runner}}
	if key.Consumer != runner {
		c.peers = append(c.peers, key.Consumer)
	}
	if all >= 0 {
		switch {
		case c.size > min(perPeer, all):
			return "RESULT_TOO_LARGE"
		case k.bytes > all-c.size:
			return "REPLICA_QUOTA"
		case slices.ContainsFunc(c.peers, func(p string) bool { return k.byPeer[p] > perPeer-c.size }):
			return "PEER_QUOTA"
		}
	}
	k.charged[key] = c
	k.bytes += c.size
	for _, p := range c.peers {
		k.byPeer[p] += c.size
	}
	return ""
}

// remove gives the room back.
func (k *keeper) remove(key domain.EntryKey) {
	k.mu.Lock()
	defer k.mu.Unlock()
	c, ok := k.charged[key]
	if !ok {
		return
	}
	delete(k.charged, key)
	k.bytes -= c.size
	for _, p := range c.peers {
		if k.byPeer[p] -= c.size; k.byPeer[p] <= 0 {
			delete(k.byPeer, p)
		}
	}
}

// begin notes what ends a fetch, and end forgets it.
func (k *keeper) begin(key domain.EntryKey, cancel context.CancelFunc) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.fetching[key] = cancel
}

func (k *keeper) end(key domain.EntryKey) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if cancel := k.fetching[key]; cancel != nil {
		cancel()
		delete(k.fetching, key)
	}
}

// loadReplicas finds what is kept for others, and what others are to keep. What was being fetched is fetched on.
func (s *Service) loadReplicas(ctx context.Context) error {
	const page = 256
	for after := (domain.EntryKey{}); ; {
		entries, err := s.cfg.Store.Replicated(ctx, after, page)
		if err != nil {
			return err
		}
		for _, e := range entries {
			after = e.Key()
			if !e.IsReplica() {
				s.replicateLater(e)
				continue
			}
			o, err := s.replicaOutcome(e)
			if err != nil {
				return err
			}
			s.keeps.add(after, e.Runner, o.ResultSize, -1, -1)
			if !e.State.Terminal() {
				s.keeps.work.Add(keyName(after))
			}
		}
		if len(entries) < page {
			return nil
		}
	}
}
