package grpcserver_test

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/shallot-net/shallot/kit/brokerclient"
	"github.com/shallot-net/shallot/kit/brokertest"
	"github.com/shallot-net/shallot/kit/crew"
	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/grpctest"
	"github.com/shallot-net/shallot/kit/lifecycle"
	"github.com/shallot-net/shallot/kit/logging"
	"github.com/shallot-net/shallot/kit/rpc"
	brokerv1 "github.com/shallot-net/shallot/proto/shallot/broker/v1"
	discoveryv1 "github.com/shallot-net/shallot/proto/shallot/discovery/v1"
	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	"github.com/shallot-net/shallot/services/discovery/internal/adapter/broker"
	"github.com/shallot-net/shallot/services/discovery/internal/adapter/grpcserver"
	"github.com/shallot-net/shallot/services/discovery/internal/adapter/postgres"
	"github.com/shallot-net/shallot/services/discovery/internal/adapter/sqlite"
	"github.com/shallot-net/shallot/services/discovery/internal/app"
	"github.com/shallot-net/shallot/services/discovery/internal/domain"
)

const patience = 30 * time.Second // several times a lease, on a busy machine

// node is a broker that runs and a discovery service that may be stopped and started again over the same store.
type node struct {
	t         *testing.T
	broker    *brokertest.Broker
	conn      *grpc.ClientConn
	path      string
	bootstrap []string
	client    discoveryv1.DiscoveryServiceClient
	svc       *app.Service
	stop      func()
	// shared gives the store that replicas have in common; nil: a file of its own.
	shared func() *postgres.Store
	store  interface{ Close() error }
	cutOff bool // from the store: another one takes its lead
}

func newNode(t *testing.T, net *brokertest.Network, bootstrap ...*brokertest.Broker) *node {
	t.Helper()
	n := &node{t: t, broker: net.Add(), path: filepath.Join(t.TempDir(), "discovery.db")}
	n.begin(bootstrap...)
	return n
}

// newNodeOver is one replica of a node.
func newNodeOver(t *testing.T, b *brokertest.Broker, shared func() *postgres.Store, bootstrap *brokertest.Broker) *node {
	t.Helper()
	n := &node{t: t, broker: b, shared: shared}
	n.begin(bootstrap)
	return n
}

func (n *node) begin(bootstrap ...*brokertest.Broker) {
	n.conn = grpctest.Start(n.t, func(s *rpc.Server) { n.broker.Register(s) })
	for _, b := range bootstrap {
		n.bootstrap = append(n.bootstrap, b.JoinAddress())
	}
	n.start()
}

func (n *node) start() {
	t := n.t
	t.Helper()
	log := logging.New(t.Output(), "info", "text", "discovery")
	client := brokerclient.New(n.conn, log)
	link := broker.New(n.conn, client)
	conf := app.Config{Bootstrap: n.bootstrap, Network: link, Events: link, Routing: link, Log: log}
	if n.shared != nil {
		s := n.shared()
		conf.Store, conf.Shared, n.store = s, s, s
	} else {
		s, err := sqlite.Open(t.Context(), n.path, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		conf.Store, n.store = s, s
	}
	store := n.store
	svc, err := app.New(t.Context(), conf)
	if err != nil {
		t.Fatal(err)
	}
	n.svc = svc
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- lifecycle.Run(ctx, svc.Run, func(ctx context.Context) error {
			return svc.While(ctx, func(ctx context.Context) error { return link.Listen(ctx, svc, func(bool) {}) })
		})
	}()
	n.client = discoveryv1.NewDiscoveryServiceClient(grpctest.Start(t, func(s *rpc.Server) { grpcserver.Register(s, svc) }))
	n.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil && !(n.cutOff && errors.Is(err, crew.ErrSuperseded)) {
			t.Errorf("discovery: %v", err)
		}
		client.Close()
		if err := store.Close(); err != nil {
			t.Errorf("store: %v", err)
		}
	})
	t.Cleanup(n.stop)
}

func (n *node) updateSelf(types ...string) {
	n.t.Helper()
	r := &discoveryv1.UpdateSelfRequest{SealingKey: "age1pq1" + strings.Repeat("q", 1950), Puzzle: &eventv1.Puzzle{Nonce: make([]byte, 16), Effort: 32}}
	for _, typ := range types {
		r.Capabilities = append(r.Capabilities, &eventv1.Capability{Type: typ, Attributes: map[string]string{"engine": "wazero"}})
	}
	if _, err := n.client.UpdateSelf(n.t.Context(), r); err != nil {
		n.t.Fatal(err)
	}
}

