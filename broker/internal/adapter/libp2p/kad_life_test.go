package libp2p

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/shallot-net/shallot/broker/internal/app"
)

// Nobody is dialled before the host listens: until then it is not settled who is admitted.
func TestNoSeedsBeforeListen(t *testing.T) {
	t.Parallel()
	n, err := NewNetwork(Config{Routing: app.RoutingClient})
	if err != nil {
		t.Fatal(err)
	}
	var listening atomic.Bool
	asked := make(chan bool, 100)
	h, err := n.Open("", make([]byte, 32), app.Handlers{
		Lost: func(string, string) {},
		Seeds: func() []app.Target {
			asked <- listening.Load()
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	soon := time.NewTimer(100 * time.Millisecond) // what must not be has no moment to wait for
	<-soon.C
	listening.Store(true)
	if err := h.Listen(); err != nil {
		t.Fatal(err)
	}
	if !<-asked {
		t.Error("they were asked for before")
	}
}

// A list of who is admitted is about others.
func TestOwnRecordsStay(t *testing.T) {
	t.Parallel()
	a, b := newRouted(t, app.RoutingServer, nil), newRouted(t, app.RoutingServer, nil)
	key := string(nameKey("type/sum").Hash())
	for _, at := range []*Host{a, b} {
		at.kad.mu.Lock()
		at.kad.records.Add(key, string(a.host.ID()), time.Now(), time.Now())
		at.kad.mu.Unlock()
	}
	a.Restrict(func(p string) bool { return p == b.ID() })
	b.Restrict(func(p string) bool { return p != a.ID() })
	if heldOf(a, key) != 1 || heldOf(b, key) != 0 {
		t.Errorf("its own table has %d records of it, and that of a node that denies it %d", heldOf(a, key), heldOf(b, key))
	}
}

// Whoever has enough is not told of more.
func TestFindEnds(t *testing.T) {
	t.Parallel()
	a, b := newRouted(t, app.RoutingServer, nil), newRouted(t, app.RoutingServer, nil)
	connect(t, a, b)
	eventually(t, "the table is not empty", func() bool { return a.kad.dht.RoutingTable().Size() > 0 })
	key := nameKey("type/sum")
	for range 5 {
		id := newHost(t, nil).host.ID()
		a.host.Peerstore().AddAddr(id, ma.StringCast("/ip4/192.0.2.1/tcp/4001"), time.Hour)
		a.kad.mu.Lock()
		a.kad.records.Add(string(key.Hash()), string(id), time.Now(), time.Now())
		a.kad.mu.Unlock()
	}
	for i := range 50 { // what is told after the end is so by chance
		most, told := 1+i%5, 0
		err := a.kad.find(t.Context(), key, 10, func(peer.AddrInfo) bool { told++; return told < most })
		if err != nil || told != most {
			t.Errorf("told %d times and not %d, %v", told, most, err)
		}
	}
}
