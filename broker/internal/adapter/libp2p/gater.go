package libp2p

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/control"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	ma "github.com/multiformats/go-multiaddr"
	madns "github.com/multiformats/go-multiaddr-dns"

	"github.com/shallot-net/shallot/kit/bounded"
)

// maxRefused bounds the peers that are kept out at once.
const maxRefused = 4096

// gater keeps peers out: some for a time, and for good those whom the lists of this node do not admit.
type gater struct {
	mu      sync.Mutex
	refused *bounded.Map[peer.ID, time.Time]
	admits  func(peer string) bool // nil: everybody

	dialable func(peer.ID, ma.Multiaddr) bool // the profile's
}

func newGater(dialable func(peer.ID, ma.Multiaddr) bool) *gater {
	return &gater{refused: bounded.New[peer.ID, time.Time](maxRefused), dialable: dialable}
}

func (g *gater) refuse(p peer.ID, until time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.refused.Put(p, until)
}

func (g *gater) restrict(admits func(peer string) bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.admits = admits
}

func (g *gater) admitted(p peer.ID) bool {
	g.mu.Lock()
	admits := g.admits
	g.mu.Unlock()
	return admits == nil || admits(p.String())
}

func (g *gater) allowed(p peer.ID) bool {
	if !g.admitted(p) {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	until, ok := g.refused.Get(p)
	if ok && time.Now().After(until) {
		g.refused.Delete(p)
		ok = false
	}
	return !ok
}

func (g *gater) InterceptPeerDial(p peer.ID) bool { return g.allowed(p) }

// InterceptAddrDial is the last that is asked before a dial.
func (g *gater) InterceptAddrDial(p peer.ID, a ma.Multiaddr) bool {
	return g.dialable == nil || g.dialable(p, a)
}

func (g *gater) InterceptAccept(network.ConnMultiaddrs) bool { return true }
func (g *gater) InterceptUpgraded(network.Conn) (bool, control.DisconnectReason) {
	return true, 0
}

// InterceptSecured is the first moment at which it is proven who the peer is.
func (g *gater) InterceptSecured(_ network.Direction, p peer.ID, _ network.ConnMultiaddrs) bool {
	return g.allowed(p)
}

// maxNames bounds the names that may be looked up.
const maxNames = 256

// resolver looks up only names in addresses that somebody who runs this node has typed. What a peer says of itself may hold any name, and looking it up
// would tell the name's owner who asks, whichever way it came here.
type resolver struct {
	inner network.MultiaddrDNSResolver // nil: nothing is looked up

	mu    sync.Mutex
	names map[string]struct{}
}

func newResolver(enabled bool) *resolver {
	r := &resolver{names: make(map[string]struct{})}
	if enabled {
		r.inner = swarm.ResolverFromMaDNS{Resolver: madns.DefaultResolver}
	}
	return r
}

var dnsProtocols = []int{ma.P_DNS, ma.P_DNS4, ma.P_DNS6, ma.P_DNSADDR}

func nameOf(a ma.Multiaddr) string {
	for _, p := range dnsProtocols {
		if v, err := a.ValueForProtocol(p); err == nil {
			return v
		}
	}
	return ""
}

// allow permits the names in addresses.
func (r *resolver) allow(addrs []ma.Multiaddr) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, a := range addrs {
		if n := nameOf(a); n != "" && len(r.names) < maxNames {
			r.names[n] = struct{}{}
		}
	}
}

func (r *resolver) check(a ma.Multiaddr) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.names[nameOf(a)]; !ok || r.inner == nil {
		return fmt.Errorf("names in addresses that peers give are not looked up")
	}
	return nil
}

// ResolveDNSAddr resolves /dnsaddr.
func (r *resolver) ResolveDNSAddr(ctx context.Context, p peer.ID, a ma.Multiaddr, recursion, limit int) ([]ma.Multiaddr, error) {
	if err := r.check(a); err != nil {
		return nil, err
	}
	return r.inner.ResolveDNSAddr(ctx, p, a, recursion, limit)
}

// ResolveDNSComponent resolves /dns, /dns4 and /dns6.
func (r *resolver) ResolveDNSComponent(ctx context.Context, a ma.Multiaddr, limit int) ([]ma.Multiaddr, error) {
	if err := r.check(a); err != nil {
		return nil, err
	}
	return r.inner.ResolveDNSComponent(ctx, a, limit)
}