// until waits for the node's table to satisfy a condition, by watching it.
func (n *node) until(what string, ok func(map[string]*discoveryv1.Peer) bool) map[string]*discoveryv1.Peer {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), patience)
	defer cancel()
	stream, err := n.client.WatchPeers(ctx, &discoveryv1.WatchPeersRequest{})
	if err != nil {
		n.t.Fatal(err)
	}
	peers, synced := map[string]*discoveryv1.Peer{}, false
	for {
		r, err := stream.Recv()
		if err != nil {
			n.t.Fatalf("waiting for %s with %d peers: %v", what, len(peers), err)
		}
		switch c := r.GetChange().(type) {
		case *discoveryv1.WatchPeersResponse_Peer:
			peers[c.Peer.GetPeerId()] = c.Peer
		case *discoveryv1.WatchPeersResponse_ForgottenPeerId:
			delete(peers, c.ForgottenPeerId)
		case *discoveryv1.WatchPeersResponse_Synced:
			synced = true
		}
		if synced && ok(peers) {
			return peers
		}
	}
}

func available(n int) func(map[string]*discoveryv1.Peer) bool {
	return func(peers map[string]*discoveryv1.Peer) bool {
		got := 0
		for _, p := range peers {
			if p.GetState() == "available" {
				got++
			}
		}
		return got >= n
	}
}

func fiveNodes(t *testing.T) (*brokertest.Network, []*node) {
	net := brokertest.NewNetwork()
	first := newNode(t, net)
	nodes := []*node{first}
	for range 4 {
		nodes = append(nodes, newNode(t, net, first.broker))
	}
	return net, nodes
}

func TestFiveNodesKnowEachOther(t *testing.T) {
	t.Parallel()
	_, nodes := fiveNodes(t)
	for _, n := range nodes {
		n.updateSelf("sum", "wasm")
	}
	for _, n := range nodes {
		peers := n.until("the four others", available(4))
		for id, p := range peers {
			if p.GetRole() != "provider" || len(p.GetCapabilities()) != 2 || p.GetSealingKey() == "" || len(p.GetAddresses()) != 1 || p.GetVersion() == 0 {
				t.Errorf("%s is %v", id, p)
			}
			if err := brokerclient.Verify(p.GetAnnouncement()); err != nil || p.GetAnnouncement().GetAuthor() != id {
				t.Errorf("the announcement of %s cannot be handed on: %v", id, err)
			}
		}
	}
	// A full mesh: the network is small.
	for _, n := range nodes {
		n.until("connections to all", func(peers map[string]*discoveryv1.Peer) bool {
			for _, p := range peers {
				if !p.GetConnected() {
					return false
				}
			}
			return len(peers) == 4
		})
	}
}

