// Command shallot-onion keeps onion services at tor: the only process of a node that speaks to tor's control port.
package main

import (
	"context"
	"os"
	"time"

	"github.com/shallot-net/shallot/broker/internal/adapter/files"
	"github.com/shallot-net/shallot/broker/internal/adapter/onionserver"
	"github.com/shallot-net/shallot/broker/internal/adapter/torcontrol"
	"github.com/shallot-net/shallot/broker/internal/app/onions"
	"github.com/shallot-net/shallot/kit/config"
	"github.com/shallot-net/shallot/kit/home"
	"github.com/shallot-net/shallot/kit/lifecycle"
	"github.com/shallot-net/shallot/kit/logging"
	"github.com/shallot-net/shallot/kit/mtls"
	"github.com/shallot-net/shallot/kit/rpc"
	"github.com/shallot-net/shallot/kit/telemetry"
	"github.com/shallot-net/shallot/kit/tracing"
)

const process = "onion"

// maxAge of a connection: this process has no replicas that callers could move to, so each new connection is in vain.
const maxAge = 30 * time.Minute

func main() { lifecycle.Main(process, run) }

func run(ctx context.Context, args []string) error {
	cfg := defaults()
	loaded, err := config.Load(process, &cfg, args, config.Does("keeps the onion services of a node, its only process that speaks to tor's control port"))
	if err != nil {
		return err
	}
	h, err := home.Open(cfg.Home)
	if err != nil {
		return err
	}
	release, err := h.Lock(process)
	if err != nil {
		return err
	}
	defer release()
	log := logging.New(os.Stderr, cfg.Log.Level, cfg.Log.Format, process)
	registry := telemetry.NewRegistry()
	keeper := onions.New(onions.Config{
		Tor:     torcontrol.New(torcontrol.Config{Socket: cfg.socket(), CookieFile: cfg.CookieFile, PasswordFile: cfg.PasswordFile}),
		Records: files.NewOnions(h.State(process)), Observer: onionserver.NewObserver(registry), Log: log, MaxServices: cfg.MaxServices,
	})
	creds, err := mtls.Open(cfg.TLS.Dir, mtls.Options{Log: log, Registry: registry})
	if err != nil {
		return err
	}
	tracer, err := tracing.Open(process, cfg.Trace, registry, log)
	if err != nil {
		return err
	}
	defer tracer.Close()
	server, err := rpc.NewServer(rpc.ServerConfig{Process: process, Listen: cfg.Listen, Log: log, Registry: registry, TLS: creds, MaxAge: maxAge, Trace: tracer})
	if err != nil {
		return err
	}
	if err := server.Listen(ctx); err != nil {
		return err
	}
	onionserver.Register(server, keeper)
	telemetry.Register(server, process, registry, telemetry.WithSettings(loaded))
	server.SetServing(true) // also without tor: that it is away is what it has to tell
	log.Info("onion is up")
	return lifecycle.Run(ctx,
		server.Serve,
		creds.Run,
		keeper.Run,
		func(ctx context.Context) error { return telemetry.Serve(ctx, cfg.TelemetryListen, registry) })
}
