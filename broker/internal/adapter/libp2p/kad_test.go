package libp2p

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/ipfs/go-cid"
	pb "github.com/libp2p/go-libp2p-kad-dht/pb"
	recpb "github.com/libp2p/go-libp2p-record/pb"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-msgio"
	ma "github.com/multiformats/go-multiaddr"
	"google.golang.org/protobuf/proto"

	"github.com/shallot-net/shallot/broker/internal/app"
	"github.com/shallot-net/shallot/broker/internal/domain/providers"
)

// outsider speaks the table's protocol by hand.
type outsider struct {
	*Host
	t  *testing.T
	to *Host
	s  network.Stream
}

func newOutsider(t *testing.T, to *Host) *outsider {
	t.Helper()
	o := &outsider{Host: newHost(t, nil), t: t, to: to}
	connect(t, o.Host, to)
	return o
}

// send writes a request, on a fresh stream when the last was reset.
func (o *outsider) send(m *pb.Message) {
	o.t.Helper()
	body, err := proto.Marshal(m)
	if err != nil {
		o.t.Fatal(err)
	}
	for range 3 {
		if o.s == nil {
			ctx, cancel := context.WithTimeout(o.t.Context(), patience)
			o.s, err = o.host.NewStream(ctx, o.to.host.ID(), KadProtocol)
			cancel()
			if err != nil {
				o.s = nil
				continue
			}
			_ = o.s.SetDeadline(time.Now().Add(patience))
		}
		if _, err := o.s.Write(append(binary.AppendUvarint(nil, uint64(len(body))), body...)); err == nil {
			return
		}
		_ = o.s.Reset()
		o.s = nil
	}
}

// ask returns the answer, nil when there was none.
func (o *outsider) ask(m *pb.Message) *pb.Message {
	o.t.Helper()
	o.send(m)
	if o.s == nil {
		return nil
	}
	b, err := msgio.NewVarintReaderSize(o.s, network.MessageSizeMax).ReadMsg()
	if err != nil {
		_ = o.s.Reset()
		o.s = nil
		return nil
	}
	out := new(pb.Message)
	if err := proto.Unmarshal(b, out); err != nil {
		o.t.Fatal(err)
	}
	return out
}

// offer says that a peer offers a key.
func (o *outsider) offer(who peer.ID, key string, addrs ...ma.Multiaddr) {
	o.t.Helper()
	m := &pb.Message{Type: pb.Message_ADD_PROVIDER, Key: []byte(key)}
	p := &pb.Message_Peer{Id: []byte(who)}
	for _, a := range addrs {
		p.Addrs = append(p.Addrs, a.Bytes())
	}
	m.ProviderPeers = []*pb.Message_Peer{p}
	o.send(m)
}

func held(h *Host) int {
	h.kad.mu.Lock()
	defer h.kad.mu.Unlock()
	return h.kad.records.Len()
}

func heldOf(h *Host, key string) int {
	h.kad.mu.Lock()
	defer h.kad.mu.Unlock()
	return len(h.kad.records.Of(key, time.Now()))
}

func find(h *Host, name string) (ids []string, err error) {
	err = h.Find(context.Background(), name, 10, func(t app.Target) error {
		ids = append(ids, t.Peer)
		return nil
	})
	return ids, err
}

// meet waits until a server is in a host's table.
func meet(t testing.TB, h, server *Host) {
	t.Helper()
	connect(t, h, server)
	eventually(t, "a server is in the table", func() bool { return h.kad.dht.RoutingTable().Find(server.host.ID()) != "" })
}

