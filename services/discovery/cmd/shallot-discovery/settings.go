package main

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/shallot-net/shallot/kit/config"
	"github.com/shallot-net/shallot/kit/home"
	"github.com/shallot-net/shallot/kit/pace"
	"github.com/shallot-net/shallot/kit/pgstore"
	"github.com/shallot-net/shallot/services/discovery/internal/app"
	"github.com/shallot-net/shallot/services/discovery/internal/domain"
)

type settings struct {
	config.Common
	pgstore.Settings
	Broker     string   `koanf:"broker" help:"endpoint of the node's broker; empty: its socket in the home"`
	Mode       string   `koanf:"mode" help:"open, or anonymous: what is told of this node is rounded to classes that many share"`
	Role       string   `koanf:"role" help:"the node's role: only a provider has a discovery service"`
	Bootstrap  []string `koanf:"bootstrap" help:"multiaddrs that end in /p2p/ID, to join the network through; any of them suffices"`
	MaxPeers   int      `koanf:"max_peers" help:"rows of the peer table, 128 to 4096"`
	Neighbours int      `koanf:"neighbours" help:"providers to be connected to, 1 to 64"`
	Announce   announce `koanf:"announce"`
}

// The modes of a node.
const (
	modeOpen      = "open"
	modeAnonymous = "anonymous"
)

type announce struct {
	Min     time.Duration `koanf:"min" help:"mean time between two announcements in a small network"`
	Max     time.Duration `koanf:"max" help:"mean time between two announcements however large the network is, 12h at most"`
	PerPeer time.Duration `koanf:"per_peer" help:"mean time between two announcements for every provider that is known"`
}

func newSettings() *settings {
	d := app.DefaultPace
	return &settings{Mode: modeOpen, Role: domain.RoleProvider, MaxPeers: app.DefaultMaxPeers, Neighbours: app.DefaultNeighbours,
		Announce: announce{d.Min, d.Max, d.PerPeer}}
}

// dial and ask are as they are in open mode, but over Tor: a dial is several round trips of up to 3 s there.
func (s *settings) dial() time.Duration {
	if s.Mode == modeAnonymous {
		return 90 * time.Second
	}
	return 0
}

func (s *settings) ask() time.Duration {
	if s.Mode == modeAnonymous {
		return 30 * time.Second
	}
	return 0
}

// Validate finds what the types cannot.
func (s *settings) Validate() error {
	if err := s.Settings.Check(); err != nil {
		return err
	}
	if s.Role != domain.RoleProvider {
		return fmt.Errorf("role is %q: only a provider has a discovery service", s.Role)
	}
	if s.Mode != modeOpen && s.Mode != modeAnonymous {
		return fmt.Errorf("mode is %q: it must be %s or %s", s.Mode, modeOpen, modeAnonymous)
	}
	for _, addr := range s.Bootstrap {
		if !domain.JoinAddressShaped(addr) {
			return fmt.Errorf("bootstrap %q is no multiaddr that ends in /p2p/ID, such as /ip4/192.0.2.1/tcp/4001/p2p/12D3Koo…", addr)
		}
	}
	if s.MaxPeers < 128 || s.MaxPeers > 4096 {
		return fmt.Errorf("max_peers is %d: it must be 128 to 4096", s.MaxPeers)
	}
	if s.Neighbours < 1 || s.Neighbours > 64 {
		return fmt.Errorf("neighbours is %d: it must be 1 to 64", s.Neighbours)
	}
	if a := s.Announce; a.Min < time.Second || a.Max < a.Min || a.Max > app.DefaultPace.Max || a.PerPeer < 0 {
		return fmt.Errorf("announce.min is %v, announce.max %v, announce.per_peer %v: they must be 1s <= min <= max <= %v, and 0 or more", a.Min, a.Max, a.PerPeer, app.DefaultPace.Max)
	}
	return nil
}

func (s *settings) brokerEndpoint(node home.Home) string {
	if s.Broker != "" {
		return s.Broker
	}
	return node.Endpoint("broker")
}

// link is what the service needs of its broker.
type link interface {
	app.Network
	app.Events
	app.Routing
}

func (s *settings) app(l link, store app.Store, counter app.Counter, log *slog.Logger) app.Config {
	return app.Config{Bootstrap: s.Bootstrap, Pace: pace.Config{Min: s.Announce.Min, Max: s.Announce.Max, PerPeer: s.Announce.PerPeer},
		MaxPeers: s.MaxPeers, Neighbours: s.Neighbours, Coarse: s.Mode == modeAnonymous, AskKnown: s.Mode == modeAnonymous, Dial: s.dial(), Ask: s.ask(), Log: log, Counter: counter, Network: l, Events: l, Store: store, Routing: l}
}
