package grpcserver_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/shallot-net/shallot/broker/internal/app"
	"github.com/shallot-net/shallot/broker/internal/domain/access"
	"github.com/shallot-net/shallot/broker/internal/testbroker"
	"github.com/shallot-net/shallot/kit/fault"
	brokerv1 "github.com/shallot-net/shallot/proto/shallot/broker/v1"
	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
)

func wantFault(t *testing.T, err error, code codes.Code, reason string) {
	t.Helper()
	f := fault.From(err)
	if f == nil || f.Code != code || f.Reason != reason {
		t.Errorf("got %v, want %v %s", err, code, reason)
	}
}

func TestSelfAndPeers(t *testing.T) {
	t.Parallel()
	a, b := pair(t, testbroker.Options{})
	self, err := a.Network.Self(t.Context(), &brokerv1.SelfRequest{})
	if err != nil || self.GetPeerId() != a.ID || self.GetMode() != "open" || !self.GetOnline() || self.GetConnections() != 1 || len(self.GetAddresses()) != 1 {
		t.Errorf("got %v %v", self, err)
	}
	if addr := self.GetAddresses()[0]; strings.Contains(addr, "/p2p/") || !strings.HasPrefix(addr, "/ip4/127.0.0.1/tcp/") {
		t.Errorf("the address is %s", addr)
	}
	testbroker.Eventually(t, "the round trip is measured", func() bool {
		r, err := a.Network.ListPeers(t.Context(), &brokerv1.ListPeersRequest{})
		if err != nil || len(r.GetPeers()) != 1 {
			t.Fatalf("got %v %v", r, err)
		}
		p := r.GetPeers()[0]
		if p.GetPeerId() != b.ID || p.GetInbound() || p.GetConnectedAt().AsTime().IsZero() {
			t.Fatalf("got %v", p)
		}
		return p.GetRtt().AsDuration() > 0
	})
	testbroker.Eventually(t, "the other side sees it as inbound", func() bool {
		r, err := b.Network.ListPeers(t.Context(), &brokerv1.ListPeersRequest{})
		return err == nil && len(r.GetPeers()) == 1 && r.GetPeers()[0].GetInbound()
	})
}

