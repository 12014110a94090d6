// Package testbroker starts whole brokers inside a test: real libp2p on loopback, real gRPC on Unix sockets.
package testbroker

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"github.com/shallot-net/shallot/broker/internal/adapter/codec"
	"github.com/shallot-net/shallot/broker/internal/adapter/files"
	"github.com/shallot-net/shallot/broker/internal/adapter/grpcserver"
	"github.com/shallot-net/shallot/broker/internal/adapter/libp2p"
	"github.com/shallot-net/shallot/broker/internal/adapter/metrics"
	"github.com/shallot-net/shallot/broker/internal/adapter/repository"
	"github.com/shallot-net/shallot/broker/internal/app"
	"github.com/shallot-net/shallot/kit/rpc"
	brokerv1 "github.com/shallot-net/shallot/proto/shallot/broker/v1"
)

// Broker is a running broker and clients of it.
type Broker struct {
	Dir        string
	ID         string
	Addrs      []string // with /p2p
	Network    brokerv1.NetworkServiceClient
	Events     brokerv1.EventServiceClient
	Registry   *prometheus.Registry
	App        *app.Broker
	Socket     string
	Repository *repository.Store // with Options.Content

	t     testing.TB
	stop  context.CancelFunc
	done  chan struct{}
	mu    sync.Mutex
	conns []*grpc.ClientConn
	once  sync.Once
}

// Options of a broker; the zero value works.
type Options struct {
	Dir    string // default: a new one
	Listen []string
	Mode   string
	Config func(*app.Config)

	NetworkKey []byte // of a private network
	Routing    string // a role of package app; default: off
	Content    bool   // with a repository
	Advertise  string // the owner whose content is advertised
}

// Start starts a broker, which is stopped when the test ends.
func Start(t testing.TB, o Options) *Broker {
	t.Helper()
	b, err := TryStart(t, o)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TryStart returns what prevents the start.
func TryStart(t testing.TB, o Options) (*Broker, error) {
	t.Helper()
	if o.Dir == "" {
		dir, err := os.MkdirTemp("", "b")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.RemoveAll(dir) })
		o.Dir = dir
	}
	if o.Listen == nil {
		o.Listen = []string{"/ip4/127.0.0.1/tcp/0"}
	}
	if o.Mode == "" {
		o.Mode = app.ModeOpen
	}
	keys, err := files.NewKeys(o.Dir)
	if err != nil {
		return nil, err
	}
	registry := prometheus.NewRegistry()
	observer := metrics.New(registry)
	messages, err := codec.New()
	if err != nil {
		return nil, err
	}
	config := libp2p.Config{ListenAddrs: o.Listen, NetworkKey: o.NetworkKey, Traffic: observer.Traffic, Routing: o.Routing}
	var network *libp2p.Network
	var store *repository.Store
	if o.Content {
		store, err = repository.New(repository.Config{Dir: filepath.Join(o.Dir, "repository"), Advertise: o.Advertise, AdvertiseFirst: 50 * time.Millisecond, Routing: func(persona string) repository.Routing { return network.Contents(persona) }})
		if err != nil {
			return nil, err
		}
		t.Cleanup(func() { _ = store.Close() })
		config.OnHost, config.OffHost = store.Attach, store.Detach
	}
	if network, err = libp2p.NewNetwork(config); err != nil {
		return nil, err
	}
	b := &Broker{Dir: o.Dir, Socket: filepath.Join(o.Dir, "s.sock"), Registry: registry, Repository: store, t: t, done: make(chan struct{})}
	cfg := app.Config{Mode: o.Mode, Private: o.NetworkKey != nil, Network: network, Keys: keys, Book: files.NewBook(o.Dir), Codec: messages, Signers: &libp2p.Signers{}, Observer: observer}
	if o.Config != nil {
		o.Config(&cfg)
	}
	b.App = app.New(cfg)
	if err := b.App.Start(); err != nil {
		_ = b.App.Close()
		return nil, err
	}
	server, err := rpc.NewServer(rpc.ServerConfig{Process: "broker", Listen: "unix:" + b.Socket, Grace: 100 * time.Millisecond})
	if err != nil {
		return nil, err
	}
	if err := server.Listen(t.Context()); err != nil {
		return nil, err
	}
	grpcserver.Register(server, b.App, nil)
	ctx, cancel := context.WithCancel(context.Background())
	b.stop = cancel
	go func() {
		defer close(b.done)
		if err := server.Serve(ctx); err != nil {
			t.Errorf("serve: %v", err)
		}
	}()
	t.Cleanup(b.Stop)
	cc := b.Dial()
	b.Network, b.Events = brokerv1.NewNetworkServiceClient(cc), brokerv1.NewEventServiceClient(cc) //nolint:forbidigo // a service's place is taken by the test
	self, err := b.Network.Self(t.Context(), &brokerv1.SelfRequest{})
	if err != nil {
		return nil, err
	}
	b.ID = self.GetPeerId()
	for _, a := range self.GetAddresses() {
		b.Addrs = append(b.Addrs, a+"/p2p/"+b.ID)
	}
	return b, nil
}

// Dial makes another connection to the broker.
func (b *Broker) Dial() *grpc.ClientConn {
	b.t.Helper()
	cc, err := rpc.Dial("unix:"+b.Socket, rpc.ClientConfig{})
	if err != nil {
		b.t.Fatal(err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.conns = append(b.conns, cc)
	return cc
}

// Stop ends the broker.
func (b *Broker) Stop() {
	b.once.Do(func() {
		for _, cc := range b.conns {
			_ = cc.Close()
		}
		if err := b.App.Close(); err != nil {
			b.t.Errorf("close the broker: %v", err)
		}
		b.stop()
		<-b.done
	})
}

// Connect dials another broker.
func (b *Broker) Connect(to *Broker) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), Patience)
	defer cancel()
	if _, err := b.Network.Connect(ctx, &brokerv1.ConnectRequest{Addresses: to.Addrs}); err != nil {
		b.t.Fatalf("connect: %v", err)
	}
}
