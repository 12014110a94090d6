package libp2p

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/simplelru"
	dht "github.com/libp2p/go-libp2p-kad-dht"
	pb "github.com/libp2p/go-libp2p-kad-dht/pb"
	"github.com/libp2p/go-libp2p-kad-dht/records"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/shallot-net/shallot/broker/internal/app"
	"github.com/shallot-net/shallot/broker/internal/domain/providers"
)

// KadProtocol is the distributed hash table's. The prefix is this network's own: nobody meets the tables of others by mistake.
const (
	kadPrefix   = protocol.ID("/shallot")
	KadProtocol = kadPrefix + "/kad/1.0.0"
)

// kadProfile is what a mode decides about the table; roles are app.RoutingServer and so on.
type kadProfile struct {
	// other is the role of personas that are not the node's own. They exist so that nothing links them to the node: they ask at most.
	other string
	seed  bool // dial peers of an earlier life when the table is empty
	// bucket is Kademlia's k: peers in a bucket, closest peers that a lookup asks, copies of a record. The library's 20 is made for networks where most peers
	// are gone within the hour; each of its lookups asks 20 peers, each of which names 20. With 8, as BitTorrent has it, a lookup costs a sixth of the bytes, and a record is
	// lost only if 8 nodes stop within an hour.
	bucket int
	// alpha is how many peers a lookup asks at a time.
	alpha int
	// queryTimeout bounds a lookup, advertising included; queries bounds those at a time of one host.
	queryTimeout time.Duration
	queries      int
	// settle is when a table that has its first peers looks around, refresh how often it does from then on; see (*kad).refresh for what that costs. note is how
	// often who is in it is written down, which is local.
	settle, refresh, note time.Duration
	// requests of one peer in a second, and at once: a node that looks around or advertises all it has comes nowhere near.
	perSecond float64
	burst     int
}

func openKad() kadProfile {
	return kadProfile{other: app.RoutingClient, seed: true, bucket: 8, alpha: 3, queryTimeout: 8 * time.Second, queries: 16,
		settle: 2 * time.Second, refresh: 10 * time.Minute, note: time.Minute, perSecond: 32, burst: 256}
}

// kad is the distributed hash table on one host: servers keep records and answer, clients only ask. The library's store of values is off: nothing is kept
// here that anybody could choose the bytes of.
type kad struct {
	host    *Host
	profile kadProfile
	server  bool
	dht     *dht.IpfsDHT
	rates   *rates
	queries chan struct{}
	running sync.WaitGroup

	mu      sync.Mutex
	records *providers.Store
}

// newKad makes the table of a host in a role; nil when that is none.
func newKad(h *Host, role string) (*kad, error) {
	if role == "" || role == app.RoutingOff {
		return nil, nil
	}
	p := h.network.profile.kad
	k := &kad{host: h, profile: p, server: role == app.RoutingServer, rates: newRates(p.perSecond, p.burst), queries: make(chan struct{}, p.queries),
		records: providers.New(providers.Default)}
	mode := dht.ModeClient
	if k.server {
		mode = dht.ModeServer
	}
	var err error
	k.dht, err = dht.New(&kadHost{Host: h.host, book: &kadBook{Peerstore: h.host.Peerstore(), shown: k.shown}},
		dht.Mode(mode), dht.ProtocolPrefix(kadPrefix), dht.DisableValues(),
		dht.BucketSize(p.bucket), dht.Concurrency(p.alpha), dht.LookupCheckConcurrency(16),
		// The library's own refresh looks into every bucket, which is the logarithm's square in the size of the network.
		dht.DisableAutoRefresh(), dht.RoutingTableRefreshPeriod(p.refresh), dht.RoutingTableRefreshQueryTimeout(p.queryTimeout),
		dht.QueryFilter(func(_ any, info peer.AddrInfo) bool { return h.gate.allowed(info.ID) }),
		dht.RoutingTableFilter(func(_ any, id peer.ID) bool { return h.gate.allowed(id) }),
		dht.OnRequestHook(k.request),
		dht.AddressFilter(fewAddresses),
		dht.ProviderDatastore(kadStore{k}),
		// A cache has no bound for one key, and what it would cache is in memory.
		dht.ProviderManagerOpts(records.Cache(noCache{}), records.ProvideValidity(providers.Default.TTL), records.ProviderAddrTTL(providers.Default.TTL),
			records.CleanupInterval(0)),
	)
	if err != nil {
		return nil, fmt.Errorf("start the routing table: %w", err)
	}
	return k, nil
}

// run begins to dial, which must not be before it is settled who may be dialled, and everybody is ready for whoever is connected.
func (k *kad) run() {
	if k != nil {
		k.running.Go(k.maintain)
	}
}

// close ends what runs, and notes who was there.
func (k *kad) close() error {
	if k == nil {
		return nil
	}
	k.running.Wait() // its host's context has ended
	k.note()
	return k.dht.Close()
}

// restrict forgets peers that are not admitted any more.
func (k *kad) restrict() {
	if k == nil {
		return
	}
	for _, id := range k.dht.RoutingTable().ListPeers() {
		if !k.host.gate.admitted(id) {
			k.dht.RoutingTable().RemovePeer(id)
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	own := k.host.host.ID()
	k.records.Keep(func(p string) bool { return peer.ID(p) == own || k.host.gate.admitted(peer.ID(p)) })
}

// request sees every request before the library does. One that is emptied is none that the library knows: it resets the stream.
func (k *kad) request(_ context.Context, s network.Stream, r *pb.Message) {
	from := s.Conn().RemotePeer()
	switch {
	case !k.host.gate.allowed(from), !k.rates.allow(from):
		r.Reset()
	case r.GetType() == pb.Message_ADD_PROVIDER && !k.take(from, r):
		r.Reset()
	}
}

// take keeps a record, if there is room for it: the library would have it in its buffers otherwise, and an address of whoever sent it. It accepts
// a peer's word about itself alone, as the library does.
func (k *kad) take(from peer.ID, r *pb.Message) bool {
	k.trim(from, r)
	if key := r.GetKey(); len(key) == 0 || len(key) > maxKadKey || len(r.GetProviderPeers()) == 0 || len(r.GetProviderPeers()[0].GetAddrs()) == 0 {
		return false
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.records.Add(string(r.GetKey()), string(from), time.Now(), time.Now())
}

// maxKadKey is the library's bound of a record's key, in bytes.
const maxKadKey = 80

// shown tells whether others may hear where a peer is: of servers, and of those that have said that they offer something. A table's answer would
// otherwise tell anybody who asks where a consumer is that is connected here.
func (k *kad) shown(id peer.ID) bool {
	if id == k.host.host.ID() {
		return k.server
	}
	if !k.host.gate.admitted(id) { // the library may have a record of it in its buffers still
		return false
	}
	k.mu.Lock()
	holds := k.records.Holds(string(id))
	k.mu.Unlock()
	if holds || k.dht != nil && k.dht.RoutingTable().Find(id) != "" {
		return true
	}
	known, err := k.host.host.Peerstore().SupportsProtocols(id, KadProtocol)
	return err == nil && len(known) > 0
}

// noCache keeps nothing. Of its other methods the library uses none.
type noCache struct{ lru.LRUCache }

func (noCache) Add(any, any) bool   { return false }
func (noCache) Get(any) (any, bool) { return nil, false }

var errNotStored = errors.New("the routing table keeps records of providers only")
