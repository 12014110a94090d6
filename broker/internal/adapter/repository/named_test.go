package repository

import (
	"bytes"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ipfs/boxo/bitswap/message"
	pb "github.com/ipfs/boxo/bitswap/message/pb"
	"github.com/ipfs/boxo/bitswap/network/bsnet"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"google.golang.org/grpc/codes"
)

// bystander is connected, speaks bitswap, and notes what reaches it.
type bystander struct {
	host.Host
	mu    sync.Mutex
	heard []protocol.ID
	any   chan struct{}
}

func newBystander(t *testing.T) *bystander {
	b := &bystander{Host: newHost(t), any: make(chan struct{}, 1000)}
	for _, p := range []protocol.ID{bsnet.ProtocolBitswap, bsnet.ProtocolBitswapOneOne, bsnet.ProtocolBitswapOneZero, bsnet.ProtocolBitswapNoVers} {
		b.SetStreamHandler(p, func(s network.Stream) {
			b.mu.Lock()
			b.heard = append(b.heard, p)
			b.mu.Unlock()
			b.any <- struct{}{}
			_ = s.Reset()
		})
	}
	return b
}

func (b *bystander) sawAnything() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.heard) > 0
}

// A want goes to the peer that is named, and to nobody else who is connected; in open mode it goes to all.
func TestWantsGoToWhomIsNamed(t *testing.T) {
	t.Parallel()
	for _, mode := range []struct {
		name      string
		anonymous bool
	}{{"anonymous", true}, {"open", false}} {
		t.Run(mode.name, func(t *testing.T) {
			t.Parallel()
			set := func(c *Config) { c.Anonymous = mode.anonymous }
			provider, consumer := newStore(t, set), newStore(t, set)
			hp, hc := attach(t, provider), attach(t, consumer)
			crowd := []*bystander{newBystander(t), newBystander(t), newBystander(t)}
			for _, b := range crowd {
				connect(t, hc, b)
			}
			waitFor(t, func() bool { // they are known to speak bitswap
				for _, b := range crowd {
					if p, err := hc.Peerstore().SupportsProtocols(b.ID(), bsnet.ProtocolBitswap); err != nil || len(p) == 0 {
						return false
					}
				}
				return true
			})
			know(hc, hp)
			data := randomBytes(1, 40<<20) // some windows of blocks
			mustGet(t, consumer, putFor(t, provider, data, "", hc), at(hp), data)
			if !mode.anonymous {
				waitFor(t, func() bool { return crowd[0].sawAnything() && crowd[1].sawAnything() && crowd[2].sawAnything() })
				return
			}
			// Nor when the one that is named has not got it, and it is looked for again.
			absent := put(t, newStore(t), randomBytes(2, 1000), "")
			consumer.cfg.StallTimeout = 2 * time.Second
			_, err := get(consumer, absent, at(hp))
			wantFault(t, err, codes.Unavailable, ReasonUnreachable)
			if err := consumer.Close(); err != nil {
				t.Fatal(err)
			}
			for _, b := range crowd {
				if b.sawAnything() {
					t.Errorf("a bystander heard %v", b.heard)
				}
			}
		})
	}
}

// Two requests of one persona that want the same block of different peers ask each only what it is named for. A session may believe that it has asked the other's peer, and
// goes on to its own when no answer comes: nothing that is made for one persona and provider is wanted of two.
func TestRequestsDoNotShareWhomTheyName(t *testing.T) {
	t.Parallel()
	one, other, consumer := newStore(t, anonymous), newStore(t, anonymous), newStore(t, anonymous)
	h1, h2, hc := attach(t, one), attach(t, other), attach(t, consumer)
	know(hc, h1)
	know(hc, h2)
	secret := randomBytes(7, 3<<20+17) // the first one's alone
	common := randomBytes(8, 3<<20+17)
	var asked sync.Map
	c1, c2 := putFor(t, one, secret, "", hc), putFor(t, one, common, "", hc)
	if putFor(t, other, common, "", hc) != c2 {
		t.Fatal("the same content has two names")
	}
	other.metrics.blocks.Reset()
	var wg sync.WaitGroup
	fetch := get
	for _, get := range []struct {
		c    string
		from host.Host
		data []byte
	}{{c1, h1, secret}, {c2, h1, common}, {c2, h2, common}} {
		wg.Go(func() {
			if got, err := fetch(consumer, get.c, at(get.from)); err != nil || !bytes.Equal(got, get.data) {
				t.Errorf("%d bytes of %d: %v", len(got), len(get.data), err)
			}
		})
	}
	wg.Wait()
	root, err := cid.Decode(c1)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range other.personas[""].bitswap.Server.WantlistForPeer(hc.ID()) {
		asked.Store(c.String(), true)
	}
	if _, ok := asked.Load(root.String()); ok {
		t.Error("a peer was asked for what it was not named for")
	}
}

