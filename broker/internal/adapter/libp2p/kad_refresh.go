package libp2p

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/time/rate"

	"github.com/shallot-net/shallot/kit/bounded"
	"github.com/shallot-net/shallot/kit/pace"
)

const (
	seedAtOnce  = 4
	seedEnough  = 3 // as many answer: the rest of the table is found by asking them
	seedFirst   = time.Second
	seedLongest = 2 * time.Minute
	seedTimeout = time.Minute
	seedLook    = 30 * time.Second // how often it is looked whether the table is still there
	pingAtOnce  = 4
	// unheardFor is how many refreshes a peer in the table may have been without an answer to anything before it is pinged.
	unheardFor = 3
	maxNoted   = 32
)

// maintain finds the first peers again after a restart, and looks around from time to time, until the host closes.
func (k *kad) maintain() {
	ctx, table := k.host.ctx, k.dht.RoutingTable()
	seed, wait := time.NewTimer(0), seedFirst
	refresh, looked := time.NewTimer(k.profile.settle), false
	note := time.NewTicker(k.profile.note)
	defer seed.Stop()
	defer refresh.Stop()
	defer note.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-note.C:
			k.note()
		case <-seed.C:
			if table.Size() > 0 {
				wait = seedFirst
				seed.Reset(seedLook)
				continue
			}
			k.seed(ctx)
			seed.Reset(pace.Jitter(wait))
			wait = min(2*wait, seedLongest)
		case <-refresh.C:
			next := k.profile.refresh
			switch {
			case !k.server: // it answers nobody, so it need not be where others look for it; its lookups see to the rest
			case table.Size() == 0:
				next = k.profile.settle
			default:
				k.refresh(ctx)
				if !looked { // whoever comes first has few to ask: a second look soon after finds the others
					next, looked = min(next, 10*k.profile.settle), true
				}
			}
			table.MarkAllPeersIrreplaceable() // who has been here for a while is not driven out by newcomers
			refresh.Reset(pace.Jitter(next))
		}
	}
}

// refresh looks for this node's own place, looks into the bucket that was not looked into for the longest time, and pings those that have not been heard of.
//
// A lookup asks some 8 peers and one for every halving of the distance, each of which answers with 8 peers: about 8 + log2(n) answers of 1 KB. The table has about
// 8·log2(n/8) peers, of which a lookup's answers excuse most. So a refresh costs the logarithm of the network's size, and the same is true of a minute, because the
// interval does not depend on it. (To look into all buckets each time, as the library does, would be log2(n) lookups.) A bucket is looked
// into every ten minutes times the number of buckets, two hours in a network of 10,000: what matters more is this node's own place, which is how others find what it keeps, and
// every lookup that a service asks for, and every node that connects, fills buckets as well. In ten minutes some per cent of a network of machines change.
func (k *kad) refresh(ctx context.Context) {
	table := k.dht.RoutingTable()
	look := func(key string) {
		ctx, cancel := context.WithTimeout(ctx, k.profile.queryTimeout)
		defer cancel()
		_, _ = k.dht.GetClosestPeers(ctx, key)
	}
	k.pingUnheard(ctx)
	look(string(k.host.host.ID()))
	buckets := table.GetTrackedCplsForRefresh()
	oldest := 0
	for i, at := range buckets {
		if at.Before(buckets[oldest]) {
			oldest = i
		}
	}
	if key, err := table.GenRandPeerID(uint(oldest)); err == nil {
		look(string(key))
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.records.Expire(time.Now())
}

func (k *kad) pingUnheard(ctx context.Context) {
	table := k.dht.RoutingTable()
	slots := make(chan struct{}, pingAtOnce)
	var pings sync.WaitGroup
	for _, p := range table.GetPeerInfos() {
		if time.Since(p.LastSuccessfulOutboundQueryAt) < unheardFor*k.profile.refresh {
			continue
		}
		slots <- struct{}{}
		pings.Go(func() {
			defer func() { <-slots }()
			ctx, cancel := context.WithTimeout(ctx, k.profile.queryTimeout)
			defer cancel()
			if k.dht.Ping(ctx, p.Id) == nil {
				table.UpdateLastSuccessfulOutboundQueryAt(p.Id, time.Now())
			} else if k.host.ctx.Err() == nil {
				table.RemovePeer(p.Id)
			}
		})
	}
	pings.Wait()
}

// seed dials peers of an earlier life, in any order, until a few have answered. Those that are servers get into the table by themselves.
func (k *kad) seed(ctx context.Context) {
	if !k.profile.seed || k.host.handlers.Seeds == nil {
		return
	}
	ctx, enough := context.WithTimeout(ctx, seedTimeout)
	defer enough()
	seeds := k.host.handlers.Seeds()
	rand.Shuffle(len(seeds), func(i, j int) { seeds[i], seeds[j] = seeds[j], seeds[i] })
	slots := make(chan struct{}, seedAtOnce)
	var dials sync.WaitGroup
	var answered atomic.Int32
	for _, t := range seeds {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			break
		}
		dials.Go(func() {
			defer func() { <-slots }()
			if _, err := k.host.Connect(ctx, t); err == nil && answered.Add(1) >= seedEnough {
				enough()
			}
		})
	}
	dials.Wait()
}

// note tells who is in the table and where, for a later life.
func (k *kad) note() {
	if k.host.handlers.Routed == nil {
		return
	}
	ids := k.dht.RoutingTable().ListPeers()
	rand.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
	for _, id := range ids[:min(len(ids), maxNoted)] {
		if addrs := texts(k.host.host.Peerstore().Addrs(id)); len(addrs) > 0 {
			k.host.handlers.Routed(id.String(), addrs[:min(len(addrs), maxAddresses)])
		}
	}
}

// rates bound what each peer may ask.
type rates struct {
	perSecond rate.Limit
	burst     int

	mu    sync.Mutex
	peers *bounded.Map[peer.ID, *rate.Limiter]
}

const maxRates = 1024

func newRates(perSecond float64, burst int) *rates {
	return &rates{perSecond: rate.Limit(perSecond), burst: burst, peers: bounded.New[peer.ID, *rate.Limiter](maxRates)}
}

func (r *rates) allow(id peer.ID) bool {
	r.mu.Lock()
	l := r.peers.GetOrMake(id, func() *rate.Limiter { return rate.NewLimiter(r.perSecond, r.burst) })
	r.mu.Unlock()
	return l.Allow()
}