func TestARestartedServiceRemembersAndIsHeard(t *testing.T) {
	t.Parallel()
	net, nodes := fiveNodes(t)
	for _, n := range nodes {
		n.updateSelf("sum")
	}
	n := nodes[4]
	before := n.until("the others", available(4))
	others := nodes[0].until("the restarted one", available(4))
	version := others[n.broker.PeerID()].GetVersion()

	n.stop()
	nodes[0].until("its goodbye", func(peers map[string]*discoveryv1.Peer) bool {
		return peers[n.broker.PeerID()].GetState() == "leaving"
	})
	net.Part(func(a, b string) bool { return a == n.broker.PeerID() || b == n.broker.PeerID() })
	n.start()
	got, err := n.client.ListPeers(t.Context(), &discoveryv1.ListPeersRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range got.GetPeers() {
		if was := before[p.GetPeerId()]; !p.GetFirstSeen().AsTime().Truncate(time.Microsecond).Equal(was.GetFirstSeen().AsTime().Truncate(time.Microsecond)) {
			t.Errorf("first seen %v, was %v", p.GetFirstSeen().AsTime(), was.GetFirstSeen().AsTime())
		}
	}
	if len(got.GetPeers()) != 4 {
		t.Errorf("%d peers survived the restart", len(got.GetPeers()))
	}
	net.Part(nil)
	// It knows what it does without being told again, and its version has counted up.
	nodes[0].until("its return", func(peers map[string]*discoveryv1.Peer) bool {
		p := peers[n.broker.PeerID()]
		return p.GetState() == "available" && p.GetVersion() > version
	})
}

func TestABrokerThatRestartsElsewhereIsFoundAgain(t *testing.T) {
	t.Parallel()
	_, nodes := fiveNodes(t)
	for _, n := range nodes {
		n.updateSelf("sum")
	}
	for _, n := range nodes {
		n.until("the others", available(4))
	}
	n := nodes[2]
	n.broker.Stop()
	nodes[0].until("the loss", func(peers map[string]*discoveryv1.Peer) bool { return !peers[n.broker.PeerID()].GetConnected() })
	n.broker.Move("/memory/moved")
	n.broker.Start()
	nodes[0].until("the new address", func(peers map[string]*discoveryv1.Peer) bool {
		p := peers[n.broker.PeerID()]
		return p.GetConnected() && p.GetState() == "available" && p.GetAddresses()[0] == "/memory/moved"
	})
}

func TestListPeersFiltersAndPages(t *testing.T) {
	t.Parallel()
	_, nodes := fiveNodes(t)
	for i, n := range nodes {
		n.updateSelf([]string{"sum", "wasm", "wasm", "wasm", "sum"}[i])
	}
	n := nodes[0]
	n.until("the others", available(4))
	seen := map[string]bool{}
	for token := ""; ; {
		r, err := n.client.ListPeers(t.Context(), &discoveryv1.ListPeersRequest{Capability: "wasm", State: "available", PageSize: 2, PageToken: token})
		if err != nil || len(r.GetPeers()) > 2 {
			t.Fatalf("ListPeers = %v, %v", r, err)
		}
		for _, p := range r.GetPeers() {
			seen[p.GetPeerId()] = true
		}
		if token = r.GetNextPageToken(); token == "" {
			break
		}
	}
	if len(seen) != 3 {
		t.Errorf("%d peers offer wasm, want 3", len(seen))
	}
	for _, c := range []struct {
		r      *discoveryv1.ListPeersRequest
		reason string
	}{
		{&discoveryv1.ListPeersRequest{State: "leavin"}, "STATE_UNKNOWN"},
		{&discoveryv1.ListPeersRequest{PageToken: "*"}, "PAGE_TOKEN_INVALID"},
	} {
		if _, err := n.client.ListPeers(t.Context(), c.r); fault.From(err).Reason != c.reason {
			t.Errorf("ListPeers(%v) = %v, want %s", c.r, err, c.reason)
		}
	}
	if _, err := n.client.GetPeer(t.Context(), &discoveryv1.GetPeerRequest{PeerId: "nobody"}); fault.From(err).Reason != "PEER_UNKNOWN" {
		t.Errorf("GetPeer = %v", err)
	}
	r, err := n.client.Ping(t.Context(), &discoveryv1.PingRequest{PeerId: nodes[1].broker.PeerID()})
	if err != nil || r.GetRtt().AsDuration() <= 0 {
		t.Errorf("Ping = %v, %v", r, err)
	}
	if _, err := n.client.Join(t.Context(), &discoveryv1.JoinRequest{Address: "127.0.0.1:4001"}); fault.From(err).Reason != "ADDRESS_INVALID" {
		t.Errorf("Join = %v", err)
	}
}

// speaker sends events of its own making to a node, as a peer could.
type speaker struct {
	b *brokertest.Broker
	c *brokerclient.Client
}

func newSpeaker(t *testing.T, net *brokertest.Network, to *node) speaker {
	s := speaker{b: net.Add()}
	s.c = brokerclient.New(grpctest.Start(t, func(r *rpc.Server) { s.b.Register(r) }), nil)
	t.Cleanup(s.c.Close)
	net.Connect(s.b, to.broker)
	return s
}

func (s speaker) send(t *testing.T, to *node, ev *eventv1.Event) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for { // the node may still be starting
		err := s.c.Send(ctx, "", to.broker.PeerID(), ev, brokerclient.SendOptions{})
		if err == nil || fault.From(err).Reason != "NO_SUBSCRIBER" || ctx.Err() != nil {
			return err
		}
	}
}

func (s speaker) announcement(t *testing.T, change func(*eventv1.Announcement)) *eventv1.Event {
	t.Helper()
	m := broker.Encode(domain.Announcement{PeerID: s.b.PeerID(), Version: 1, Role: domain.RoleProvider, SealingKey: "age1" + strings.Repeat("q", 58), Interval: time.Minute})
	if change != nil {
		change(m)
	}
	ev, err := brokerclient.NewEvent(eventv1.EventType_EVENT_TYPE_ANNOUNCEMENT, m)
	if err != nil {
		t.Fatal(err)
	}
	return s.b.SignEvent(ev)
}

