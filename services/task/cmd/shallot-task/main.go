// Command shallot-task keeps tasks: a consumer's records, keys and results; a provider's queue and attempts.
package main

import (
	"context"
	"crypto/rand"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/shallot-net/shallot/kit/config"
	"github.com/shallot-net/shallot/kit/home"
	"github.com/shallot-net/shallot/kit/lifecycle"
	"github.com/shallot-net/shallot/kit/logging"
	"github.com/shallot-net/shallot/kit/mtls"
	"github.com/shallot-net/shallot/kit/rpc"
	"github.com/shallot-net/shallot/kit/telemetry"
	"github.com/shallot-net/shallot/kit/tracing"
	"github.com/shallot-net/shallot/services/task/internal/adapter/broker"
	"github.com/shallot-net/shallot/services/task/internal/adapter/grpcserver"
	"github.com/shallot-net/shallot/services/task/internal/adapter/metrics"
	"github.com/shallot-net/shallot/services/task/internal/adapter/postgres"
	"github.com/shallot-net/shallot/services/task/internal/adapter/sqlite"
	"github.com/shallot-net/shallot/services/task/internal/app/consumer"
	"github.com/shallot-net/shallot/services/task/internal/app/provider"
)

const process = "task"

func main() { lifecycle.Main(process, run) }

func run(ctx context.Context, args []string) error {
	cfg := newSettings()
	loaded, err := config.Load(process, cfg, args, config.Does("keeps the tasks of a node: a consumer's records, keys and results, a provider's queue and attempts"))
	if err != nil {
		return err
	}
	log := logging.New(os.Stderr, cfg.Log.Level, cfg.Log.Format, process)
	node, err := home.Open(cfg.Home)
	if err != nil {
		return err
	}
	dir, unlock, err := lock(cfg, node)
	if err != nil {
		return err
	}
	defer unlock()
	life, end := context.WithCancel(ctx) // also when something of this process fails: the store waits for no server then
	defer end()
	store, err := openStore(life, cfg, dir, log)
	if err != nil {
		return err
	}
	defer closeLogged(log, store)

	registry := telemetry.NewRegistry()
	creds, err := mtls.Open(cfg.TLS.Dir, mtls.Options{Log: log, Registry: registry})
	if err != nil {
		return err
	}
	tracer, err := tracing.Open(process, cfg.Trace, registry, log)
	if err != nil {
		return err
	}
	defer tracer.Close()
	server, err := rpc.NewServer(rpc.ServerConfig{Process: process, Listen: cfg.Listen, Log: log, Registry: registry, TLS: creds, Trace: tracer})
	if err != nil {
		return err
	}
	conn, err := rpc.Dial(brokerEndpoint(cfg, node), rpc.ClientConfig{Service: "the broker", Peer: "broker", TLS: creds, Registry: registry, Trace: tracer})
	if err != nil {
		return err
	}
	defer conn.Close()
	ready := &readiness{set: server.SetServing, stored: true}
	repository := broker.NewRepository(conn, cfg.stall(), ready.broker)
	defer repository.Close()

	sessions := &grpcserver.Sessions{Trace: tracer}
	metrics.Process(registry, store.Commits, store.Failures, sessions.Len)
	parts := &parts{cfg: cfg, dir: dir, store: store, repository: repository, sessions: sessions, registry: registry, trace: tracer, log: log, ready: ready}
	wire := parts.consumer
	if cfg.Role == "provider" {
		wire = parts.provider
	}
	defer parts.close()
	service, background, err := wire(ctx)
	if err != nil {
		return err
	}
	if cfg.Store != "" {
		if service.PageKey, err = store.Setting(ctx, "page_key", newPageKey); err != nil {
			return err
		}
	}
	grpcserver.New(service, sessions).Register(server)
	telemetry.Register(server, process, registry, telemetry.WithSettings(loaded))
	if err := server.Listen(ctx); err != nil { // before anything is done that a second process would do twice
		return err
	}
	return lifecycle.Run(ctx, append(background,
		server.Serve,
		creds.Run,
		func(ctx context.Context) error { return prune(ctx, store, log) },
		func(ctx context.Context) error { return telemetry.Serve(ctx, cfg.TelemetryListen, registry) },
		func(ctx context.Context) error { <-ctx.Done(); end(); return nil },
	)...)
}

// lock gives the directory that this process has for itself. Of what several providers do on one journal each has its own files.
func lock(cfg *settings, node home.Home) (dir string, unlock func(), err error) {
	if cfg.Store != "" && cfg.Role == "provider" {
		return node.LockReplica(process)
	}
	unlock, err = node.Lock(process)
	return node.State(process), unlock, err
}

func brokerEndpoint(cfg *settings, node home.Home) string {
	if cfg.Broker != "" {
		return cfg.Broker
	}
	return node.Endpoint("broker")
}

func newPageKey() ([]byte, error) {
	key := make([]byte, 32)
	_, err := rand.Read(key)
	return key, err
}

// store is where the service keeps its state.
type store interface {
	consumer.Store
	provider.Store
	Setting(ctx context.Context, name string, make func() ([]byte, error)) ([]byte, error)
	Prune(ctx context.Context, t time.Time) error
	Commits() uint64
	Failures() uint64
	Close() error
}

func openStore(ctx context.Context, cfg *settings, dir string, log *slog.Logger) (store, error) {
	if cfg.Store != "" {
		return postgres.Open(ctx, cfg.Store, cfg.PasswordFile, log)
	}
	return sqlite.Open(ctx, filepath.Join(dir, "task.db"), log)
}

func closeLogged(log *slog.Logger, store store) {
	if err := store.Close(); err != nil {
		log.Error("the store could not be closed", logging.Err(err))
	}
}

// inboxKeep is how long a repeated event is recognised by its id; the state machine knows it afterwards, too.
const inboxKeep = 72 * time.Hour

// prune forgets old inbox rows once an hour.
func prune(ctx context.Context, store store, log *slog.Logger) error {
	return every(ctx, time.Hour, func() {
		if err := store.Prune(ctx, time.Now().Add(-inboxKeep)); err != nil && ctx.Err() == nil {
			log.Warn("old inbox rows could not be deleted", logging.Err(err))
		}
	})
}

// every calls f at the interval until ctx ends, or one of over says so.
func every(ctx context.Context, interval time.Duration, f func(), over ...func() bool) error {
	t := time.NewTicker(interval)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			f()
			for _, end := range over {
				if end() {
					return nil
				}
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// parts are what both roles are made of.
type parts struct {
	cfg        *settings
	dir        string
	store      store
	repository *broker.Repository
	sessions   *grpcserver.Sessions
	registry   prometheus.Registerer
	trace      *tracing.Tracer
	log        *slog.Logger
	ready      *readiness
	closers    []func()
}

func (p *parts) close() {
	for _, f := range p.closers {
		f()
	}
}
