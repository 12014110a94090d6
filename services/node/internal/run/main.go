package run

import (
	"context"
	"log/slog"
	"os"
	"time"

	"google.golang.org/grpc"

	"github.com/shallot-net/shallot/kit/alias"
	"github.com/shallot-net/shallot/kit/config"
	"github.com/shallot-net/shallot/kit/home"
	"github.com/shallot-net/shallot/kit/lifecycle"
	"github.com/shallot-net/shallot/kit/logging"
	"github.com/shallot-net/shallot/kit/mtls"
	"github.com/shallot-net/shallot/kit/rpc"
	"github.com/shallot-net/shallot/kit/telemetry"
	"github.com/shallot-net/shallot/kit/tracing"
	"github.com/shallot-net/shallot/kit/version"
	"github.com/shallot-net/shallot/services/node/internal/adapter/historyfile"
)

// Main is the process: configuration, parts, run.
func Main(ctx context.Context, args []string) error {
	cfg := Default()
	loaded, err := config.Load(Process, &cfg, args, config.Does("joins the services of a node, and is what users call"))
	if err != nil {
		return err
	}
	h, err := home.Open(cfg.Home)
	if err != nil {
		return err
	}
	dir, release, err := lock(&cfg, h)
	if err != nil {
		return err
	}
	defer release()
	cfg.endpoints(h)
	log := logging.New(os.Stderr, cfg.Log.Level, cfg.Log.Format, Process)
	registry := telemetry.NewRegistry()
	creds, err := mtls.Open(cfg.TLS.Dir, mtls.Options{Log: log, Registry: registry})
	if err != nil {
		return err
	}
	tracer, err := tracing.Open(Process, cfg.Trace, registry, log)
	if err != nil {
		return err
	}
	defer tracer.Close()
	server, err := rpc.NewServer(rpc.ServerConfig{Process: Process, Listen: cfg.Listen, Log: log, Registry: registry, TLS: creds, Trace: tracer})
	if err != nil {
		return err
	}
	conns, closeAll, err := dial(&cfg, rpc.ClientConfig{TLS: creds, Registry: registry, Trace: tracer})
	if err != nil {
		return err
	}
	defer closeAll()
	var names *alias.Key
	if cfg.Mode == ModeAnonymous {
		if names, err = alias.Open(h.Dir); err != nil {
			return err
		}
	}
	node := New(cfg, conns, names, registry, log)
	node.traceWith(tracer)
	node.loaded = loaded
	past, before, err := historyfile.Open(dir, time.Now())
	if err != nil {
		return err
	}
	defer past.Close()
	node.history.Keep(past, before)
	node.Register(server, registry)
	if err := server.Listen(ctx); err != nil {
		return err
	}
	log.Info("starting", slog.String("role", cfg.Role), slog.String("version", version.String()))
	return lifecycle.Run(ctx,
		server.Serve,
		creds.Run,
		func(ctx context.Context) error { return node.Run(ctx, server.SetServing) },
		func(ctx context.Context) error { return telemetry.Serve(ctx, cfg.TelemetryListen, registry) })
}

// lock keeps a second process off the home's socket. Those that listen somewhere else are replicas, which may share a home: each has a folder
// of its own there, for its history.
func lock(cfg *Config, h home.Home) (dir string, release func(), err error) {
	if cfg.Listen == "" || cfg.Listen == h.Endpoint(Process) {
		release, err = h.Lock(Process)
		return h.State(Process), release, err
	}
	return h.LockReplica(Process)
}

// dial makes the connections that the role needs.
func dial(cfg *Config, client rpc.ClientConfig) (Conns, func(), error) {
	var conns Conns
	var open []*grpc.ClientConn
	closeAll := func() {
		for _, c := range open {
			_ = c.Close()
		}
	}
	targets := []struct {
		to     *grpc.ClientConnInterface
		peer   string
		target string
		wanted bool
	}{
		{&conns.Broker, "broker", cfg.Broker, true}, {&conns.Task, "task", cfg.Task, true},
		{&conns.Discovery, "discovery", cfg.Discovery, cfg.Role == RoleProvider}, {&conns.Metric, "metric", cfg.Metric, cfg.Role == RoleProvider},
	}
	for _, t := range targets {
		if !t.wanted {
			continue
		}
		client.Peer = t.peer
		c, err := rpc.Dial(t.target, client)
		if err != nil {
			closeAll()
			return Conns{}, nil, err
		}
		open = append(open, c)
		*t.to = c
	}
	return conns, closeAll, nil
}
