package run

import (
	"context"
	"crypto/rand"
	"log/slog"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"github.com/shallot-net/shallot/kit/alias"
	"github.com/shallot-net/shallot/kit/config"
	"github.com/shallot-net/shallot/kit/invite"
	"github.com/shallot-net/shallot/kit/lifecycle"
	"github.com/shallot-net/shallot/kit/telemetry"
	"github.com/shallot-net/shallot/kit/tracing"
	"github.com/shallot-net/shallot/kit/version"
	brokerv1 "github.com/shallot-net/shallot/proto/shallot/broker/v1"
	telemetryv1 "github.com/shallot-net/shallot/proto/shallot/telemetry/v1"
	"github.com/shallot-net/shallot/services/node/internal/adapter/aliased"
	"github.com/shallot-net/shallot/services/node/internal/adapter/api"
	"github.com/shallot-net/shallot/services/node/internal/adapter/peers"
	"github.com/shallot-net/shallot/services/node/internal/adapter/probe"
	"github.com/shallot-net/shallot/services/node/internal/adapter/sidecar"
	"github.com/shallot-net/shallot/services/node/internal/adapter/tasks"
	"github.com/shallot-net/shallot/services/node/internal/app"
	"github.com/shallot-net/shallot/services/node/internal/domain"
)

// Process is this process's name.
const Process = "node"

// Conns are the connections to the node's other services; Discovery and Metric are nil on a consumer.
type Conns struct {
	Broker, Task, Discovery, Metric grpc.ClientConnInterface
}

// Node is a node's parts, joined.
type Node struct {
	cfg     Config
	log     *slog.Logger
	probes  []*probe.Process
	sidecar *sidecar.Client
	tasks   *tasks.Client

	carrier   *app.Carrier
	watches   *app.Watches
	flow      *app.Flow
	deliverer *app.Deliverer
	identity  *app.Identity
	processes *app.Processes
	submitter *app.Submitter
	registry  prometheus.Gatherer                  // nil before Register
	placer    *app.Placer                          // consumer
	consumer  *app.Consumer                        // consumer
	personas  *app.Personas                        // consumer in anonymous mode
	provider  *app.Provider                        // provider
	key       func() ([invite.KeySize]byte, error) // of its private network
	history   *app.History
	api       *api.Service
	jobs      *api.JobService
	names     *alias.Key     // anonymous mode
	addresses *addressFile   // nil where none is configured
	loaded    *config.Loaded // what this process was configured with; nil in tests
}

// New joins the parts; nothing runs yet. names is what users call peers by in anonymous mode, nil in open mode.
func New(cfg Config, conns Conns, names *alias.Key, registry prometheus.Registerer, log *slog.Logger) *Node {
	if cfg.Mode == ModeAnonymous && cfg.SendTimeout == Default().SendTimeout {
		cfg.SendTimeout = time.Minute // a dial and a round trip, of up to 3 s each way
	}
	n := &Node{cfg: cfg, key: func() ([invite.KeySize]byte, error) { return networkKey(cfg.Home) }, log: log, names: names, sidecar: sidecar.New(conns.Broker, log), tasks: tasks.New(conns.Task, rand.Text(), log)}
	n.carrier = app.NewCarrier(app.CarrierConfig{Outbox: domain.OutboxLimits{Bytes: int(cfg.OutboxMemory), LaneBytes: int(cfg.OutboxMemory) / 4},
		SendTimeout: cfg.SendTimeout}, n.sidecar, n.tasks, log)
	n.carrier.Resync = n.tasks.Resync
	n.watches = app.NewWatches(n.tasks)
	sinks := app.IdentitySinks{}
	var trails api.Trails
	var view api.View
	var placement app.Placement
	var watcher api.Watcher = n.watches
	if cfg.Role == RoleProvider {
		n.history = app.NewHistory(figures{n}, nil, log)
		view = n.newProvider(conns, &sinks)
		trails = n.provider
		watcher = n.tasks // its tasks are other people's: nobody waits for them by the thousand
	} else {
		n.history = app.NewHistory(figures{n}, n.tasks, log)
		view = n.newConsumer(&sinks)
		trails = n.consumer
		if placement = n.consumer; n.personas != nil {
			placement = n.personas.Later()
		}
	}
	sinks.Online = n.flow.SetOnline
	n.identity = app.NewIdentity(n.sidecar, sinks, log)
	n.newProcesses(conns)
	n.submitter = app.NewSubmitter(n.tasks, n.tasks, placement, n.watches)
	n.submitter.MayRedirect = cfg.Mode == ModeOpen
	n.submitter.PeerName = n.peerName()
	n.api = api.New(api.Config{Role: cfg.Role, Anonymous: cfg.Mode == ModeAnonymous, Home: cfg.Home, Version: version.String(), StartedAt: time.Now(),
		Submitter: n.submitter, Watcher: watcher, Feed: n.tasks, Tasks: n.tasks.API(), Bodies: n.tasks,
		Content: n.sidecar.Repository, Putter: n.sidecar, View: view, Identity: n.identity, Processes: n.processes, Usage: n.usage, Settings: n.settings, History: n.history, Trails: trails, NetworkKey: func() ([invite.KeySize]byte, error) { return n.key() }})
	n.jobs = api.NewJobs(n.tasks.Jobs())
	n.jobs.MayRedirect = cfg.Mode == ModeOpen
	n.registerMetrics(registry)
	return n
}