func TestHostileAnnouncements(t *testing.T) {
	t.Parallel()
	net := brokertest.NewNetwork()
	n := newNode(t, net)
	n.updateSelf("sum")
	s := newSpeaker(t, net, n)
	for name, change := range map[string]func(*eventv1.Announcement){
		"another's": func(m *eventv1.Announcement) { m.PeerId = n.broker.PeerID() },
		"no key":    func(m *eventv1.Announcement) { m.SealingKey = "" },
		"consumer":  func(m *eventv1.Announcement) { m.Role = "consumer" },
		"address":   func(m *eventv1.Announcement) { m.Addresses = []string{"/ip4/1.2.3.4\x00/tcp/1"} },
		"interval":  func(m *eventv1.Announcement) { m.Interval.Seconds = -5 },
	} {
		if err := s.send(t, n, s.announcement(t, change)); fault.From(err).Reason != brokerclient.ReasonRejected {
			t.Errorf("%s: %v, want REJECTED", name, err)
		}
	}
	if err := s.send(t, n, s.announcement(t, nil)); err != nil {
		t.Errorf("a good one: %v", err)
	}
	if err := s.send(t, n, s.announcement(t, nil)); err != nil {
		t.Errorf("the same again is ignored, not refused: %v", err)
	}
	r, err := n.client.ListPeers(t.Context(), &discoveryv1.ListPeersRequest{})
	if err != nil || len(r.GetPeers()) != 1 || r.GetPeers()[0].GetPeerId() != s.b.PeerID() {
		t.Errorf("the table is %v, %v", r, err)
	}
}

func TestDiscoverIsAnsweredToAStrangerWithoutAService(t *testing.T) {
	t.Parallel()
	net, nodes := fiveNodes(t)
	for _, n := range nodes {
		n.updateSelf("sum")
	}
	for _, n := range nodes {
		n.until("the others", available(4))
	}
	consumer := net.Add()
	c := brokerclient.New(grpctest.Start(t, func(r *rpc.Server) { consumer.Register(r) }), nil)
	t.Cleanup(c.Close)
	net.Connect(consumer, nodes[0].broker)
	answers := make(chan *eventv1.DiscoverResponse, 1)
	up := make(chan struct{}, 1)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = c.Subscribe(ctx, &brokerv1.Open{Group: "node", Types: []eventv1.EventType{eventv1.EventType_EVENT_TYPE_DISCOVER_RESPONSE}},
			func(_ context.Context, d *brokerv1.Delivery) brokerclient.Answer {
				var m eventv1.DiscoverResponse
				if err := proto.Unmarshal(d.GetEvent().GetPayload(), &m); err != nil {
					return brokerclient.Rejected("INVALID")
				}
				answers <- &m
				return brokerclient.Applied()
			}, brokerclient.SubscribeOptions{OnState: func(is bool, _ error) {
				if is {
					up <- struct{}{}
				}
			}})
	}()
	defer func() { cancel(); <-ended }()
	<-up
	ev, err := brokerclient.NewEvent(eventv1.EventType_EVENT_TYPE_DISCOVER, &eventv1.Discover{})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Send(ctx, "", nodes[0].broker.PeerID(), ev, brokerclient.SendOptions{}); err != nil {
		t.Fatal(err)
	}
	select {
	case m := <-answers:
		if m.GetInReplyTo() != ev.GetId() || len(m.GetAnnouncements()) != 5 || m.GetAnnouncements()[0].GetAuthor() != nodes[0].broker.PeerID() || m.GetKnown() != 5 || len(m.GetPuzzle().GetNonce()) != 16 || m.GetPuzzle().GetEffort() != 32 {
			t.Errorf("%d announcements, %d known, the price is %v", len(m.GetAnnouncements()), m.GetKnown(), m.GetPuzzle())
		}
		for _, a := range m.GetAnnouncements() {
			if err := brokerclient.Verify(a); err != nil {
				t.Error(err)
			}
		}
	case <-time.After(patience):
		t.Fatal("no answer")
	}
}

func TestUpdateSelfRefusesNonsense(t *testing.T) {
	t.Parallel()
	n := newNode(t, brokertest.NewNetwork())
	_, err := n.client.UpdateSelf(t.Context(), &discoveryv1.UpdateSelfRequest{SealingKey: "not a recipient"})
	if fault.From(err).Reason != "SELF_INVALID" {
		t.Errorf("UpdateSelf = %v", err)
	}
}

// A provider that was told of nobody finds those whom the routing table names, and is found there itself.
func TestStrangers(t *testing.T) {
	t.Parallel()
	net := brokertest.NewNetwork()
	third := net.Add() // with no discovery that could tell of others
	a := newNode(t, net, third)
	a.updateSelf("sum")
	b := newNode(t, net, third)
	b.updateSelf("sum")
	for _, n := range []*node{a, b} {
		n.until("the other is known", func(peers map[string]*discoveryv1.Peer) bool { return len(peers) == 1 })
		if !n.broker.Offers("role/provider") || !n.broker.Offers("type/sum") {
			t.Error("a provider is not in the routing table")
		}
	}
}