// What leaves is restricted, whatever sessions believe.
func TestRestrict(t *testing.T) {
	t.Parallel()
	var a asked
	named, stranger := peer.ID("named"), peer.ID("stranger")
	var cids []cid.Cid
	for _, s := range []string{"wanted", "another's", "cancelled"} {
		c, err := builder.Sum([]byte(s))
		if err != nil {
			t.Fatal(err)
		}
		cids = append(cids, c)
	}
	m := message.New(false)
	m.AddEntry(cids[0], 1, pb.Message_Wantlist_Block, true)
	m.AddEntry(cids[1], 1, pb.Message_Wantlist_Have, true)
	m.Cancel(cids[2])
	check := func(what string, p peer.ID, want string) {
		t.Helper()
		var got []string
		for i, name := range []string{"wanted", "another's", "cancelled"} {
			for _, e := range a.restrict(p, m).Wantlist() {
				if e.Cid.Equals(cids[i]) {
					got = append(got, name)
				}
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: %v leave", what, got)
		}
		if len(m.Wantlist()) != 3 {
			t.Fatal("the message was changed that bitswap has")
		}
	}
	first, second := a.name([]peer.ID{named}, cids[:1]), a.name([]peer.ID{named}, cids[:1])
	check("named", named, "wanted cancelled")
	check("not named", stranger, "cancelled")
	first()
	check("named by one of two still", named, "wanted cancelled")
	second()
	check("by none", named, "cancelled")
	if len(a.at) != 0 {
		t.Errorf("%d peers are remembered", len(a.at))
	}
}

// Nobody is asked where nobody is named; what is on disk is there all the same.
func TestNobodyIsNamed(t *testing.T) {
	t.Parallel()
	a, b := newStore(t, anonymous), newStore(t, anonymous)
	ha, hb := attach(t, a), attach(t, b)
	connect(t, hb, ha)
	data := randomBytes(1, 3<<20)
	c := putFor(t, a, data, "", hb)
	for name, src := range map[string]Source{"nobody": {}, "only itself": at(hb)} {
		_, err := get(b, c, src)
		wantFault(t, err, codes.NotFound, ReasonNotFound)
		if err != nil && !strings.Contains(err.Error(), "name a peer") && !strings.Contains(err.Error(), "name one") {
			t.Errorf("%s: %v does not say what to do", name, err)
		}
	}
	if _, err := b.Stat(t.Context(), c, Source{}); err == nil {
		t.Error("what is not here is known")
	}
	mustGet(t, a, c, Source{}, data)
	mustGet(t, b, c, at(ha), data)
	mustGet(t, b, c, Source{}, data)
}

// No ping is sent: a host of anonymous mode does not answer it, and to try is a mark.
func TestRoundTripsAreNotMeasured(t *testing.T) {
	t.Parallel()
	a, b := newStore(t, anonymous), newStore(t)
	attach(t, a)
	hb := attach(t, b)
	connect(t, a.personas[""].host, hb)
	if r := a.personas[""].net.Ping(t.Context(), hb.ID()); r.Error == nil || a.personas[""].net.Latency(hb.ID()) != 0 {
		t.Errorf("a ping took %v", r.RTT)
	}
	ha := a.personas[""].host
	if r := b.personas[""].net.Ping(t.Context(), ha.ID()); r.Error != nil {
		t.Errorf("in open mode: %v", r.Error)
	}
}

// A peer whose connection breaks in the middle is dialled again, and the rest is fetched.
func TestNamedPeersAreDialledAgain(t *testing.T) {
	t.Parallel()
	provider, consumer := newStore(t, anonymous), newStore(t, anonymous)
	hp, hc := attach(t, provider), attach(t, consumer)
	know(hc, hp)
	data := randomBytes(1, 20<<20)
	f, err := consumer.Open(t.Context(), putFor(t, provider, data, "", hc), at(hp), 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	read := 0
	for read < len(data) {
		b, err := f.Next()
		if err != nil {
			t.Fatalf("after %d bytes: %v", read, err)
		}
		if read < 4<<20 && read+len(b) >= 4<<20 {
			if err := hc.Network().ClosePeer(hp.ID()); err != nil {
				t.Fatal(err)
			}
		}
		read += len(b)
	}
}
