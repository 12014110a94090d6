package run

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/shallot-net/shallot/kit/alias"
	"github.com/shallot-net/shallot/kit/brokerclient"
	"github.com/shallot-net/shallot/kit/brokertest"
	"github.com/shallot-net/shallot/kit/grpctest"
	"github.com/shallot-net/shallot/kit/logging"
	"github.com/shallot-net/shallot/kit/rpc"
	"github.com/shallot-net/shallot/kit/telemetry"
	brokerv1 "github.com/shallot-net/shallot/proto/shallot/broker/v1"
	discoveryv1 "github.com/shallot-net/shallot/proto/shallot/discovery/v1"
	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
	"github.com/shallot-net/shallot/services/node/internal/fake"
)

// world is a network of nodes whose services are fakes behind real gRPC, and whose node services are real.
type world struct {
	t     testing.TB
	net   *brokertest.Network
	mu    sync.Mutex
	nodes []*member
	names *alias.Key // of all nodes, in anonymous mode
}

// member is one node.
type member struct {
	w         *world
	role      string
	broker    *brokertest.Broker
	task      *fake.Task
	discovery *fake.Discovery
	metric    *fake.Metric
	content   *fake.Repository
	version   uint64
	types     []string
	queue     *eventv1.Queue

	node   *Node
	api    nodev1.NodeServiceClient
	conn   *grpc.ClientConn
	cancel context.CancelFunc
	ready  chan bool
}

func newWorld(t testing.TB) *world { return &world{t: t, net: brokertest.NewNetwork()} }

func serve(t testing.TB, process string, register func(*rpc.Server)) *grpc.ClientConn {
	registry := telemetry.NewRegistry()
	return grpctest.Start(t, func(s *rpc.Server) {
		register(s)
		if process != Process {
			telemetry.Register(s, process, registry)
		}
	})
}

// provider starts a provider whose other services know of the world what discovery would tell them.
func (w *world) provider() *member {
	m := &member{w: w, role: RoleProvider, broker: w.net.Add(), task: fake.NewTask(RoleProvider), discovery: fake.NewDiscovery(), metric: fake.NewMetric(),
		version: 1, types: []string{"sum"}, queue: &eventv1.Queue{Slots: 4}, content: fake.NewRepository()}
	if w.names != nil {
		m.broker.Move(onionOf(m.id()))
	}
	broker := serve(w.t, "broker", func(s *rpc.Server) { m.broker.Register(s); m.content.Register(s) })
	m.start(Conns{Broker: broker, Task: serve(w.t, "task", func(s *rpc.Server) { m.task.Register(s) }),
		Discovery: serve(w.t, "discovery", func(s *rpc.Server) { m.discovery.Register(s) }),
		Metric:    serve(w.t, "metric", func(s *rpc.Server) { m.metric.Register(s) })}, Default())
	m.answer(broker)
	return m
}

// consumer starts a consumer that joins through the given providers.
func (w *world) consumer(through ...*member) *member {
	m := &member{w: w, role: RoleConsumer, broker: w.net.Add(), task: fake.NewTask(RoleConsumer), content: fake.NewRepository()}
	cfg := Default()
	for _, p := range through {
		cfg.Bootstrap = append(cfg.Bootstrap, p.broker.JoinAddress())
	}
	m.start(Conns{Broker: serve(w.t, "broker", func(s *rpc.Server) { m.broker.Register(s); m.content.Register(s) }),
		Task: serve(w.t, "task", func(s *rpc.Server) { m.task.Register(s) })}, cfg)
	return m
}

// consumerWithJobs starts a consumer that is alone, and whose task service has jobs of the given kind.
func (w *world) consumerWithJobs(jobs taskv1.JobServiceServer) *member {
	m := &member{w: w, role: RoleConsumer, broker: w.net.Add(), task: fake.NewTask(RoleConsumer), content: fake.NewRepository()}
	m.start(Conns{Broker: serve(w.t, "broker", func(s *rpc.Server) { m.broker.Register(s); m.content.Register(s) }),
		Task: serve(w.t, "task", func(s *rpc.Server) { m.task.Register(s); taskv1.RegisterJobServiceServer(s, jobs) })}, Default())
	return m
}

func (m *member) start(conns Conns, cfg Config) {
	t := m.w.t
	cfg.Role = m.role
	m.w.mu.Lock()
	name := fmt.Sprintf("%s-%d", m.role, len(m.w.nodes)+1)
	m.w.nodes = append(m.w.nodes, m)
	m.w.mu.Unlock()
	registry := telemetry.NewRegistry()
	m.node = New(cfg, conns, m.w.names, registry, logging.New(t.Output(), level(t), "text", name))
	m.conn = serve(t, Process, func(s *rpc.Server) { m.node.Register(s, registry) })
	m.api = nodev1.NewNodeServiceClient(m.conn)
	m.ready = make(chan bool, 64)
	ctx, cancel := context.WithCancel(context.Background())
	m.cancel = cancel
	done := make(chan error, 1)
	go func() {
		done <- m.node.Run(ctx, func(ok bool) {
			select {
			case m.ready <- ok:
			default:
			}
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("%s: %v", name, err)
		}
	})
}

func (m *member) id() string { return m.broker.PeerID() }

