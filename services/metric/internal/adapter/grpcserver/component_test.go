package grpcserver_test

import (
	"context"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/shallot-net/shallot/kit/brokerclient"
	"github.com/shallot-net/shallot/kit/brokertest"
	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/grpctest"
	"github.com/shallot-net/shallot/kit/lifecycle"
	"github.com/shallot-net/shallot/kit/logging"
	"github.com/shallot-net/shallot/kit/rpc"
	brokerv1 "github.com/shallot-net/shallot/proto/shallot/broker/v1"
	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	metricv1 "github.com/shallot-net/shallot/proto/shallot/metric/v1"
	"github.com/shallot-net/shallot/services/metric/internal/adapter/broker"
	"github.com/shallot-net/shallot/services/metric/internal/adapter/filestore"
	"github.com/shallot-net/shallot/services/metric/internal/adapter/grpcserver"
	"github.com/shallot-net/shallot/services/metric/internal/adapter/host"
	"github.com/shallot-net/shallot/services/metric/internal/adapter/postgres"
	"github.com/shallot-net/shallot/services/metric/internal/app"
	"github.com/shallot-net/shallot/services/metric/internal/domain"
)

const patience = 30 * time.Second // several times a lease, on a busy machine

// node is a broker that runs and a metric service that may be stopped and started again.
type node struct {
	t      *testing.T
	broker *brokertest.Broker
	conn   *grpc.ClientConn
	dir    string
	client metricv1.MetricServiceClient
	stop   func()
	// Of one replica of several: the store that they share, and where it runs.
	shared func() *postgres.Store
	store  *postgres.Store
	host   string
	svc    *app.Service
}

func newNode(t *testing.T, net *brokertest.Network) *node {
	t.Helper()
	n := &node{t: t, broker: net.Add(), dir: t.TempDir()}
	n.conn = grpctest.Start(t, func(s *rpc.Server) { n.broker.Register(s) })
	n.start()
	return n
}

func (n *node) start() {
	t := n.t
	t.Helper()
	log := logging.New(t.Output(), "info", "text", "metric")
	client := brokerclient.New(n.conn, log)
	link := broker.New(client)
	conf, listen := app.Config{Host: host.New(n.dir), Events: link, Log: log}, link.Listen
	if n.shared != nil {
		n.store = n.shared()
		conf.Versions, conf.Shared, conf.HostID, listen = n.store, n.store, n.host, link.ListenBeside
	} else {
		versions, err := filestore.Open(filepath.Join(n.dir, "version"))
		if err != nil {
			t.Fatal(err)
		}
		conf.Versions = versions
	}
	svc, err := app.New(t.Context(), conf)
	if err != nil {
		t.Fatal(err)
	}
	n.svc = svc
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- lifecycle.Run(ctx, svc.Run, func(ctx context.Context) error { return listen(ctx, svc, func(bool) {}) })
	}()
	n.client = metricv1.NewMetricServiceClient(grpctest.Start(t, func(s *rpc.Server) { grpcserver.Register(s, svc) }))
	n.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("metric: %v", err)
		}
		client.Close()
		if n.store != nil {
			_ = n.store.Close() // a test may have done so
		}
	})
	t.Cleanup(n.stop)
}

// until watches the node's metrics until they satisfy a condition.
func (n *node) until(what string, ok func(map[string]*metricv1.KnownMetric) bool) map[string]*metricv1.KnownMetric {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), patience)
	defer cancel()
	stream, err := n.client.WatchMetrics(ctx, &metricv1.WatchMetricsRequest{})
	if err != nil {
		n.t.Fatal(err)
	}
	known := map[string]*metricv1.KnownMetric{}
	for {
		r, err := stream.Recv()
		if err != nil {
			n.t.Fatalf("waiting for %s with %d metrics: %v", what, len(known), err)
		}
		switch c := r.GetChange().(type) {
		case *metricv1.WatchMetricsResponse_Metric:
			known[c.Metric.GetMetric().GetPeerId()] = c.Metric
		case *metricv1.WatchMetricsResponse_ExpiredPeerId:
			delete(known, c.ExpiredPeerId)
		}
		if ok(known) {
			return known
		}
	}
}