func (n *Node) newProvider(conns Conns, sinks *app.IdentitySinks) api.View {
	discovery, metric := peers.NewDiscovery(conns.Discovery), peers.NewMetric(conns.Metric)
	n.provider = app.NewProvider(discovery, metric, n.tasks, n.sidecar, n.log)
	n.carrier.Where = n.provider.Addresses
	n.flow = app.NewFlow(n.carrier, n.watches, nil, nil, n.tasks, n.log)
	n.flow.Synced = n.provider.TaskServiceUp
	n.deliverer = app.NewDeliverer(n.tasks, n.provider, nil, n.log)
	if n.cfg.AddressFile != "" {
		n.addresses = newAddressFile(n.cfg.AddressFile, n.log)
	}
	sinks.Self = func(s *brokerv1.SelfResponse) {
		n.provider.SetOwnPeerID(s.GetPeerId())
		if n.addresses != nil {
			n.addresses.offer(s)
		}
	}
	sinks.Connected = n.connected
	return api.ProviderView{Discovery: discovery.API, Metric: metric.API, Snapshot: n.provider}
}

func (n *Node) newConsumer(sinks *app.IdentitySinks) api.View {
	cfg := app.ConsumerConfig{Directory: domain.DirectoryLimits{Size: n.cfg.ViewSize}, Bootstrap: n.cfg.bootstrap, Neighbours: n.cfg.Neighbours}
	if n.cfg.Mode == ModeAnonymous { // a dial is three round trips and more, of up to 3 s each
		cfg.Aloof, cfg.DialTimeout, cfg.AskTimeout = true, 90*time.Second, 30*time.Second
	}
	n.consumer = app.NewConsumer(cfg, n.sidecar, n.log)
	placement := app.Placement(n.consumer)
	if n.cfg.Mode == ModeAnonymous {
		p := n.cfg.Personas
		n.personas = app.NewPersonas(app.PersonasConfig{Warm: p.Warm, PerJob: p.PerJob, Most: p.Most}, n.consumer, n.sidecar, n.tasks, n.log)
		n.personas.Unreachable = n.consumer.Unreachable
		placement = n.personas
	}
	n.placer = app.NewPlacer(n.tasks, placement, n.log)
	n.placer.PeerName = n.peerName()
	n.consumer.Changed = n.placer.Changed
	n.placer.Left = func(task string, excluded map[string]string) {
		n.consumer.TaskLeft(task, excluded)
		if n.personas != nil {
			n.personas.TaskLeft(task, excluded)
		}
	}
	n.carrier.Unreachable = n.consumer.Unreachable
	n.flow = app.NewFlow(n.carrier, n.watches, n.placer, observers{n.consumer, n.history}, n.tasks, n.log)
	n.flow.Synced = n.history.Resync
	n.deliverer = app.NewDeliverer(n.tasks, nil, n.consumer, n.log)
	n.deliverer.Personas = n.personas
	sinks.Lost = n.consumer.Disconnected
	sinks.Connected = func(peer string, on bool) {
		n.connected(peer, on)
		n.consumer.Connected(peer, on)
	}
	return api.ConsumerView{Directory: n.consumer, RoundTrips: n.sidecar.RoundTrips}
}