func (m *member) announcement() *eventv1.Event {
	m.w.mu.Lock()
	defer m.w.mu.Unlock()
	address := m.broker.JoinAddress()
	return fake.Announce(m.id(), m.version, []string{address[:len(address)-len("/p2p/")-len(m.id())]}, 30*time.Second, m.broker.SignEvent, m.types...)
}

func (m *member) row() *discoveryv1.Peer {
	ev := m.announcement()
	var a eventv1.Announcement
	if err := proto.Unmarshal(ev.GetPayload(), &a); err != nil {
		m.w.t.Fatal(err)
	}
	return &discoveryv1.Peer{PeerId: m.id(), Role: RoleProvider, State: "available", Capabilities: a.GetCapabilities(), SealingKey: a.GetSealingKey(),
		Addresses: a.GetAddresses(), Version: a.GetVersion(), Announcement: ev}
}

// answer plays the parts of discovery and metric that the network sees.
func (m *member) answer(conn *grpc.ClientConn) {
	client := brokerclient.New(conn, nil)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	m.w.t.Cleanup(func() { cancel(); client.Close(); wg.Wait() })
	wg.Go(func() {
		_ = client.Subscribe(ctx, &brokerv1.Open{Group: "discovery", Types: []eventv1.EventType{eventv1.EventType_EVENT_TYPE_DISCOVER, eventv1.EventType_EVENT_TYPE_METRIC_QUERY}},
			func(_ context.Context, d *brokerv1.Delivery) brokerclient.Answer {
				wg.Go(func() { m.reply(ctx, client, d) })
				return brokerclient.Applied()
			}, brokerclient.SubscribeOptions{})
	})
}

func (m *member) reply(ctx context.Context, client *brokerclient.Client, d *brokerv1.Delivery) {
	typ := eventv1.EventType_EVENT_TYPE_METRIC_AVAILABLE
	var payload proto.Message
	if d.GetEvent().GetType() == eventv1.EventType_EVENT_TYPE_DISCOVER {
		typ = eventv1.EventType_EVENT_TYPE_DISCOVER_RESPONSE
		r := &eventv1.DiscoverResponse{InReplyTo: d.GetEvent().GetId(), Announcements: []*eventv1.Event{m.announcement()}}
		m.w.mu.Lock()
		nodes := append([]*member(nil), m.w.nodes...)
		m.w.mu.Unlock()
		for _, o := range nodes {
			if o != m && o.role == RoleProvider {
				r.Announcements = append(r.Announcements, o.announcement())
			}
		}
		r.Known = uint32(len(r.Announcements))
		payload = r
	} else {
		m.w.mu.Lock()
		m.version++
		payload = &eventv1.MetricAvailable{InReplyTo: d.GetEvent().GetId(), Metric: &eventv1.Metric{PeerId: m.id(), Version: m.version, Interval: durationpb.New(10 * time.Second),
			Queue: m.queue, Cpu: &eventv1.Cpu{Cores: 2}}}
		m.w.mu.Unlock()
	}
	ev, err := brokerclient.NewEvent(typ, payload)
	if err != nil {
		m.w.t.Error(err)
		return
	}
	_ = client.Send(ctx, "", d.GetFromPeer(), ev, brokerclient.SendOptions{Sign: true, Timeout: 2 * time.Second})
}

// ---- what tests do

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// eventually waits until cond holds; it fails the test after a minute.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("waited too long until %s", what)
		}
		<-tick.C
	}
}

// knows waits until the consumer has so many available providers.
func (m *member) knows(n int) {
	m.w.t.Helper()
	eventually(m.w.t, fmt.Sprintf("the consumer knows %d providers", n), func() bool {
		got, _, _ := m.node.consumer.Figures()
		return got == n
	})
}

func sumOf(addends ...string) *taskv1.TaskSpec {
	return &taskv1.TaskSpec{Type: "sum", Payload: &taskv1.TaskSpec_Sum{Sum: &taskv1.SumPayload{Addends: addends}}}
}

type outcome struct {
	states []string
	task   *taskv1.Task
	stdout string
	err    error
}

func (m *member) run(ctx context.Context, requestID string, spec *taskv1.TaskSpec) outcome {
	var o outcome
	s, err := m.api.RunTask(ctx, &nodev1.RunTaskRequest{RequestId: requestID, Spec: spec})
	for err == nil {
		var r *nodev1.RunTaskResponse
		if r, err = s.Recv(); err != nil {
			break
		}
		switch x := r.GetResponse().(type) {
		case *nodev1.RunTaskResponse_Task:
			o.task = x.Task
			o.states = append(o.states, x.Task.GetState())
		case *nodev1.RunTaskResponse_Stdout:
			o.stdout += string(x.Stdout)
		}
	}
	if err.Error() != "EOF" {
		o.err = err
	}
	return o
}

func (o outcome) want(t testing.TB, stdout string) {
	t.Helper()
	if o.err != nil || o.task.GetState() != "COMPLETED" || o.stdout != stdout {
		t.Fatalf("got state %v, stdout %.100q, error %v; want COMPLETED and %.100q", o.states, o.stdout, o.err, stdout)
	}
}

// level keeps benchmarks quiet.
func level(t testing.TB) string {
	if _, ok := t.(*testing.B); ok {
		return "error"
	}
	return "debug"
}
