package libp2p

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/shallot-net/shallot/broker/internal/app"
	"github.com/shallot-net/shallot/broker/internal/domain/event"
)

const patience = time.Minute

func newHost(t *testing.T, change func(*app.Handlers)) *Host { return newRouted(t, "", change) }

// newRouted makes a host with a role in the routing table.
func newRouted(t testing.TB, role string, change func(*app.Handlers)) *Host {
	t.Helper()
	n, err := NewNetwork(Config{ListenAddrs: []string{"/ip4/127.0.0.1/tcp/0"}, Routing: role, Traffic: func(kind, _ string) func(int64) {
		if kind != "routing" {
			return func(int64) {}
		}
		return func(n int64) { routed.Add(n) }
	}})
	if err != nil {
		t.Fatal(err)
	}
	h := app.Handlers{
		Stream:   func(_ string, s app.Stream) { _ = s.Reset() },
		Validate: func(string, string, []byte) (app.Verdict, *event.Event) { return app.VerdictAccept, &event.Event{} },
		Gossip:   func(string, string, *event.Event) {},
		Lost:     func(string, string) {},
		Changed:  func(string, bool) {},
		Reached:  func(string, []string) {},
	}
	if change != nil {
		change(&h)
	}
	seed := make([]byte, 32)
	_, _ = rand.Read(seed)
	out, err := n.Open("", seed, h)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = out.Close() })
	if err := out.Listen(); err != nil {
		t.Fatal(err)
	}
	return out.(*Host)
}

func connect(t testing.TB, from, to *Host) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := from.Connect(ctx, app.Target{Peer: to.ID(), Addresses: to.Addresses()}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "both are connected", func() bool { return to.Connected(from.ID()) }) // who dials is so first
}

func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !cond(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("it did not come to this: %s", what)
		}
	}
}

// What a host says of itself is the same for every build, and what it can do is a short list.
func TestWhatPeersSee(t *testing.T) {
	t.Parallel()
	a, b := newHost(t, nil), newHost(t, nil)
	connect(t, a, b)
	for key, want := range map[string]string{"AgentVersion": "shallot", "ProtocolVersion": "shallot/1"} {
		if got, err := a.host.Peerstore().Get(b.host.ID(), key); err != nil || got != want {
			t.Errorf("%s is %v, %v", key, got, err)
		}
	}
	protocols, err := a.host.Peerstore().GetProtocols(b.host.ID())
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(protocols)
	want := []protocol.ID{"/ipfs/id/1.0.0", "/ipfs/id/push/1.0.0", "/ipfs/ping/1.0.0", EventProtocol, GossipProtocol}
	if !slices.Equal(protocols, want) {
		t.Errorf("the protocols are %v, want %v", protocols, want)
	}
	conns := a.host.Network().ConnsToPeer(b.host.ID())
	if s := conns[0].ConnState(); s.Security != "/noise" || s.StreamMultiplexer != "/yamux/1.0.0" || s.Transport != "tcp" {
		t.Errorf("the connection is %+v", s)
	}
}

