// Command shallot-broker is the sidecar: the only process of a node that touches the network.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/shallot-net/shallot/broker/internal/adapter/codec"
	"github.com/shallot-net/shallot/broker/internal/adapter/files"
	"github.com/shallot-net/shallot/broker/internal/adapter/grpcserver"
	"github.com/shallot-net/shallot/broker/internal/adapter/libp2p"
	"github.com/shallot-net/shallot/broker/internal/adapter/metrics"
	"github.com/shallot-net/shallot/broker/internal/adapter/onionclient"
	"github.com/shallot-net/shallot/broker/internal/adapter/repository"
	"github.com/shallot-net/shallot/broker/internal/app"
	"github.com/shallot-net/shallot/broker/internal/domain/access"
	"github.com/shallot-net/shallot/kit/alias"
	"github.com/shallot-net/shallot/kit/config"
	"github.com/shallot-net/shallot/kit/home"
	"github.com/shallot-net/shallot/kit/lifecycle"
	"github.com/shallot-net/shallot/kit/logging"
	"github.com/shallot-net/shallot/kit/mtls"
	"github.com/shallot-net/shallot/kit/rpc"
	"github.com/shallot-net/shallot/kit/telemetry"
	"github.com/shallot-net/shallot/kit/tracing"
)

const process = "broker"

// accessEvery is how soon a change of who may connect holds.
const accessEvery = time.Second

// maxAge of a connection: this process has no replicas that callers could move to, so each new connection is in vain.
const maxAge = 30 * time.Minute

func main() { lifecycle.Main(process, run) }

func run(ctx context.Context, args []string) error {
	cfg := defaults()
	loaded, err := config.Load(process, &cfg, args, config.Does("the sidecar of a node, its only process that touches the network"))
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
	libp2p.LogTo(log)
	state := h.State(process)
	if err := files.ClaimMode(state, cfg.Mode); err != nil {
		return err
	}
	if cfg.Mode == app.ModeAnonymous { // before anybody logs a peer; where there is a supervisor, it was there first
		if _, err := alias.Open(h.Dir); err != nil {
			return err
		}
	}
	networkKey, err := cfg.networkKey(h.Dir, state)
	if err != nil {
		return err
	}
	keys, err := files.NewKeys(state)
	if err != nil {
		return err
	}
	messages, err := codec.New()
	if err != nil {
		return fmt.Errorf("read the contract: %w", err)
	}
	registry := telemetry.NewRegistry()
	observer := metrics.New(registry)
	var broker *app.Broker      // before any host there is one
	var network *libp2p.Network // made after the store, which it tells of its hosts
	contents := repository.Config{Dir: filepath.Join(state, "repository"), Log: log, Registry: registry, Quota: int64(cfg.Content.Quota), CollectEvery: cfg.Content.Keep, Anonymous: cfg.Mode == app.ModeAnonymous,
		Flooded: func(persona, peer string) { broker.Misbehaved(persona, peer, app.Flooded) }}
	if cfg.Routing != app.RoutingOff {
		contents.Routing = func(persona string) repository.Routing { return network.Contents(persona) }
	}
	if cfg.Routing == app.RoutingServer {
		contents.Advertise = repository.UserOwner
	}
	if cfg.Mode == app.ModeAnonymous {
		contents.Lanes = lanes(func() *libp2p.Network { return network })
	}
	store, err := repository.New(contents)
	if err != nil {
		return err
	}
	hosts := libp2p.Config{ListenAddrs: cfg.ListenAddrs, AnnounceAddrs: cfg.AnnounceAddrs, NetworkKey: networkKey, Routing: cfg.Routing, Traffic: observer.Traffic, Patience: cfg.Limits.Patience, GossipRate: cfg.Limits.GossipRate,
		Log: log, OnHost: store.Attach, OffHost: store.Detach, OnLane: store.AttachLane, OffLane: store.DetachLane, Granted: store.Granted}
	var tor *onionclient.Client // nil in open mode
	var reach func() app.Reach
	if cfg.Mode == app.ModeAnonymous {
		if tor, err = cfg.Onion.connect(h, cfg.Unfenced, networkKey, log); err != nil {
			return err
		}
		hosts.Onion, reach = &libp2p.Onion{SOCKS: cfg.Onion.path(), Dir: cmp.Or(cfg.Onion.Dir, filepath.Dir(h.Socket(process))), Service: cfg.Onion.Service, Services: tor, Authorize: tor.Authorize}, tor.Reach
	}
	network, err = libp2p.NewNetwork(hosts)
	if err != nil {
		return err
	}
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
	broker = app.New(app.Config{
		Mode: cfg.Mode, Private: networkKey != nil, Network: network, Keys: keys, Book: files.NewBook(state), Codec: messages, Signers: &libp2p.Signers{},
		Observer: observer, Log: log, Limits: cfg.Limits.app(cfg.Mode), Delivery: cfg.Limits.delivery(), Reach: reach,
	})
	people := files.NewAccess(h.Dir, libp2p.CanonicalID)
	lists, err := people.Load()
	if err != nil {
		return errors.Join(err, store.Close())
	}
	restrict := func(l access.Lists) { broker.Restrict(cfg.access().With(l)) }
	restrict(lists)
	if err := broker.Start(); err != nil {
		return errors.Join(err, broker.Close(), store.Close())
	}
	grpcserver.Register(server, broker, tracer)
	repository.NewServer(store).Register(server)
	telemetry.Register(server, process, registry, telemetry.WithSettings(loaded))
	server.SetServing(true)
	log.Info("broker is up")
	return lifecycle.Run(ctx,
		server.Serve,
		creds.Run,
		func(ctx context.Context) error { return telemetry.Serve(ctx, cfg.TelemetryListen, registry) },
		func(ctx context.Context) error { return people.Watch(ctx, accessEvery, log, restrict) },
		func(ctx context.Context) error {
			if tor == nil {
				<-ctx.Done()
				return nil
			}
			return tor.Run(ctx)
		},
		func(ctx context.Context) error {
			<-ctx.Done()
			return errors.Join(broker.Close(), store.Close()) // in this order: hosts serve what the store has
		})
}
