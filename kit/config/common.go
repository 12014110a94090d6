package config

import (
	"slices"
	"strings"

	"github.com/shallot-net/shallot/kit/alias"
	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/home"
	"github.com/shallot-net/shallot/kit/logging"
)

// Common is what every process of a node has; embed it.
type Common struct {
	Home            string `koanf:"home" help:"directory of this node (required)"`
	Listen          string `koanf:"listen" help:"endpoint to serve on: unix:/path, or host:port, which needs tls.dir; empty: this process's socket in the home"`
	TelemetryListen string `koanf:"telemetry_listen" help:"host:port on loopback where Prometheus can scrape this process; empty: off"`
	TLS             TLS    `koanf:"tls"`
	Log             Log    `koanf:"log"`
	Trace           Trace  `koanf:"trace"`
}

// Trace says where the spans of this process go; see package tracing.
type Trace struct {
	Endpoint string  `koanf:"endpoint" help:"collector that takes OpenTelemetry traces (OTLP over gRPC): unix:/path, host:port on loopback, or with trace.tls anywhere; empty: no traces"`
	TLS      bool    `koanf:"tls" help:"call the collector over TLS; its certificate must be one that this system trusts"`
	Sample   float64 `koanf:"sample" help:"the part of all traces that are taken, from 0 to 1"`
}

// TLS says who this process is to the other services of its node, off the Unix socket.
type TLS struct {
	Dir string `koanf:"dir" help:"directory with ca.crt, tls.crt, tls.key and revoked.crl, as 'shallot pki run' writes it, to serve and to call over TCP; its files are read again when they change; empty: Unix sockets alone"`
}

// Log says what is logged and how.
type Log struct {
	Level  string `koanf:"level" help:"debug, info, warn or error"`
	Format string `koanf:"format" help:"json or text"`
}

func (c *Common) common() *Common { return c }

func (c *Common) defaults() {
	if c.Log.Level == "" {
		c.Log.Level = "info"
	}
	if c.Log.Format == "" {
		c.Log.Format = "json"
	}
	c.Trace.Sample = 1
}

// finish checks what the tags cannot say and fills in what depends on the home.
func (c *Common) finish(process string, l *Loaded) error {
	if c.Home == "" {
		return fault.InvalidArgument("CONFIG_INVALID", "home is required: give --home DIR or %s", envName(process, "home"))
	}
	if err := oneOf(l, "log.level", c.Log.Level, logging.Levels); err != nil {
		return err
	}
	if err := oneOf(l, "log.format", c.Log.Format, logging.Formats); err != nil {
		return err
	}
	h, err := home.Open(c.Home)
	if err != nil {
		return err
	}
	c.Home = h.Dir
	logging.NamePeers(alias.OfHome(h.Dir)) // for every process of the home alike
	if c.Listen == "" {
		c.Listen = h.Endpoint(process)
	}
	return nil
}

func oneOf(l *Loaded, key, value string, known []string) error {
	if slices.Contains(known, value) {
		return nil
	}
	msg := "%s is %q (from %s): it must be one of %s"
	if s := fault.Suggest(value, known); s != "" {
		msg += "; " + s
	}
	return fault.InvalidArgument("CONFIG_INVALID", msg, key, value, l.Source(key), strings.Join(known, ", "))
}
