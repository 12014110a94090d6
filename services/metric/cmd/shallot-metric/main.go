// Command shallot-metric measures this node and knows its peers' metrics: a provider's service.
package main

import (
	"context"
	"os"
	"path/filepath"

	"github.com/shallot-net/shallot/kit/brokerclient"
	"github.com/shallot-net/shallot/kit/config"
	"github.com/shallot-net/shallot/kit/home"
	"github.com/shallot-net/shallot/kit/lifecycle"
	"github.com/shallot-net/shallot/kit/logging"
	"github.com/shallot-net/shallot/kit/mtls"
	"github.com/shallot-net/shallot/kit/rpc"
	kittelemetry "github.com/shallot-net/shallot/kit/telemetry"
	"github.com/shallot-net/shallot/kit/tracing"
	"github.com/shallot-net/shallot/services/metric/internal/adapter/broker"
	"github.com/shallot-net/shallot/services/metric/internal/adapter/filestore"
	"github.com/shallot-net/shallot/services/metric/internal/adapter/grpcserver"
	"github.com/shallot-net/shallot/services/metric/internal/adapter/host"
	"github.com/shallot-net/shallot/services/metric/internal/adapter/telemetry"
	"github.com/shallot-net/shallot/services/metric/internal/app"
)

const process = "metric"

func main() { lifecycle.Main(process, run) }

func run(ctx context.Context, args []string) error {
	cfg := newSettings()
	if _, err := config.Load(process, cfg, args); err != nil {
		return err
	}
	log := logging.New(os.Stderr, cfg.Log.Level, cfg.Log.Format, process)
	node, err := home.Open(cfg.Home)
	if err != nil {
		return err
	}
	unlock, err := node.Lock(process)
	if err != nil {
		return err
	}
	defer unlock()
	versions, err := filestore.Open(filepath.Join(node.State(process), "version"))
	if err != nil {
		return err
	}

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
	link := broker.New(client)
	counter := telemetry.New(registry)
	service := app.New(ctx, cfg.app(link, versions, host.New(node.Dir), counter, log))
	telemetry.Watch(registry, service)

	server, err := rpc.NewServer(rpc.ServerConfig{Process: process, Listen: cfg.Listen, Log: log, Registry: registry, TLS: creds, Trace: tracer})
	if err != nil {
		return err
	}
	grpcserver.Register(server, service)
	kittelemetry.Register(server, process, registry)
	if err := server.Listen(ctx); err != nil { // before anything is done that a second process would do twice
		return err
	}
	return lifecycle.Run(ctx,
		server.Serve,
		creds.Run,
		service.Run,
		func(ctx context.Context) error {
			return link.Listen(ctx, service, func(up bool) {
				counter.BrokerUp(up)
				server.SetServing(up)
			})
		},
		func(ctx context.Context) error {
			return kittelemetry.Serve(ctx, cfg.TelemetryListen, registry)
		},
	)
}
