package grpcserver_test

import (
	"context"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/shallot-net/shallot/kit/brokertest"
	"github.com/shallot-net/shallot/kit/grpctest"
	"github.com/shallot-net/shallot/kit/logging"
	"github.com/shallot-net/shallot/kit/pgtest"
	"github.com/shallot-net/shallot/kit/rpc"
	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	metricv1 "github.com/shallot-net/shallot/proto/shallot/metric/v1"
	"github.com/shallot-net/shallot/services/metric/internal/adapter/postgres"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// newReplicas are of one node: one broker, one database, and each on the host that is named.
func newReplicas(t *testing.T, net *brokertest.Network, hosts ...string) []*node {
	t.Helper()
	server := pgtest.Shared(t)
	database := server.Database(t)
	b := net.Add()
	var out []*node
	for _, host := range hosts {
		n := &node{t: t, broker: b, dir: t.TempDir(), host: host, shared: func() *postgres.Store {
			s, err := postgres.Open(t.Context(), server.URL(database), server.PasswordFile, logging.New(t.Output(), "info", "text", "store"))
			if err != nil {
				t.Fatal(err)
			}
			return s
		}}
		n.conn = grpctest.Start(t, func(s *rpc.Server) { b.Register(s) })
		n.start()
		out = append(out, n)
	}
	return out
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

// Three replicas on two hosts are two hosts' worth of a node at each of them; whoever is told of the queue, all know it; one tells the network, and when it is killed another does, with
// versions that go up.
func TestReplicasAreOneNode(t *testing.T) {
	t.Parallel()
	net := brokertest.NewNetwork()
	other := newNode(t, net)
	replicas := newReplicas(t, net, "one", "two", "two")
	net.Connect(other.broker, replicas[0].broker)
	id := replicas[0].broker.PeerID()
	single := other.until("its own metric", func(known map[string]*metricv1.KnownMetric) bool { return known[other.broker.PeerID()] != nil })
	threads := single[other.broker.PeerID()].GetMetric().GetCpu().GetThreads() // all run on this machine
	both := func(pending uint32) func(map[string]*metricv1.KnownMetric) bool {
		return func(known map[string]*metricv1.KnownMetric) bool {
			m := known[id].GetMetric()
			return m.GetCpu().GetThreads() == 2*threads && m.GetQueue().GetPending() == pending
		}
	}
	report := func(n *node, pending uint32) {
		t.Helper()
		if _, err := n.client.ReportQueue(t.Context(), &metricv1.ReportQueueRequest{Queue: &eventv1.Queue{Pending: pending, Slots: 4}}); err != nil {
			t.Fatal(err)
		}
	}
	var version uint64
	for round := range 2 {
		leads, follow := leader(t, replicas)
		pending := uint32(3 + round)
		report(follow[0], pending)
		for _, n := range replicas {
			n.until("both hosts and the queue", both(pending))
		}
		seen := other.until("the node, told", both(pending))
		if v := seen[id].GetMetric().GetVersion(); v <= version {
			t.Errorf("version %d came after %d", v, version)
		} else {
			version = v
		}
		for _, n := range replicas {
			n.until("the other node's metric", func(known map[string]*metricv1.KnownMetric) bool { return known[other.broker.PeerID()] != nil })
			r, err := n.client.RefreshMetrics(t.Context(), &metricv1.RefreshMetricsRequest{PeerIds: []string{other.broker.PeerID()}, Timeout: durationpb.New(5 * time.Second)})
			if err != nil || len(r.GetMetrics()) != 1 {
				t.Errorf("a peer that is asked by one of them does not answer it: %v, %v", r, err)
			}
		}
		if round > 0 {
			break
		}
		if err := leads.store.Close(); err != nil { // as one that is killed: it can say nothing to the others
			t.Error(err)
		}
		leads.stop()
		next := &node{t: t, broker: leads.broker, dir: t.TempDir(), host: leads.host, shared: leads.shared, conn: leads.conn}
		next.start()
		replicas = append(follow, next)
	}
	seen := map[uint64]bool{}
	for _, p := range replicas[0].broker.Published() {
		var m eventv1.MetricAvailable
		if err := proto.Unmarshal(p.GetEvent().GetPayload(), &m); err != nil {
			t.Fatal(err)
		}
		if v := m.GetMetric().GetVersion(); v == 0 || seen[v] {
			t.Errorf("version %d was told twice", v)
		} else {
			seen[v] = true
		}
	}
}