// Servers speak the protocol, clients and hosts without routing do not: nobody puts those into a table.
func TestWhoSpeaksTheTable(t *testing.T) {
	t.Parallel()
	to := newRouted(t, app.RoutingServer, nil)
	for _, role := range []string{app.RoutingClient, app.RoutingOff, app.RoutingServer} {
		h := newRouted(t, role, nil)
		connect(t, h, to)
		var known []protocol.ID
		var err error
		eventually(t, "the peer has said what it speaks", func() bool {
			known, err = to.host.Peerstore().GetProtocols(h.host.ID())
			return len(known) > 0
		})
		if err != nil || slices.Contains(known, KadProtocol) != (role == app.RoutingServer) {
			t.Errorf("a %s speaks %v, %v", role, known, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		s, err := to.host.NewStream(ctx, h.host.ID(), KadProtocol)
		cancel()
		if (err == nil) != (role == app.RoutingServer) {
			t.Errorf("a %s took a stream: %v", role, err)
		}
		if err == nil {
			_ = s.Reset()
		}
		if role != app.RoutingServer && to.kad.dht.RoutingTable().Find(h.host.ID()) != "" {
			t.Errorf("a %s is in a table", role)
		}
	}
}

// Values are neither kept nor given: bytes of others' choosing have no place here.
func TestValuesAreRefused(t *testing.T) {
	t.Parallel()
	to := newRouted(t, app.RoutingServer, nil)
	o := newOutsider(t, to)
	if o.ask(&pb.Message{Type: pb.Message_PING}) == nil {
		t.Fatal("the table does not answer at all")
	}
	key := []byte("/pk/" + string(o.host.ID()))
	put := &pb.Message{Type: pb.Message_PUT_VALUE, Key: key, Record: &recpb.Record{Key: key, Value: []byte("value")}}
	if got := o.ask(put); got != nil {
		t.Errorf("a value was taken: %v", got)
	}
	if got := o.ask(&pb.Message{Type: pb.Message_GET_VALUE, Key: key}); got != nil {
		t.Errorf("a value was asked for, and the answer is %v", got)
	}
	if err := to.kad.dht.PutValue(t.Context(), string(key), []byte("value")); err == nil {
		t.Error("this node itself puts values")
	}
}

// One peer that offers thousands of things gets its share, whatever it claims to be; and what it is offered besides is not kept.
func TestFloodOfRecords(t *testing.T) {
	t.Parallel()
	to, honest, flood := newRouted(t, app.RoutingServer, nil), newRouted(t, app.RoutingServer, nil), newOutsider(t, newHost(t, nil))
	flood.to = to
	connect(t, flood.Host, to)
	meet(t, honest, to)
	if err := honest.Advertise(t.Context(), "type/sum"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the honest record is kept", func() bool { return held(to) == 1 })
	somebody := honest.host.ID()
	for i := range 4000 {
		addr := ma.StringCast(fmt.Sprintf("/ip4/10.0.%d.%d/tcp/1", i/250, i%250))
		flood.offer(flood.host.ID(), fmt.Sprintf("key-%d", i), addr)
		if i%10 == 0 {
			flood.offer(somebody, fmt.Sprintf("other-%d", i), addr) // not its own to say
		}
	}
	flood.ask(&pb.Message{Type: pb.Message_PING}) // all before has been read, on this stream at least
	if n := held(to); n < 2 || n > 1+providers.Default.PerPeer {
		t.Errorf("%d records are kept, of one peer %d at most", n, providers.Default.PerPeer)
	}
	if n := len(to.host.Peerstore().Addrs(flood.host.ID())); n > maxKadOwn+maxKadAddresses {
		t.Errorf("%d addresses of one peer are kept", n)
	}
	if ids, err := find(honest, "type/sum"); err != nil || len(ids) != 0 {
		t.Errorf("got %v %v", ids, err)
	}
	other := newRouted(t, app.RoutingClient, nil)
	meet(t, other, to)
	if ids, err := find(other, "type/sum"); err != nil || !slices.Equal(ids, []string{honest.ID()}) {
		t.Errorf("after the flood %v is found, %v", ids, err)
	}
}

// Many identities together stay within the whole, and those with few records keep theirs.
func TestFloodOfIdentities(t *testing.T) {
	t.Parallel()
	to, honest := newRouted(t, app.RoutingServer, nil), newRouted(t, app.RoutingServer, nil)
	meet(t, honest, to)
	if err := honest.Advertise(t.Context(), "type/sum"); err != nil {
		t.Fatal(err)
	}
	bad := make([]*outsider, providers.Default.Total/providers.Default.PerPeer+2)
	for i := range bad {
		bad[i] = newOutsider(t, to)
		for k := range providers.Default.PerPeer {
			bad[i].offer(bad[i].host.ID(), fmt.Sprintf("key-%d-%d", i, k), bad[i].host.Addrs()[0])
		}
	}
	eventually(t, "the store is full", func() bool { return held(to) == providers.Default.Total })
	key := string(nameKey("type/sum").Hash())
	if heldOf(to, key) != 1 {
		t.Error("the honest record is gone")
	}
	// All of them offer what the honest one offers.
	for _, o := range bad {
		o.offer(o.host.ID(), key, o.host.Addrs()[0])
	}
	for _, o := range bad {
		o.ask(&pb.Message{Type: pb.Message_PING})
	}
	if n := held(to); n > providers.Default.Total {
		t.Errorf("%d records are kept, %d at most", n, providers.Default.Total)
	}
	if n := heldOf(to, key); n > providers.Default.PerKey {
		t.Errorf("%d providers of one key are kept", n)
	}
}

// Who asks faster than anybody needs gets no answers, and others do.
func TestRequestsOfOnePeerAreBounded(t *testing.T) {
	t.Parallel()
	to := newRouted(t, app.RoutingServer, nil)
	bad, good := newOutsider(t, to), newOutsider(t, to)
	answers := 0
	for range 3000 {
		if bad.ask(&pb.Message{Type: pb.Message_PING}) != nil {
			answers++
		}
	}
	if answers == 0 || answers > 2000 {
		t.Errorf("%d of 3,000 requests were answered", answers)
	}
	if good.ask(&pb.Message{Type: pb.Message_PING}) == nil {
		t.Error("another peer was not answered")
	}
}

// The table does not tell where a consumer is, although it is connected to the node that is asked; where a server is it tells.
func TestClientsAreNotShown(t *testing.T) {
	t.Parallel()
	to, server, client := newRouted(t, app.RoutingServer, nil), newRouted(t, app.RoutingServer, nil), newRouted(t, app.RoutingClient, nil)
	meet(t, server, to)
	meet(t, client, to)
	eventually(t, "the server is in the table", func() bool { return to.kad.dht.RoutingTable().Find(server.host.ID()) != "" })
	o := newOutsider(t, to)
	for id, shown := range map[peer.ID]bool{server.host.ID(): true, client.host.ID(): false, o.host.ID(): false} {
		r := o.ask(&pb.Message{Type: pb.Message_FIND_NODE, Key: []byte(id)})
		if r == nil {
			t.Fatal("no answer")
		}
		there := slices.ContainsFunc(r.GetCloserPeers(), func(p *pb.Message_Peer) bool { return peer.ID(p.GetId()) == id && len(p.GetAddrs()) > 0 })
		if there != shown {
			t.Errorf("a peer is shown: %v, want %v", there, shown)
		}
	}
}

// A message that is longer than any honest one ends its stream before room is made for it.
func TestLongMessages(t *testing.T) {
	t.Parallel()
	to := newRouted(t, app.RoutingServer, nil)
	o := newOutsider(t, to)
	if got := o.ask(&pb.Message{Type: pb.Message_FIND_NODE, Key: bytes.Repeat([]byte{1}, maxKadRequest+1)}); got != nil {
		t.Errorf("the answer to a long request is %v", got)
	}
	if o.ask(&pb.Message{Type: pb.Message_FIND_NODE, Key: []byte(o.host.ID())}) == nil {
		t.Error("a short one is not answered after it")
	}
}

// fakeStream is a stream that somebody has written to.
type fakeStream struct {
	network.Stream
	io.Reader
	reset bool
}

func (f *fakeStream) Read(b []byte) (int, error) { return f.Reader.Read(b) }
func (f *fakeStream) Reset() error               { f.reset = true; return nil }

func TestStreamBound(t *testing.T) {
	message := func(n int) []byte { return append(binary.AppendUvarint(nil, uint64(n)), make([]byte, n)...) }
	for name, c := range map[string]struct {
		in  []byte
		bad bool
	}{
		"nothing":                 {nil, false},
		"some":                    {slices.Concat(message(0), message(1), message(300), message(1000)), false},
		"one too long":            {slices.Concat(message(999), message(1001)), true},
		"a length without an end": {bytes.Repeat([]byte{0x80}, 9), true},
		"a huge length":           {bytes.Repeat([]byte{0xff}, 9), true},
	} {
		for _, reader := range []func(io.Reader) io.Reader{func(r io.Reader) io.Reader { return r }, iotest.OneByteReader, iotest.HalfReader} {
			f := &fakeStream{Reader: reader(bytes.NewReader(c.in))}
			got, err := io.ReadAll(&kadStream{Stream: f, max: 1000})
			if c.bad != errors.Is(err, errKadTooLong) || c.bad != f.reset || !c.bad && !bytes.Equal(got, c.in) {
				t.Errorf("%s: %d bytes, %v", name, len(got), err)
			}
		}
	}
}

// A refresh finds nodes that this one was never told of, and lets go of those that are gone.
func TestRefresh(t *testing.T) {
	t.Parallel()
	hosts := make([]*Host, 12)
	for i := range hosts {
		hosts[i] = newRouted(t, app.RoutingServer, nil)
		if i > 0 {
			meet(t, hosts[i], hosts[0])
		}
	}
	last := hosts[len(hosts)-1]
	size := last.kad.dht.RoutingTable().Size
	eventually(t, "the table has more than whom it was told of", func() bool {
		last.kad.refresh(t.Context())
		return size() > 3
	})
	gone := hosts[0]
	if err := gone.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "who is gone is out of the table", func() bool {
		last.kad.refresh(t.Context())
		return last.kad.dht.RoutingTable().Find(gone.host.ID()) == ""
	})
}

// Queries end, and are counted, whatever the table does.
func TestQueriesAreBounded(t *testing.T) {
	t.Parallel()
	h := newRouted(t, app.RoutingClient, nil)
	meet(t, h, newRouted(t, app.RoutingServer, nil))
	for range cap(h.kad.queries) {
		if _, _, err := h.kad.begin(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeoutCause(t.Context(), 20*time.Millisecond, errors.New("the caller's patience"))
	defer cancel()
	if err := h.Find(ctx, "type/sum", 1, func(app.Target) error { return nil }); err == nil || !strings.Contains(err.Error(), "patience") {
		t.Errorf("a query beyond the bound: %v", err)
	}
}

func TestStoreNames(t *testing.T) {
	t.Parallel()
	h := newRouted(t, app.RoutingServer, nil)
	c, err := cid.Decode("bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy")
	if err != nil {
		t.Fatal(err)
	}
	meet(t, h, newRouted(t, app.RoutingServer, nil))
	if err := h.kad.provide(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	infos, err := h.kad.dht.ProviderStore().GetProviders(t.Context(), c.Hash())
	if err != nil || len(infos) != 1 || infos[0].ID != h.host.ID() {
		t.Errorf("the library reads %v, %v", infos, err)
	}
	if err := h.kad.dht.ProviderStore().Close(); err != nil { // it writes what it has buffered
		t.Fatal(err)
	}
	if heldOf(h, string(c.Hash())) != 1 {
		t.Error("what the library wrote is not here")
	}
}
