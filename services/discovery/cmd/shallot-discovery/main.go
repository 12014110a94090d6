// Command shallot-discovery knows who is out there: a provider's service.
package main

import (
	"context"
	"os"

	"github.com/shallot-net/shallot/kit/brokerclient"
	"github.com/shallot-net/shallot/kit/config"
	"github.com/shallot-net/shallot/kit/home"
	"github.com/shallot-net/shallot/kit/lifecycle"
	"github.com/shallot-net/shallot/kit/logging"
	"github.com/shallot-net/shallot/kit/mtls"
	"github.com/shallot-net/shallot/kit/rpc"
	kittelemetry "github.com/shallot-net/shallot/kit/telemetry"
	"github.com/shallot-net/shallot/kit/tracing"
	"github.com/shallot-net/shallot/services/discovery/internal/adapter/broker"
	"github.com/shallot-net/shallot/services/discovery/internal/adapter/grpcserver"
	"github.com/shallot-net/shallot/services/discovery/internal/adapter/telemetry"
	"github.com/shallot-net/shallot/services/discovery/internal/app"
)

const process = "discovery"

func main() { lifecycle.Main(process, run) }

func run(ctx context.Context, args []string) error {
	cfg := newSettings()
	loaded, err := config.Load(process, cfg, args, config.Does("announces a provider, joins it to the network, and knows its peers"))
	if err != nil {
		return err
	}
	log := logging.New(os.Stderr, cfg.Log.Level, cfg.Log.Format, process)
	node, err := home.Open(cfg.Home)
	if err != nil {
		return err
	}
	unlock, err := lock(cfg, node)
	if err != nil {
		return err
	}
	defer unlock()
	life, end := context.WithCancel(ctx) // also when something of this process fails: the store waits for no server then
	defer end()
	store, shared, err := openStore(life, cfg, node, log)
	if err != nil {
		return err
	}
	defer func() { _ = store.Close() }()

	registry := kittelemetry.NewRegistry()
	creds, err := mtls.Open(cfg.TLS.Dir, mtls.Options{Log: log, Registry: registry})
	if err != nil {
		return err
	}
	tracer, err := tracing.Open(process, cfg.Trace, registry, log)
	if err != nil {
		return err
	}
	defer tracer.Close()
	conn, err := rpc.Dial(cfg.brokerEndpoint(node), rpc.ClientConfig{Service: "the broker", Peer: "broker", TLS: creds, Registry: registry, Trace: tracer})
	if err != nil {
		return err
	}
	defer conn.Close()
	client := brokerclient.New(conn, log)
	defer client.Close()
	link := broker.New(conn, client)
	counter := telemetry.New(registry)
	server, err := rpc.NewServer(rpc.ServerConfig{Process: process, Listen: cfg.Listen, Log: log, Registry: registry, TLS: creds, Trace: tracer})
	if err != nil {
		return err
	}
	ready := &readiness{set: server.SetServing}
	conf := cfg.app(link, store, counter, log)
	conf.Shared, conf.Reached = shared, ready.reached
	service, err := app.New(ctx, conf)
	if err != nil {
		return err
	}
	ready.leads = service.Leads
	telemetry.Watch(registry, service)
	grpcserver.Register(server, service)
	kittelemetry.Register(server, process, registry, kittelemetry.WithSettings(loaded))
	if err := server.Listen(ctx); err != nil { // before anything is done that a second process would do twice
		return err
	}
	return lifecycle.Run(ctx,
		server.Serve,
		creds.Run,
		service.Run,
		func(ctx context.Context) error { // what others say is heard by the replica that leads
			return service.While(ctx, func(ctx context.Context) error {
				defer ready.listens(false)
				return link.Listen(ctx, service, func(up bool) {
					counter.BrokerUp(up)
					ready.listens(up)
				})
			})
		},
		func(ctx context.Context) error {
			return kittelemetry.Serve(ctx, cfg.TelemetryListen, registry)
		},
		func(ctx context.Context) error { <-ctx.Done(); end(); return nil },
	)
}