func (n *Node) connected(peer string, on bool) {
	if on {
		n.carrier.Reachable(peer)
	}
}

func (n *Node) newProcesses(conns Conns) {
	order := []string{"broker", "task"}
	by := map[string]grpc.ClientConnInterface{"broker": conns.Broker, "task": conns.Task}
	if n.cfg.Role == RoleProvider {
		order = []string{"broker", "discovery", "metric", "task"}
		by["discovery"], by["metric"] = conns.Discovery, conns.Metric
	}
	probers := map[string]app.Prober{}
	for _, name := range order {
		p := probe.New(name, by[name])
		n.probes = append(n.probes, p)
		probers[name] = p
	}
	n.processes = app.NewProcesses(order, probers, n.log)
}

// peerName is how texts that users will read call a peer.
func (n *Node) peerName() func(id string) string {
	if n.names != nil {
		return n.names.Of
	}
	return domain.ShortPeer
}

// traceWith has the parts make spans; nil: none. Before Run.
func (n *Node) traceWith(t *tracing.Tracer) {
	n.carrier.Trace, n.deliverer.Trace, n.submitter.Trace = t, t, t
	if n.placer != nil {
		n.placer.Trace = t
	}
}

// usage asks all processes what they use, this one included.
func (n *Node) usage(ctx context.Context) map[string]app.Usage {
	all, err := n.gather(ctx)
	if err != nil {
		return nil
	}
	return probe.Usages(all)
}

// gather has the metrics of all processes, this one included.
func (n *Node) gather(ctx context.Context) ([]*telemetryv1.ProcessMetrics, error) {
	all, err := probe.Gather(ctx, n.probes)
	if err == nil && n.registry != nil {
		if text, err := telemetry.Text(n.registry); err == nil {
			all = append(all, &telemetryv1.ProcessMetrics{Process: Process, Pid: int64(os.Getpid()), Replica: telemetry.Replica(), Text: text})
		}
	}
	return all, err
}

// settings asks all processes what they run with, this one included.
func (n *Node) settings(ctx context.Context) []*telemetryv1.ProcessSettings {
	all := probe.Settings(ctx, n.probes)
	if n.loaded != nil {
		all = append(all, telemetry.SettingsOf(n.loaded))
	}
	return all
}

// Register adds what this process serves to a server.
func (n *Node) Register(s grpc.ServiceRegistrar, registry prometheus.Gatherer) {
	users := s
	if n.names != nil {
		users = aliased.New(s, n.names, n.api.PeerIDs)
	}
	n.api.Register(users)
	n.jobs.Register(users)
	n.registry = registry
	options := []telemetry.Option{telemetry.Also(telemetry.GathererFunc(func(ctx context.Context) ([]*telemetryv1.ProcessMetrics, error) {
		return probe.Gather(ctx, n.probes)
	}))}
	if n.loaded != nil {
		options = append(options, telemetry.WithSettings(n.loaded))
	}
	telemetry.Register(s, Process, registry, options...)
}

// Run works until ctx ends. ready is told whether all processes of the node are serving and its addresses are where others look for them.
func (n *Node) Run(ctx context.Context, ready func(bool)) error {
	whole := &both{ready: ready, second: n.addresses == nil}
	n.processes.Ready = func(ok bool) { whole.set(&whole.first, ok) }
	n.tasks.Open(n.flow)
	defer n.sidecar.Close()
	defer n.tasks.Close()
	parts := []func(context.Context) error{n.carrier.Run, n.flow.Run, n.identity.Run, n.processes.Run, n.history.Run, n.subscribe}
	if n.provider != nil {
		parts = append(parts, n.provider.Run)
	} else {
		parts = append(parts, n.consumer.Run, n.placer.Run)
	}
	if n.personas != nil {
		parts = append(parts, n.personas.Run)
	}
	if n.addresses != nil {
		parts = append(parts, func(ctx context.Context) error {
			return n.addresses.run(ctx, func() { whole.set(&whole.second, true) })
		})
	}
	return lifecycle.Run(ctx, parts...)
}

func (n *Node) subscribe(ctx context.Context) error {
	return n.sidecar.Subscribe(ctx, n.deliverer, func(up bool) {
		if up {
			n.carrier.BrokerUp()
		} else {
			n.carrier.BrokerLost()
		}
	})
}
