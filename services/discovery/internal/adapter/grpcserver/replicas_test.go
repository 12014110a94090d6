package grpcserver_test

import (
	"context"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/shallot-net/shallot/kit/brokertest"
	"github.com/shallot-net/shallot/kit/logging"
	"github.com/shallot-net/shallot/kit/pgtest"
	discoveryv1 "github.com/shallot-net/shallot/proto/shallot/discovery/v1"
	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	"github.com/shallot-net/shallot/services/discovery/internal/adapter/postgres"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// newReplicas are of one node: one broker, one database.
func newReplicas(t *testing.T, net *brokertest.Network, count int, bootstrap *brokertest.Broker) []*node {
	t.Helper()
	server := pgtest.Shared(t)
	first := newNodeOver(t, net.Add(), opener(t, server.URL(server.Database(t)), server.PasswordFile), bootstrap)
	all := []*node{first}
	for range count - 1 {
		all = append(all, newNodeOver(t, first.broker, first.shared, bootstrap))
	}
	return all
}

func opener(t *testing.T, url, password string) func() *postgres.Store {
	return func() *postgres.Store {
		t.Helper()
		s, err := postgres.Open(t.Context(), url, password, logging.New(t.Output(), "info", "text", "store"))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
}

// leader waits for one that leads.
func leader(t *testing.T, among []*node) (leads *node, others []*node) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	led := make(chan *node, len(among))
	for _, n := range among {
		go func() {
			if n.svc.Led(ctx) {
				led <- n
			}
		}()
	}
	select {
	case leads = <-led:
	case <-ctx.Done():
		t.Fatal("none of them leads")
	}
	for _, n := range among {
		if n != leads {
			others = append(others, n)
		}
	}
	return leads, others
}

// All replicas show one table and take what node says; one announces, with versions that go up; whichever of them is killed, the others go on.
func TestReplicasShareOneTable(t *testing.T) {
	t.Parallel()
	net := brokertest.NewNetwork()
	other := newNode(t, net)
	other.updateSelf("sum")
	replicas := newReplicas(t, net, 3, other.broker)
	_, follow := leader(t, replicas)
	follow[0].updateSelf("sum", "wasm")
	id := replicas[0].broker.PeerID()
	var version uint64
	for round := range 3 {
		for _, n := range replicas {
			n.until("the other node", func(peers map[string]*discoveryv1.Peer) bool {
				p := peers[other.broker.PeerID()]
				return len(peers) == 1 && p.GetState() == "available" && p.GetConnected()
			})
		}
		seen := other.until("the replicated node", func(peers map[string]*discoveryv1.Peer) bool {
			return peers[id].GetVersion() > version && len(peers[id].GetCapabilities()) == 2+round%2
		})
		version = seen[id].GetVersion()
		leads, rest := leader(t, replicas)
		if round == 0 { // as one that is killed: it can say nothing to the others
			if err := leads.store.Close(); err != nil {
				t.Error(err)
			}
		}
		leads.stop()
		if round == 2 {
			break
		}
		next := newNodeOver(t, leads.broker, leads.shared, other.broker)
		replicas = append(rest, next)
		types := []string{"sum", "wasm"}
		if round == 0 {
			types = append(types, "more")
		}
		next.updateSelf(types...) // most likely at one that does not lead
	}
	seen := map[uint64]bool{}
	for _, p := range replicas[0].broker.Published() {
		var a eventv1.Announcement
		if err := proto.Unmarshal(p.GetEvent().GetPayload(), &a); err != nil {
			t.Fatal(err)
		}
		if a.GetVersion() == 0 || seen[a.GetVersion()] {
			t.Errorf("version %d was announced twice", a.GetVersion())
		}
		seen[a.GetVersion()] = true
		if a.GetLeaving() {
			t.Error("one of several replicas said goodbye for the node")
		}
	}
	other.until("the node, still", available(1))
}

// A table that changes at the replica that leads changes at the others, which hear of it and never look by themselves.
func TestReplicasFollow(t *testing.T) {
	t.Parallel()
	net := brokertest.NewNetwork()
	first := newNode(t, net)
	first.updateSelf("sum")
	replicas := newReplicas(t, net, 2, first.broker)
	replicas[0].updateSelf("sum")
	_, follow := leader(t, replicas)
	follow[0].until("the first node", available(1))
	second := newNode(t, net, first.broker)
	second.updateSelf("wasm")
	follow[0].until("the second node", available(2))
	second.stop()
	follow[0].until("the second node's leave", func(peers map[string]*discoveryv1.Peer) bool {
		return peers[second.broker.PeerID()].GetState() == "leaving"
	})
}

// One that leads and is cut off from the store, but not from the broker, has stepped down before another one leads: that one hears all that there is to hear.
func TestOneThatIsCutOffStepsDown(t *testing.T) {
	t.Parallel()
	net := brokertest.NewNetwork()
	first := newNode(t, net)
	first.updateSelf("sum")
	server := pgtest.Shared(t)
	proxy := server.NewProxy(t)
	url := server.URL(server.Database(t))
	cut := newNodeOver(t, net.Add(), opener(t, strings.Replace(url, server.Dir, proxy.Dir, 1), server.PasswordFile), first.broker)
	cut.cutOff = true
	cut.updateSelf("sum")
	cut.until("the first node", available(1))
	next := newNodeOver(t, cut.broker, opener(t, url, server.PasswordFile), first.broker)
	if !cut.svc.Leads() || next.svc.Leads() {
		t.Fatal("the first of two does not lead")
	}
	proxy.Pause()
	defer proxy.Resume()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if !next.svc.Led(ctx) {
		t.Fatal("no other one leads")
	}
	if cut.svc.Leads() {
		t.Error("it leads beside another one")
	}
	for i := range 5 { // each is told of in a few words, that half of a group would miss
		more := newNode(t, net, first.broker)
		more.updateSelf("wasm")
		next.until("one more node", available(i+2))
	}
}