func fiveNodes(t *testing.T) (*brokertest.Network, []*node) {
	net := brokertest.NewNetwork()
	var nodes []*node
	for range 5 {
		nodes = append(nodes, newNode(t, net))
	}
	for _, n := range nodes {
		n.broker.Reconnect()
	}
	return net, nodes
}

func knowsAll(nodes []*node) func(map[string]*metricv1.KnownMetric) bool {
	return func(known map[string]*metricv1.KnownMetric) bool {
		for _, n := range nodes {
			if known[n.broker.PeerID()] == nil {
				return false
			}
		}
		return true
	}
}

func TestFiveNodesKnowEachOthersMetrics(t *testing.T) {
	t.Parallel()
	_, nodes := fiveNodes(t)
	for _, n := range nodes {
		for id, k := range n.until("all metrics", knowsAll(nodes)) {
			m := k.GetMetric()
			if id == "" {
				continue // this node's own, before its broker told it who it is
			}
			if m.GetCpu().GetThreads() == 0 || m.GetMemory().GetTotal() == 0 || m.GetDisk().GetTotal() == 0 || m.GetInterval().AsDuration() <= 0 || k.GetOwn() != (id == n.broker.PeerID()) {
				t.Errorf("%s: %v", id, k)
			}
		}
	}
}

func TestQueueIsReportedAndRefreshed(t *testing.T) {
	t.Parallel()
	_, nodes := fiveNodes(t)
	for _, n := range nodes {
		n.until("all metrics", knowsAll(nodes))
	}
	queue := &eventv1.Queue{Pending: 3, Running: 2, Slots: 4, Capacity: 100}
	if _, err := nodes[1].client.ReportQueue(t.Context(), &metricv1.ReportQueueRequest{Queue: queue}); err != nil {
		t.Fatal(err)
	}
	nodes[1].until("its own queue", func(known map[string]*metricv1.KnownMetric) bool {
		return known[nodes[1].broker.PeerID()].GetMetric().GetQueue().GetPending() == 3
	})
	ids := []string{nodes[1].broker.PeerID(), nodes[2].broker.PeerID(), nodes[0].broker.PeerID(), "nobody"}
	r, err := nodes[0].client.RefreshMetrics(t.Context(), &metricv1.RefreshMetricsRequest{PeerIds: ids, Timeout: durationpb.New(2 * time.Second)})
	if err != nil || len(r.GetMetrics()) != 3 {
		t.Fatalf("RefreshMetrics = %v, %v", r, err)
	}
	for i, k := range r.GetMetrics() {
		if k.GetMetric().GetPeerId() != ids[i] || k.GetOwn() != (i == 2) || k.GetAge().AsDuration() > 3*time.Second {
			t.Errorf("metric %d is %v", i, k)
		}
	}
	if got := r.GetMetrics()[0].GetMetric().GetQueue(); got.GetPending() != 3 || got.GetCapacity() != 100 {
		t.Errorf("its queue is %v", got)
	}
	nodes[2].until("the change by gossip", func(known map[string]*metricv1.KnownMetric) bool {
		return known[nodes[1].broker.PeerID()].GetMetric().GetQueue().GetPending() == 3
	})
}

