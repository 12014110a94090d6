package libp2p

import (
	"context"
	"crypto/sha256"
	"errors"

	"github.com/ipfs/go-cid"
	kb "github.com/libp2p/go-libp2p-kbucket"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/core/routing"
	"github.com/multiformats/go-multihash"

	"github.com/shallot-net/shallot/broker/internal/app"
)

// nameKey is where the providers of a name are kept. No content can have this key but by chance.
func nameKey(name string) cid.Cid {
	sum := sha256.Sum256([]byte("/shallot/name/1/" + name))
	mh, err := multihash.Encode(sum[:], multihash.SHA2_256)
	if err != nil {
		panic(err) // of a hash that is known
	}
	return cid.NewCidV1(cid.Raw, mh)
}

// begin waits for a slot and bounds a query. done must be called.
func (k *kad) begin(ctx context.Context) (_ context.Context, done func(), err error) {
	select {
	case k.queries <- struct{}{}:
	case <-ctx.Done():
		return nil, nil, context.Cause(ctx)
	case <-k.host.ctx.Done():
		return nil, nil, app.ErrRoutingOff
	}
	ctx, cancel := context.WithTimeout(ctx, k.profile.queryTimeout)
	unhook := context.AfterFunc(k.host.ctx, cancel)
	return ctx, func() { unhook(); cancel(); <-k.queries }, nil
}

// provide says that this node offers what has the key.
func (k *kad) provide(ctx context.Context, key cid.Cid) error {
	if !k.server {
		return app.ErrRoutingClient
	}
	if k.dht.RoutingTable().Size() == 0 { // a node alone tries for as long as it is: that must cost nothing
		return app.ErrRoutingEmpty
	}
	ctx, done, err := k.begin(ctx)
	if err != nil {
		return err
	}
	defer done()
	err = k.dht.Provide(ctx, key, true)
	if errors.Is(err, kb.ErrLookupFailure) {
		return app.ErrRoutingEmpty
	}
	return err
}

// find calls found for each provider of a key, other than this node, that may be connected, at most limit. found is called from one goroutine and ends the query by false.
func (k *kad) find(ctx context.Context, key cid.Cid, limit int, found func(peer.AddrInfo) bool) error {
	ctx, done, err := k.begin(ctx)
	if err != nil {
		return err
	}
	defer done()
	if k.dht.RoutingTable().Size() == 0 {
		return app.ErrRoutingEmpty
	}
	n := 0
	// One more, because this node may be among them.
	for info := range k.dht.FindProvidersAsync(ctx, key, limit+1) {
		if n >= limit || info.ID == k.host.host.ID() || !k.host.gate.allowed(info.ID) {
			continue
		}
		if len(info.Addrs) == 0 {
			info.Addrs = k.host.host.Peerstore().Addrs(info.ID)
		}
		if len(info.Addrs) == 0 && k.host.host.Network().Connectedness(info.ID) != network.Connected {
			continue // the same peer may be named again, with an address
		}
		n++
		if !found(info) {
			return nil // the rest ends with ctx
		}
	}
	return nil
}

// Find asks the routing table who has advertised a name.
func (h *Host) Find(ctx context.Context, name string, limit int, found func(app.Target) error) error {
	if h.kad == nil {
		return app.ErrRoutingOff
	}
	var failed error
	err := h.kad.find(ctx, nameKey(name), limit, func(info peer.AddrInfo) bool {
		addrs := info.Addrs[:min(len(info.Addrs), maxAddresses)]
		h.host.Peerstore().AddAddrs(info.ID, addrs, peerstore.TempAddrTTL)
		failed = found(app.Target{Peer: info.ID.String(), Addresses: texts(addrs)})
		return failed == nil
	})
	return errors.Join(err, failed)
}

// Advertise tells the routing table that this host has a name.
func (h *Host) Advertise(ctx context.Context, name string) error {
	if h.kad == nil {
		return app.ErrRoutingOff
	}
	return h.kad.provide(ctx, nameKey(name))
}

// Contents is the routing of content of one persona: who has it, and, on a server, that this node has it.
type Contents struct {
	network *Network
	persona string
}

var _ routing.ContentRouting = Contents{}

// Contents is the persona's routing of content; it finds nothing while the persona is not open.
func (n *Network) Contents(persona string) Contents { return Contents{n, persona} }

func (c Contents) kad() *kad {
	c.network.mu.Lock()
	defer c.network.mu.Unlock()
	if h := c.network.hosts[c.persona]; h != nil {
		return h.kad
	}
	return nil
}

// Provide says that this node has some content. It blocks for some seconds at most.
func (c Contents) Provide(ctx context.Context, key cid.Cid, _ bool) error {
	if k := c.kad(); k != nil {
		return k.provide(ctx, key)
	}
	return app.ErrRoutingOff
}

// FindProvidersAsync names peers that have said that they have the content, as they are found.
func (c Contents) FindProvidersAsync(ctx context.Context, key cid.Cid, limit int) <-chan peer.AddrInfo {
	out := make(chan peer.AddrInfo)
	k := c.kad()
	if k == nil {
		close(out)
		return out
	}
	if limit <= 0 || limit > maxFound {
		limit = maxFound
	}
	go func() {
		defer close(out)
		_ = k.find(ctx, key, limit, func(info peer.AddrInfo) bool {
			select {
			case out <- info:
				return true
			case <-ctx.Done():
				return false
			}
		})
	}()
	return out
}

// maxFound is how many providers of content are named at most.
const maxFound = 16
