package main

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/shallot-net/shallot/kit/config"
	"github.com/shallot-net/shallot/kit/home"
	"github.com/shallot-net/shallot/kit/pace"
	"github.com/shallot-net/shallot/kit/pgstore"
	"github.com/shallot-net/shallot/services/metric/internal/app"
)

const (
	roleProvider  = "provider"
	modeOpen      = "open"
	modeAnonymous = "anonymous"
)

type settings struct {
	config.Common
	pgstore.Settings
	Broker     string        `koanf:"broker" help:"endpoint of the node's broker; empty: its socket in the home"`
	Mode       string        `koanf:"mode" help:"open, or anonymous: what is told of this node is rounded to classes that many share"`
	Role       string        `koanf:"role" help:"the node's role: only a provider has a metric service"`
	MaxMetrics int           `koanf:"max_metrics" help:"peers whose metrics are kept, 128 to 4096"`
	Sample     time.Duration `koanf:"sample" help:"time between two measurements of this host, 500ms to 1m"`
	Publish    publish       `koanf:"publish"`
}

type publish struct {
	Min     time.Duration `koanf:"min" help:"mean time between two reports in a small network"`
	Max     time.Duration `koanf:"max" help:"mean time between two reports however large the network is, 12h at most"`
	PerPeer time.Duration `koanf:"per_peer" help:"mean time between two reports for every provider that is known"`
}

func newSettings() *settings {
	d := app.DefaultPace
	return &settings{Mode: modeOpen, Role: roleProvider, MaxMetrics: app.DefaultMaxMetrics, Sample: app.DefaultSample, Publish: publish{d.Min, d.Max, d.PerPeer}}
}

// Validate finds what the types cannot.
func (s *settings) Validate() error {
	if err := s.Settings.Check(); err != nil {
		return err
	}
	if s.Role != roleProvider {
		return fmt.Errorf("role is %q: only a provider has a metric service", s.Role)
	}
	if s.Mode != modeOpen && s.Mode != modeAnonymous {
		return fmt.Errorf("mode is %q: it must be %s or %s", s.Mode, modeOpen, modeAnonymous)
	}
	if s.MaxMetrics < 128 || s.MaxMetrics > 4096 {
		return fmt.Errorf("max_metrics is %d: it must be 128 to 4096", s.MaxMetrics)
	}
	if s.Sample < 500*time.Millisecond || s.Sample > time.Minute {
		return fmt.Errorf("sample is %v: it must be 500ms to 1m", s.Sample)
	}
	if p := s.Publish; p.Min < time.Second || p.Max < p.Min || p.Max > app.DefaultPace.Max || p.PerPeer < 0 {
		return fmt.Errorf("publish.min is %v, publish.max %v, publish.per_peer %v: they must be 1s <= min <= max <= %v, and 0 or more", p.Min, p.Max, p.PerPeer, app.DefaultPace.Max)
	}
	return nil
}

func (s *settings) brokerEndpoint(node home.Home) string {
	if s.Broker != "" {
		return s.Broker
	}
	return node.Endpoint("broker")
}

func (s *settings) app(events app.Events, versions app.Versions, host app.Host, counter app.Counter, log *slog.Logger) app.Config {
	return app.Config{Pace: pace.Config{Min: s.Publish.Min, Max: s.Publish.Max, PerPeer: s.Publish.PerPeer}, MaxMetrics: s.MaxMetrics,
		Sample: s.Sample, Coarse: s.Mode == modeAnonymous, Log: log, Counter: counter, Host: host, Events: events, Versions: versions}
}