func TestBadCalls(t *testing.T) {
	t.Parallel()
	n := newNode(t, brokertest.NewNetwork())
	for _, c := range []struct {
		name, reason string
		call         func() error
	}{
		{"no queue", "QUEUE_MISSING", func() error {
			_, err := n.client.ReportQueue(t.Context(), &metricv1.ReportQueueRequest{})
			return err
		}},
		{"unknown peer", "METRIC_UNKNOWN", func() error {
			_, err := n.client.GetMetric(t.Context(), &metricv1.GetMetricRequest{PeerId: "nobody"})
			return err
		}},
		{"bad token", "PAGE_TOKEN_INVALID", func() error {
			_, err := n.client.ListMetrics(t.Context(), &metricv1.ListMetricsRequest{PageToken: "*"})
			return err
		}},
		{"17 peers", "PEERS_TOO_MANY", func() error {
			_, err := n.client.RefreshMetrics(t.Context(), &metricv1.RefreshMetricsRequest{PeerIds: make([]string, 17)})
			return err
		}},
		{"a long timeout", "TIMEOUT_INVALID", func() error {
			_, err := n.client.RefreshMetrics(t.Context(), &metricv1.RefreshMetricsRequest{Timeout: durationpb.New(time.Minute)})
			return err
		}},
	} {
		if err := c.call(); fault.From(err).Reason != c.reason {
			t.Errorf("%s: %v, want %s", c.name, err, c.reason)
		}
	}
	r, err := n.client.GetMetric(t.Context(), &metricv1.GetMetricRequest{})
	if err != nil || !r.GetMetric().GetOwn() || r.GetMetric().GetMetric().GetMemory().GetTotal() == 0 {
		t.Errorf("this node's own: %v, %v", r, err)
	}
}

func TestListMetricsPages(t *testing.T) {
	t.Parallel()
	_, nodes := fiveNodes(t)
	n := nodes[0]
	n.until("all metrics", knowsAll(nodes))
	seen := map[string]bool{}
	pages := 0
	for token := ""; ; pages++ {
		r, err := n.client.ListMetrics(t.Context(), &metricv1.ListMetricsRequest{PageSize: 2, PageToken: token})
		if err != nil || len(r.GetMetrics()) > 2 || pages > 5 {
			t.Fatalf("ListMetrics = %v, %v", r, err)
		}
		for i, k := range r.GetMetrics() {
			if k.GetOwn() != (pages == 0 && i == 0) || seen[k.GetMetric().GetPeerId()] {
				t.Errorf("page %d has %s, own %v", pages, k.GetMetric().GetPeerId(), k.GetOwn())
			}
			seen[k.GetMetric().GetPeerId()] = true
		}
		if token = r.GetNextPageToken(); token == "" {
			break
		}
	}
	if len(seen) != 5 {
		t.Errorf("%d metrics in all", len(seen))
	}
	if r, err := n.client.ListMetrics(t.Context(), &metricv1.ListMetricsRequest{PageSize: 1}); err != nil || len(r.GetMetrics()) != 1 || r.GetNextPageToken() == "" {
		t.Errorf("a page of one: %v, %v", r, err)
	}
}

func TestRestarts(t *testing.T) {
	t.Parallel()
	_, nodes := fiveNodes(t)
	known := nodes[0].until("all metrics", knowsAll(nodes))
	n := nodes[4]
	version := known[n.broker.PeerID()].GetMetric().GetVersion()
	n.stop()
	n.start()
	nodes[0].until("a version after the restart", func(known map[string]*metricv1.KnownMetric) bool {
		return known[n.broker.PeerID()].GetMetric().GetVersion() > version
	})
	n.broker.Stop()
	n.broker.Start()
	n.broker.Reconnect()
	queue := &eventv1.Queue{Pending: 9}
	if _, err := n.client.ReportQueue(t.Context(), &metricv1.ReportQueueRequest{Queue: queue}); err != nil {
		t.Fatal(err)
	}
	nodes[0].until("news after its broker's restart", func(known map[string]*metricv1.KnownMetric) bool {
		return known[n.broker.PeerID()].GetMetric().GetQueue().GetPending() == 9
	})
}

