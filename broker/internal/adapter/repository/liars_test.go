package repository

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/ipfs/boxo/bitswap/message"
	"github.com/ipfs/boxo/bitswap/network"
	"github.com/ipfs/boxo/bitswap/network/bsnet"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// liar says that it has everything, and sends other bytes.
type liar struct {
	net  network.BitSwapNetwork
	lies atomic.Int64
}

func newLiar(t *testing.T) (*liar, host.Host) {
	h := newHost(t)
	l := &liar{net: bsnet.NewFromIpfsHost(h)}
	l.net.Start(l)
	t.Cleanup(l.net.Stop)
	return l, h
}

func (l *liar) ReceiveMessage(ctx context.Context, sender peer.ID, in message.BitSwapMessage) {
	for _, e := range in.Wantlist() {
		if e.Cancel {
			continue
		}
		m := message.New(false)
		m.AddHave(e.Cid)
		m.AddBlock(blocks.NewBlock([]byte("not " + e.Cid.String())))
		l.lies.Add(1)
		if l.net.SendMessage(ctx, sender, m) != nil {
			return
		}
	}
}
func (l *liar) ReceiveError(error)       {}
func (l *liar) PeerConnected(peer.ID)    {}
func (l *liar) PeerDisconnected(peer.ID) {}

// A peer that sends wrong bytes is caught with the first block of them, and the file comes from who has it.
func TestWrongBytes(t *testing.T) {
	honest, s := newStore(t), newStore(t)
	from, h := attach(t, honest), attach(t, s)
	l, bad := newLiar(t)
	know(h, from)
	connect(t, h, bad)
	data := randomBytes(1, 24<<20)
	c := put(t, honest, data, "user")
	mustGet(t, s, c, Source{Peers: []string{bad.ID().String(), from.ID().String()}}, data)
	waitFor(t, func() bool { return testutil.ToFloat64(s.metrics.liars) == 1 })
	asked := l.lies.Load()
	// It has no part in what comes later, and what it would have said is not heard.
	other := randomBytes(2, 4<<20)
	mustGet(t, s, put(t, honest, other, "user"), Source{Peers: []string{bad.ID().String(), from.ID().String()}}, other)
	if n := testutil.ToFloat64(s.metrics.liars); n != 1 || l.lies.Load() != asked {
		t.Errorf("caught %v times, and asked %d times more", n, l.lies.Load()-asked)
	}
}

// Several peers that have a file are used side by side.
func TestSeveralProviders(t *testing.T) {
	s := newStore(t)
	h := attach(t, s)
	data := randomBytes(1, 64<<20)
	var all []*Store
	src := Source{}
	c := ""
	for range 3 {
		p := newStore(t)
		from := attach(t, p)
		c = put(t, p, data, "user")
		know(h, from)
		connect(t, h, from)
		all, src.Peers = append(all, p), append(src.Peers, from.ID().String())
	}
	mustGet(t, s, c, src, data)
	total := 0.0
	for i, p := range all {
		n := testutil.ToFloat64(p.metrics.blocks.WithLabelValues("served"))
		if total += n; n < 5 {
			t.Errorf("peer %d gave %v blocks of 65", i, n)
		}
	}
	if total > 65+3*window {
		t.Errorf("%v blocks were sent for a file of 65", total)
	}
}

// A transfer goes on after either side has died, with what it had.
func TestTransferOutlivesBothSides(t *testing.T) {
	a, b := newStore(t), newStore(t)
	data := randomBytes(1, 32<<20)
	c := put(t, a, data, "user")
	// The side that serves goes in the middle, and its block store with it.
	ha, hb := attach(t, a), attach(t, b)
	know(hb, ha)
	f, err := b.Open(t.Context(), c, Source{Peers: []string{ha.ID().String()}}, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 1<<20)
	for range 8 {
		if _, err := f.Read(buf); err != nil {
			t.Fatal(err)
		}
	}
	_ = ha.Close()
	_ = f.Close()
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	before := fetched(b)
	// Then the side that fetches, and both come back.
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	a = newStore(t, func(cfg *Config) { cfg.Dir = a.cfg.Dir })
	b = newStore(t, func(cfg *Config) { cfg.Dir = b.cfg.Dir })
	collect(t, b, 1) // one collection, as there may be one in the time that is stated
	ha, hb = attach(t, a), attach(t, b)
	know(hb, ha)
	mustGet(t, b, c, Source{Peers: []string{ha.ID().String()}}, data)
	if again := fetched(b); before < 8 || again > 33-8 {
		t.Errorf("%d blocks came before, and %d of 33 after", before, again)
	}
}

func TestWantedForgets(t *testing.T) {
	var w wanted
	name := func(i int) cid.Cid { return blocks.NewBlock([]byte{byte(i), byte(i >> 8), byte(i >> 16)}).Cid() }
	for i := range 3 * maxWantedAt {
		w.add([]cid.Cid{name(i)})
	}
	if w.has(name(0)) || !w.has(name(3*maxWantedAt-1)) || !w.has(name(2*maxWantedAt)) || len(w.now)+len(w.old) > 2*maxWantedAt {
		t.Errorf("it remembers %d and %d", len(w.now), len(w.old))
	}
}