// A thousand streams from one peer are an attack: they stop at the limit, and others do not notice.
func TestStreamsOfOnePeerAreBounded(t *testing.T) {
	t.Parallel()
	to, bad, good := newHost(t, nil), newHost(t, nil), newHost(t, nil)
	connect(t, bad, to)
	connect(t, good, to)
	refused := 0
	for range 1000 {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		s, err := bad.host.NewStream(ctx, to.host.ID(), "/ipfs/ping/1.0.0")
		if err == nil {
			_, err = s.Write(make([]byte, 32))
		}
		cancel()
		if err != nil {
			refused++
			if refused > 10 {
				break
			}
		}
	}
	if refused == 0 {
		t.Error("a thousand streams are let through")
	}
	open := 0
	for _, c := range to.host.Network().ConnsToPeer(bad.host.ID()) {
		open += len(c.GetStreams())
	}
	if open > maxPeerStreams {
		t.Errorf("%d streams of one peer are open", open)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := good.host.NewStream(ctx, to.host.ID(), "/ipfs/ping/1.0.0"); err != nil {
		t.Errorf("another peer: %v", err)
	}
}

// The limits must hold 130 nodes on one machine that all know each other, with eight streams each.
func TestLimitsHoldALargeNetwork(t *testing.T) {
	rm, err := resourceManager(true, EventProtocol, GossipProtocol)
	if err != nil {
		t.Fatal(err)
	}
	defer rm.Close()
	addr := ma.StringCast("/ip4/192.0.2.1/tcp/4001")
	for i := range 130 {
		id := peer.ID(rand.Text())
		conn, err := rm.OpenConnection(network.DirInbound, true, addr)
		if err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		if err := conn.SetPeer(id); err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		for j := range 8 {
			dir, proto := network.DirInbound, []protocol.ID{EventProtocol, GossipProtocol, "/ipfs/bitswap/1.2.0"}[j%3]
			if j%2 == 1 {
				dir = network.DirOutbound
			}
			s, err := rm.OpenStream(id, dir)
			if err != nil {
				t.Fatalf("stream %d of connection %d: %v", j, i, err)
			}
			if err := s.SetProtocol(proto); err != nil {
				t.Fatalf("stream %d of connection %d: %v", j, i, err)
			}
			if err := s.ReserveMemory(256<<10, network.ReservationPriorityAlways); err != nil { // what yamux asks for
				t.Fatalf("memory of stream %d of connection %d: %v", j, i, err)
			}
		}
	}
}

type lookups struct{ n atomic.Int32 }

func (l *lookups) ResolveDNSAddr(context.Context, peer.ID, ma.Multiaddr, int, int) ([]ma.Multiaddr, error) {
	l.n.Add(1)
	return nil, errors.New("no such name")
}

func (l *lookups) ResolveDNSComponent(context.Context, ma.Multiaddr, int) ([]ma.Multiaddr, error) {
	l.n.Add(1)
	return nil, errors.New("no such name")
}

// A name in an address that a peer made up is never looked up, also when a service hands it on; one that somebody typed is.
func TestNames(t *testing.T) {
	t.Parallel()
	h, other := newHost(t, nil), newHost(t, nil)
	seen := &lookups{}
	h.names.inner = seen
	for _, s := range []string{"/dns4/canary.example/tcp/1", "/dns6/canary.example/tcp/1", "/dns/canary.example/tcp/1", "/dnsaddr/canary.example"} {
		h.host.Peerstore().AddAddr(other.host.ID(), ma.StringCast(s), time.Hour)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := h.OpenStream(ctx, other.ID()); err == nil || seen.n.Load() != 0 {
		t.Errorf("%d look-ups of what a peer made up, %v", seen.n.Load(), err)
	}
	for _, s := range []string{"/dns4/canary.example/tcp/1", "/dns4/canary.example/tcp/1/p2p/" + other.ID()} {
		if _, err := h.Connect(ctx, app.Target{Peer: other.ID(), Addresses: []string{s}}); err == nil || seen.n.Load() != 0 {
			t.Errorf("%d look-ups of what a service was told, %v", seen.n.Load(), err)
		}
	}
	if _, err := h.Connect(ctx, app.Target{Addresses: []string{"/dns4/bootstrap.example/tcp/4001/p2p/" + other.ID()}}); err == nil || seen.n.Load() == 0 {
		t.Errorf("%d look-ups of what was typed, %v", seen.n.Load(), err)
	}
	names := newResolver(true)
	for i := range 2 * maxNames {
		names.allow([]ma.Multiaddr{ma.StringCast("/dns4/" + rand.Text() + ".example/tcp/1")})
		if len(names.names) > maxNames {
			t.Fatalf("%d names after %d", len(names.names), i+1)
		}
	}
}

func TestRefuse(t *testing.T) {
	t.Parallel()
	a, b := newHost(t, nil), newHost(t, nil)
	connect(t, a, b)
	b.Refuse(a.ID(), time.Hour)
	eventually(t, "the connection is closed", func() bool { return !a.Connected(b.ID()) && !b.Connected(a.ID()) })
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := b.dial(ctx, a.host.ID(), typed); err == nil {
		t.Error("a peer that is refused is dialled")
	}
	b.Refuse(a.ID(), -time.Second)
	connect(t, a, b)
	for range 2 * maxRefused {
		b.gate.refuse(peer.ID(rand.Text()), time.Now().Add(time.Hour))
	}
	if n := b.gate.refused.Len(); n > maxRefused {
		t.Errorf("%d peers are remembered", n)
	}
}

// Fifteen hosts, each of which knows two: gossip comes to all of them, once.
func TestGossipReachesAll(t *testing.T) {
	t.Parallel()
	const n = 15
	var mu sync.Mutex
	heard := make([]map[string]int, n)
	hosts := make([]*Host, n)
	for i := range n {
		heard[i] = map[string]int{}
		hosts[i] = newHost(t, func(h *app.Handlers) {
			h.Validate = func(_, _ string, data []byte) (app.Verdict, *event.Event) {
				return app.VerdictAccept, &event.Event{ID: string(data)}
			}
			h.Gossip = func(_, _ string, e *event.Event) {
				mu.Lock()
				defer mu.Unlock()
				heard[i][e.ID]++
			}
		})
		if _, err := hosts[i].Join(event.TopicMetrics); err != nil {
			t.Fatal(err)
		}
		for back := 1; back <= 2 && i-back >= 0; back++ {
			connect(t, hosts[i], hosts[i-back])
		}
	}
	reached := func(message string) int {
		mu.Lock()
		defer mu.Unlock()
		count := 0
		for _, h := range heard {
			if h[message] > 0 {
				count++
			}
		}
		return count
	}
	// Any of the messages will do: one takes its time to go round, on a busy machine longer than until the next look.
	var first []string
	eventually(t, "the mesh stands", func() bool {
		first = append(first, rand.Text())
		if err := hosts[0].Publish(t.Context(), event.TopicMetrics, []byte(first[len(first)-1])); err != nil {
			t.Fatal(err)
		}
		return slices.ContainsFunc(first, func(m string) bool { return reached(m) == n-1 })
	})
	var last []string
	for i := range 10 {
		last = append(last, rand.Text())
		if err := hosts[i].Publish(t.Context(), event.TopicMetrics, []byte(last[i])); err != nil {
			t.Fatal(err)
		}
	}
	for _, m := range last {
		eventually(t, "all hear of it", func() bool { return reached(m) == n-1 })
	}
	mu.Lock()
	defer mu.Unlock()
	for i, h := range heard {
		for m, times := range h {
			if times > 1 {
				t.Errorf("host %d heard %s %d times", i, m, times)
			}
		}
	}
}

func TestForeignPublicKeys(t *testing.T) {
	h := newHost(t, nil)
	var s Signers
	want, err := h.host.ID().ExtractPublicKey()
	if err != nil {
		t.Fatal(err)
	}
	raw, _ := want.Raw()
	for range 2 { // read, and remembered
		if key, err := s.PublicKey(h.ID()); err != nil || !bytes.Equal(key, raw) {
			t.Errorf("got %v %v", key, err)
		}
	}
	cid := peer.ToCid(h.host.ID()).String()
	for _, author := range []string{"", "x", "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N", cid} {
		if key, err := s.PublicKey(author); err == nil {
			t.Errorf("%q has the key %x", author, key)
		}
	}
	for range maxSigners + 10 {
		pub, _, _ := ed25519.GenerateKey(nil)
		k, err := crypto.UnmarshalEd25519PublicKey(pub)
		if err != nil {
			t.Fatal(err)
		}
		id, err := peer.IDFromPublicKey(k)
		if err != nil {
			t.Fatal(err)
		}
		if key, err := s.PublicKey(id.String()); err != nil || !key.Equal(pub) {
			t.Fatalf("got %v %v", key, err)
		}
		if len(s.known) > maxSigners {
			t.Fatalf("%d keys are kept", len(s.known))
		}
	}
}