func TestHostileMetrics(t *testing.T) {
	t.Parallel()
	net := brokertest.NewNetwork()
	n, peer := newNode(t, net), net.Add()
	c := brokerclient.New(grpctest.Start(t, func(s *rpc.Server) { peer.Register(s) }), nil)
	t.Cleanup(c.Close)
	n.broker.Reconnect()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	send := func(m domain.Metric) error {
		ev, err := brokerclient.NewEvent(eventv1.EventType_EVENT_TYPE_METRIC_AVAILABLE, &eventv1.MetricAvailable{Metric: broker.Encode(m)})
		if err != nil {
			t.Fatal(err)
		}
		for { // the node may still be starting
			err := c.Send(ctx, "", n.broker.PeerID(), ev, brokerclient.SendOptions{Sign: true})
			if err == nil || fault.From(err).Reason != "NO_SUBSCRIBER" || ctx.Err() != nil {
				return err
			}
		}
	}
	good := domain.Metric{PeerID: peer.PeerID(), Version: 1, Interval: time.Minute}
	for name, change := range map[string]func(*domain.Metric){
		"another's":   func(m *domain.Metric) { m.PeerID = n.broker.PeerID() },
		"overloaded":  func(m *domain.Metric) { m.CPU.Load = 17 },
		"impossible":  func(m *domain.Metric) { m.Memory.Free = 1 },
		"no version":  func(m *domain.Metric) { m.Version = 0 },
		"no interval": func(m *domain.Metric) { m.Interval = 0 },
	} {
		m := good
		change(&m)
		if err := send(m); fault.From(err).Reason != brokerclient.ReasonRejected {
			t.Errorf("%s: %v, want REJECTED", name, err)
		}
	}
	for range 2 { // the second is a repetition: ignored, not refused
		if err := send(good); err != nil {
			t.Errorf("a good one: %v", err)
		}
	}
	r, err := n.client.ListMetrics(ctx, &metricv1.ListMetricsRequest{})
	if err != nil || len(r.GetMetrics()) != 2 {
		t.Errorf("known: %v, %v", r, err)
	}
}

func TestAConsumersQueryIsAnswered(t *testing.T) {
	t.Parallel()
	net := brokertest.NewNetwork()
	n, consumer := newNode(t, net), net.Add()
	c := brokerclient.New(grpctest.Start(t, func(s *rpc.Server) { consumer.Register(s) }), nil)
	t.Cleanup(c.Close)
	n.broker.Reconnect()
	n.until("its name", func(known map[string]*metricv1.KnownMetric) bool { return known[n.broker.PeerID()] != nil })
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	answers, up, ended := make(chan *eventv1.Event, 1), make(chan struct{}, 8), make(chan struct{})
	go func() {
		defer close(ended)
		_ = c.Subscribe(ctx, &brokerv1.Open{Group: "node", Types: []eventv1.EventType{eventv1.EventType_EVENT_TYPE_METRIC_AVAILABLE}},
			func(_ context.Context, d *brokerv1.Delivery) brokerclient.Answer {
				answers <- d.GetEvent()
				return brokerclient.Applied()
			}, brokerclient.SubscribeOptions{OnState: func(bool, error) { up <- struct{}{} }})
	}()
	defer func() { cancel(); <-ended }()
	<-up
	ev, err := brokerclient.NewEvent(eventv1.EventType_EVENT_TYPE_METRIC_QUERY, &eventv1.MetricQuery{})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Send(ctx, "", n.broker.PeerID(), ev, brokerclient.SendOptions{}); err != nil {
		t.Fatal(err)
	}
	select {
	case a := <-answers:
		m, question, err := broker.Hear(a)
		if err != nil || brokerclient.Verify(a) != nil || question != ev.GetId() || m.PeerID != n.broker.PeerID() || m.Memory.Total == 0 {
			t.Errorf("answered %+v to %q, %v", m, question, err)
		}
	case <-ctx.Done():
		t.Fatal("no answer")
	}
}