func TestWatch(t *testing.T) {
	t.Parallel()
	a, b := pair(t, testbroker.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	w, err := a.Network.Watch(ctx, &brokerv1.WatchRequest{})
	if err != nil {
		t.Fatal(err)
	}
	next := func(peer string, connected bool) {
		t.Helper()
		for {
			r, err := w.Recv()
			if err != nil {
				t.Fatal(err)
			}
			if r.GetPeerId() == peer && r.GetConnected() == connected {
				return
			}
			if r.GetPeerId() != peer {
				t.Fatalf("got %v", r)
			}
		}
	}
	next(b.ID, true)
	if _, err := a.Network.Disconnect(t.Context(), &brokerv1.DisconnectRequest{PeerId: b.ID}); err != nil {
		t.Fatal(err)
	}
	next(b.ID, false)
	b.Connect(a)
	next(b.ID, true)
	b.Stop()
	next(b.ID, false)
}

func TestConnectErrors(t *testing.T) {
	t.Parallel()
	a, b := testbroker.Start(t, testbroker.Options{}), testbroker.Start(t, testbroker.Options{})
	stranger := testbroker.Start(t, testbroker.Options{})
	bare := strings.TrimSuffix(b.Addrs[0], "/p2p/"+b.ID)
	for name, c := range map[string]struct {
		r      *brokerv1.ConnectRequest
		code   codes.Code
		reason string
	}{
		"nothing":          {&brokerv1.ConnectRequest{}, codes.InvalidArgument, "PEER_MISSING"},
		"no multiaddr":     {&brokerv1.ConnectRequest{Addresses: []string{"127.0.0.1:4001"}}, codes.InvalidArgument, "ADDRESS_INVALID"},
		"no peer":          {&brokerv1.ConnectRequest{Addresses: []string{bare}}, codes.InvalidArgument, "ADDRESS_INVALID"},
		"bad peer":         {&brokerv1.ConnectRequest{PeerId: "nobody"}, codes.InvalidArgument, "PEER_ID_INVALID"},
		"two peers":        {&brokerv1.ConnectRequest{PeerId: stranger.ID, Addresses: b.Addrs}, codes.InvalidArgument, "PEER_MISMATCH"},
		"no address":       {&brokerv1.ConnectRequest{PeerId: b.ID}, codes.NotFound, "NO_ADDRESS"},
		"itself":           {&brokerv1.ConnectRequest{Addresses: a.Addrs}, codes.InvalidArgument, "PEER_IS_SELF"},
		"somebody else":    {&brokerv1.ConnectRequest{Addresses: []string{bare + "/p2p/" + "12D3KooWBmAwcd4PJNJvfV89HwE48nwkRmAgo8Vy3uQEyNNHBox2"}}, codes.FailedPrecondition, "PEER_MISMATCH"},
		"nobody there":     {&brokerv1.ConnectRequest{Addresses: []string{"/ip4/127.0.0.1/tcp/1/p2p/" + "12D3KooWQYhTNQdmr3ArTeUHRYzFg94BKyTkoWBDWez9kSCVe2Xo"}}, codes.Unavailable, "UNREACHABLE"},
		"another persona":  {&brokerv1.ConnectRequest{Persona: "p", Addresses: b.Addrs}, codes.FailedPrecondition, "OPEN_MODE"},
		"a long address":   {&brokerv1.ConnectRequest{Addresses: []string{strings.Repeat("/ip4/127.0.0.1", 40)}}, codes.InvalidArgument, "ADDRESS_INVALID"},
		"a name to itself": {&brokerv1.ConnectRequest{Addresses: make([]string, 17)}, codes.InvalidArgument, "TOO_MANY_ADDRESSES"},
	} {
		_, err := a.Network.Connect(t.Context(), c.r)
		if f := fault.From(err); f == nil || f.Code != c.code || f.Reason != c.reason {
			t.Errorf("%s: got %v, want %v %s", name, err, c.code, c.reason)
		}
	}
	// A bare address is enough with the peer's id.
	if r, err := a.Network.Connect(t.Context(), &brokerv1.ConnectRequest{PeerId: b.ID, Addresses: []string{bare}}); err != nil || r.GetPeerId() != b.ID {
		t.Errorf("got %v %v", r, err)
	}
}

func TestProtectAndFindPeers(t *testing.T) {
	t.Parallel()
	a, b := pair(t, testbroker.Options{})
	for _, peers := range [][]string{{b.ID}, {}} {
		if _, err := a.Network.Protect(t.Context(), &brokerv1.ProtectRequest{Tag: "neighbour", PeerIds: peers}); err != nil {
			t.Error(err)
		}
	}
	_, err := a.Network.Protect(t.Context(), &brokerv1.ProtectRequest{Tag: "neighbour", PeerIds: []string{"x"}})
	wantFault(t, err, codes.InvalidArgument, "PEER_ID_INVALID")
	_, err = a.Network.Protect(t.Context(), &brokerv1.ProtectRequest{PeerIds: []string{b.ID}})
	wantFault(t, err, codes.InvalidArgument, "TAG_INVALID")
	find, err := a.Network.FindPeers(t.Context(), &brokerv1.FindPeersRequest{Capability: "sum"})
	if err == nil {
		_, err = find.Recv()
	}
	wantFault(t, err, codes.FailedPrecondition, "ROUTING_OFF")
}

// Who was dialled with success is known after a restart, and where; who dialled this node, or did not answer, is not.
func TestKnownPeersOutliveTheBroker(t *testing.T) {
	t.Parallel()
	a, b := testbroker.Start(t, testbroker.Options{}), testbroker.Start(t, testbroker.Options{})
	a.Connect(b)
	_, _ = a.Network.Connect(t.Context(), &brokerv1.ConnectRequest{Addresses: []string{"/ip4/127.0.0.1/tcp/1/p2p/" + "12D3KooWQYhTNQdmr3ArTeUHRYzFg94BKyTkoWBDWez9kSCVe2Xo"}})
	known := func(on *testbroker.Broker) []*brokerv1.KnownPeer {
		r, err := on.Network.ListKnownPeers(t.Context(), &brokerv1.ListKnownPeersRequest{})
		if err != nil {
			t.Fatal(err)
		}
		return r.GetPeers()
	}
	testbroker.Eventually(t, "the peer is known", func() bool { return len(known(a)) == 1 })
	a.Stop()
	a = testbroker.Start(t, testbroker.Options{Dir: a.Dir})
	got := known(a)
	if len(got) != 1 || got[0].GetPeerId() != b.ID || len(got[0].GetAddresses()) != 1 || got[0].GetAddresses()[0]+"/p2p/"+b.ID != b.Addrs[0] || got[0].GetLastConnectedAt() == nil {
		t.Errorf("after a restart %v is known, want %s at %v", got, b.ID, b.Addrs)
	}
	if got := known(b); len(got) != 0 {
		t.Errorf("who was dialled knows %v", got)
	}
	a.Stop()
	if err := os.WriteFile(filepath.Join(a.Dir, "peers.json"), []byte("torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	a = testbroker.Start(t, testbroker.Options{Dir: a.Dir})
	if got := known(a); len(got) != 0 {
		t.Errorf("a torn book has %v", got)
	}
	_, err := a.Network.ListKnownPeers(t.Context(), &brokerv1.ListKnownPeersRequest{Persona: "p"})
	wantFault(t, err, codes.FailedPrecondition, "OPEN_MODE")
}

// Who is not admitted is cut off, and neither comes back nor is dialled; others are untouched.
func TestRestrict(t *testing.T) {
	t.Parallel()
	a, b, c := testbroker.Start(t, testbroker.Options{}), testbroker.Start(t, testbroker.Options{}), testbroker.Start(t, testbroker.Options{})
	b.Connect(a)
	c.Connect(a)
	connected := func(to *testbroker.Broker) bool {
		r, err := a.Network.ListPeers(t.Context(), &brokerv1.ListPeersRequest{})
		return err == nil && slices.ContainsFunc(r.GetPeers(), func(p *brokerv1.ConnectedPeer) bool { return p.GetPeerId() == to.ID })
	}
	testbroker.Eventually(t, "both are connected", func() bool { return connected(b) && connected(c) })
	a.App.Restrict(access.New(nil, []string{b.ID}))
	testbroker.Eventually(t, "the denied one is cut off", func() bool { return !connected(b) })
	if !connected(c) {
		t.Error("another was cut off with it")
	}
	_, err := a.Network.Connect(t.Context(), &brokerv1.ConnectRequest{Addresses: b.Addrs})
	wantFault(t, err, codes.PermissionDenied, "PEER_NOT_ADMITTED")
	_, err = b.Network.Connect(t.Context(), &brokerv1.ConnectRequest{Addresses: a.Addrs})
	if err == nil { // the dialler may have thought for a moment that it was in
		testbroker.Eventually(t, "it is out again", func() bool { return !connected(b) })
	} else {
		wantFault(t, err, codes.Unavailable, "UNREACHABLE")
	}
	a.App.Restrict(access.New([]string{b.ID}, nil))
	testbroker.Eventually(t, "who is not allowed is cut off", func() bool { return !connected(c) })
	b.Connect(a)
	testbroker.Eventually(t, "who is allowed is in", func() bool { return connected(b) })
}

// What travels is counted at both ends, by kind of protocol, and no peer is named by it.
func TestTrafficIsCounted(t *testing.T) {
	t.Parallel()
	a, b := pair(t, testbroker.Options{})
	m := b.Subscribe(testbroker.Open("g", eventv1.EventType_EVENT_TYPE_PING))
	before := a.Metric("shallot_broker_stream_bytes_total", "event", "out")
	sent := a.Sender().Go(b.ID, testbroker.Event(t, eventv1.EventType_EVENT_TYPE_PING), false, testbroker.Patience)
	m.Ack(m.Next(), ok, "")
	if f := testbroker.Answer(t, sent); f != nil {
		t.Fatal(f)
	}
	out := a.Metric("shallot_broker_stream_bytes_total", "event", "out") - before
	if out <= 0 || out > 4096 {
		t.Errorf("a ping went out as %v bytes", out)
	}
	if in := b.Metric("shallot_broker_stream_bytes_total", "event", "in"); in < out/2 || in > 4096 {
		t.Errorf("%v bytes went out, %v came in", out, in)
	}
	if n := a.Metric("shallot_broker_stream_bytes_total", "identify", "in"); n <= 0 {
		t.Errorf("the peers have told each other who they are in %v bytes", n)
	}
}

// Nodes of a private network reach each other and nobody else, and nobody else reaches them.
func TestPrivateNetwork(t *testing.T) {
	t.Parallel()
	key, other := bytes.Repeat([]byte{7}, 32), bytes.Repeat([]byte{8}, 32)
	a, b := testbroker.Start(t, testbroker.Options{NetworkKey: key}), testbroker.Start(t, testbroker.Options{NetworkKey: key})
	if self, err := a.Network.Self(t.Context(), &brokerv1.SelfRequest{}); err != nil || !self.GetPrivateNetwork() {
		t.Errorf("of itself it says %v, %v", self, err)
	}
	a.Connect(b)
	sent := a.Sender().Go(b.ID, testbroker.Event(t, eventv1.EventType_EVENT_TYPE_PING), false, testbroker.Patience)
	m := b.Subscribe(testbroker.Open("g", eventv1.EventType_EVENT_TYPE_PING))
	m.Ack(m.Next(), ok, "")
	if f := testbroker.Answer(t, sent); f != nil {
		t.Errorf("an event within the network: %v", f)
	}
	for name, outsider := range map[string]*testbroker.Broker{
		"an open node":              testbroker.Start(t, testbroker.Options{}),
		"a node of another network": testbroker.Start(t, testbroker.Options{NetworkKey: other}),
	} {
		for _, try := range []struct{ from, to *testbroker.Broker }{{outsider, a}, {a, outsider}} {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			_, err := try.from.Network.Connect(ctx, &brokerv1.ConnectRequest{Addresses: try.to.Addrs})
			cancel()
			if f := fault.From(err); f == nil || f.Reason != "UNREACHABLE" || !strings.Contains(err.Error(), "network") {
				t.Errorf("%s: got %v", name, err)
			}
		}
		if r, err := outsider.Network.ListPeers(t.Context(), &brokerv1.ListPeersRequest{}); err != nil || len(r.GetPeers()) > 0 {
			t.Errorf("%s is connected to %v, %v", name, r.GetPeers(), err)
		}
	}
}

func TestPersonasInOpenMode(t *testing.T) {
	t.Parallel()
	a := testbroker.Start(t, testbroker.Options{})
	_, err := a.Network.OpenPersona(t.Context(), &brokerv1.OpenPersonaRequest{Persona: "p"})
	wantFault(t, err, codes.FailedPrecondition, "OPEN_MODE")
	_, err = a.Network.ClosePersona(t.Context(), &brokerv1.ClosePersonaRequest{Persona: "p"})
	wantFault(t, err, codes.FailedPrecondition, "OPEN_MODE")
	r, err := a.Network.ListPersonas(t.Context(), &brokerv1.ListPersonasRequest{})
	if err != nil || len(r.GetPersonas()) != 1 || r.GetPersonas()[0].GetName() != "" || r.GetPersonas()[0].GetPeerId() != a.ID {
		t.Errorf("got %v %v", r, err)
	}
}

// Where the mode has them, personas are identities of their own, and outlive a restart until they are closed.
func TestPersonas(t *testing.T) {
	t.Parallel()
	several := testbroker.Options{Mode: app.ModeAnonymous}
	a := testbroker.Start(t, several)
	b := testbroker.Start(t, testbroker.Options{})
	open := func(on *testbroker.Broker, name string) string {
		t.Helper()
		r, err := on.Network.OpenPersona(t.Context(), &brokerv1.OpenPersonaRequest{Persona: name})
		if err != nil {
			t.Fatal(err)
		}
		return r.GetPersona().GetPeerId()
	}
	p, q := open(a, "p"), open(a, "q")
	if p == q || p == a.ID || open(a, "p") != p {
		t.Errorf("personas %s and %s of %s", p, q, a.ID)
	}
	if _, err := a.Network.Connect(t.Context(), &brokerv1.ConnectRequest{Persona: "p", Addresses: b.Addrs}); err != nil {
		t.Fatal(err)
	}
	m := b.Subscribe(testbroker.Open("node", log))
	stream, err := a.Events.Send(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&brokerv1.SendRequest{Seq: 1, Persona: "p", PeerId: b.ID, Event: testbroker.Event(t, log), Sign: true}); err != nil {
		t.Fatal(err)
	}
	d := m.Next()
	m.Ack(d, ok, "")
	if d.GetFromPeer() != p || d.GetEvent().GetAuthor() != p {
		t.Errorf("it came from %s, signed by %s", d.GetFromPeer(), d.GetEvent().GetAuthor())
	}
	if r, err := stream.Recv(); err != nil || r.GetFault() != nil {
		t.Errorf("got %v %v", r, err)
	}
	if _, err := a.Network.ClosePersona(t.Context(), &brokerv1.ClosePersonaRequest{Persona: "q"}); err != nil {
		t.Fatal(err)
	}
	_, err = a.Network.Self(t.Context(), &brokerv1.SelfRequest{Persona: "q"})
	wantFault(t, err, codes.FailedPrecondition, "PERSONA_NOT_OPEN")
	_, err = a.Network.OpenPersona(t.Context(), &brokerv1.OpenPersonaRequest{Persona: "../x"})
	wantFault(t, err, codes.InvalidArgument, "PERSONA_INVALID")
	a.Stop()
	again := testbroker.Start(t, testbroker.Options{Dir: a.Dir, Mode: app.ModeAnonymous})
	r, err := again.Network.ListPersonas(t.Context(), &brokerv1.ListPersonasRequest{})
	if err != nil || len(r.GetPersonas()) != 2 || r.GetPersonas()[1].GetPeerId() != p {
		t.Errorf("after the restart: %v %v", r, err)
	}
}

func TestPortInUse(t *testing.T) {
	t.Parallel()
	a := testbroker.Start(t, testbroker.Options{})
	addr := strings.TrimSuffix(a.Addrs[0], "/p2p/"+a.ID)
	_, err := testbroker.TryStart(t, testbroker.Options{Listen: []string{addr}})
	wantFault(t, err, codes.FailedPrecondition, "PORT_IN_USE")
	if err == nil || !strings.Contains(err.Error(), addr) {
		t.Errorf("the error does not name the address %s: %v", addr, err)
	}
	_, err = testbroker.TryStart(t, testbroker.Options{Listen: []string{"/ip4/127.0.0.1/udp/1/quic-v1"}})
	wantFault(t, err, codes.InvalidArgument, "LISTEN_ADDR_INVALID")
}

func TestTornKeyFile(t *testing.T) {
	t.Parallel()
	a := testbroker.Start(t, testbroker.Options{})
	a.Stop()
	path := filepath.Join(a.Dir, "identity.pem")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b[:len(b)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = testbroker.TryStart(t, testbroker.Options{Dir: a.Dir})
	wantFault(t, err, codes.FailedPrecondition, "KEY_BROKEN")
	if err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("the error does not name the file: %v", err)
	}
}
