// Command shallot-gateway is REST in front of shallot.node.v1, for people and programs that do not speak gRPC.
package main

import (
	"context"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"

	"github.com/shallot-net/shallot/gateway/internal/access"
	"github.com/shallot-net/shallot/gateway/internal/rest"
	"github.com/shallot-net/shallot/kit/config"
	"github.com/shallot-net/shallot/kit/home"
	"github.com/shallot-net/shallot/kit/lifecycle"
	"github.com/shallot-net/shallot/kit/logging"
	"github.com/shallot-net/shallot/kit/mtls"
	"github.com/shallot-net/shallot/kit/rpc"
	"github.com/shallot-net/shallot/kit/telemetry"
	"github.com/shallot-net/shallot/kit/tracing"
)

const process = "gateway"

func main() { lifecycle.Main(process, run) }

func run(ctx context.Context, args []string) error {
	cfg := newSettings()
	loaded, err := config.Load(process, cfg, args, config.Does("REST and the dashboard in front of a node"))
	if err != nil {
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
	keys, err := access.OpenKeyring(cfg.TokenFile, node, log, time.Now)
	if err != nil {
		return err
	}

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
	conn, err := rpc.Dial(cfg.nodeEndpoint(node), rpc.ClientConfig{Service: "the node", Peer: "node", TLS: creds, Registry: registry, Trace: tracer})
	if err != nil {
		return err
	}
	defer conn.Close()

	listener, err := rest.Listen(ctx, cfg.HTTP, node)
	if err != nil {
		return err
	}
	hosts, err := access.NewHosts(listener.Addr().String(), cfg.AllowedHosts)
	if err != nil {
		return err
	}
	handler, err := rest.New(rest.Config{
		Node: conn, Log: log, Registry: registry, Trace: tracer, TLSDir: cfg.TLS.Dir, MaxBody: int64(cfg.MaxBody), MaxUpload: int64(cfg.MaxUpload), Timeout: cfg.Timeout,
		Guard: access.Guard{Keys: keys, Hosts: hosts}, Siblings: rest.Siblings{Home: node, File: cfg.Siblings}, Settings: telemetry.SettingsOf(loaded),
	})
	if err != nil {
		return err
	}

	// What the other processes ask of everybody: health, reflection and metrics, on the home's socket.
	server, err := rpc.NewServer(rpc.ServerConfig{Process: process, Listen: cfg.Listen, Log: log, Registry: registry, TLS: creds, Trace: tracer})
	if err != nil {
		return err
	}
	telemetry.Register(server, process, registry, telemetry.WithSettings(loaded))
	if err := server.Listen(ctx); err != nil {
		return err
	}
	if err := rest.Announce(node, listener.Addr().String(), keys.File); err != nil {
		return err
	}
	return lifecycle.Run(ctx,
		server.Serve,
		creds.Run,
		keys.Run,
		func(ctx context.Context) error { return follow(ctx, conn, server.SetServing) },
		func(ctx context.Context) error { return rest.Serve(ctx, listener, handler) },
		func(ctx context.Context) error { return telemetry.Serve(ctx, cfg.TelemetryListen, registry) },
	)
}

// follow has the gateway ready while its connection to node is: without one it answers nothing that a user asks.
func follow(ctx context.Context, conn *grpc.ClientConn, serving func(bool)) error {
	for {
		state := conn.GetState()
		serving(state == connectivity.Ready)
		if state == connectivity.Idle {
			conn.Connect()
		}
		if !conn.WaitForStateChange(ctx, state) {
			return nil
		}
	}
}
