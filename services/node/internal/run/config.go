// Package run puts a node together: its configuration, its parts, and how they live and end.
package run

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/shallot-net/shallot/kit/config"
	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/home"
	"github.com/shallot-net/shallot/services/node/internal/domain"
)

// Roles.
const (
	RoleProvider = "provider"
	RoleConsumer = "consumer"
)

// Config is the configuration of shallot-node.
type Config struct {
	config.Common
	Role          string        `koanf:"role" help:"provider or consumer"`
	Mode          string        `koanf:"mode" help:"open or anonymous, as the broker's"`
	Personas      Personas      `koanf:"personas"`
	Broker        string        `koanf:"broker" help:"endpoint of the broker; empty: its socket in the home"`
	Task          string        `koanf:"task" help:"endpoint of the task service; empty: its socket in the home"`
	Discovery     string        `koanf:"discovery" help:"endpoint of the discovery service (provider only); empty: its socket in the home"`
	Metric        string        `koanf:"metric" help:"endpoint of the metric service (provider only); empty: its socket in the home"`
	Bootstrap     []string      `koanf:"bootstrap" help:"consumer: addresses of providers to join through, each ending in /p2p/ID, comma separated"`
	BootstrapFile string        `koanf:"bootstrap_file" help:"consumer: a file with more of them, one a line, # begins a comment; read again while the node is not connected"`
	AddressFile   string        `koanf:"address_file" help:"provider: a file in which it keeps its own addresses, which others can have as their bootstrap_file; the node is ready once it is written"`
	ViewSize      int           `koanf:"view_size" help:"consumer: providers that it remembers at most, 128 at least"`
	Neighbours    int           `koanf:"neighbours" help:"consumer: connections to providers that it keeps"`
	OutboxMemory  config.Size   `koanf:"outbox_memory" help:"bytes of events that wait to be handed over, in memory, at most; what does not fit waits in the task service"`
	SendTimeout   time.Duration `koanf:"send_timeout" help:"how long one try to hand an event over may take, 2m at most"`
}

// Personas bounds the identities that an anonymous consumer's tasks leave from.
type Personas struct {
	Warm   int `koanf:"warm" help:"anonymous consumer: identities that are kept ready for tasks to come"`
	PerJob int `koanf:"per_job" help:"anonymous consumer: identities that the shards of one job leave from at most"`
	Most   int `koanf:"most" help:"anonymous consumer: identities at once; a task that finds none waits"`
}

// Modes.
const (
	ModeOpen      = "open"
	ModeAnonymous = "anonymous"
)

// Default is the configuration before anything is read.
func Default() Config {
	return Config{Role: RoleConsumer, Mode: ModeOpen, Personas: Personas{Warm: 4, PerJob: 8, Most: 128}, ViewSize: 256, Neighbours: 8, OutboxMemory: 32 << 20, SendTimeout: 10 * time.Second}
}

// Validate says what is wrong, by key; package config calls it.
func (c *Config) Validate() error {
	if c.Role != RoleProvider && c.Role != RoleConsumer {
		return fmt.Errorf("role is %q: it must be provider or consumer", c.Role)
	}
	if c.Mode != ModeOpen && c.Mode != ModeAnonymous {
		return fmt.Errorf("mode is %q: it must be open or anonymous", c.Mode)
	}
	if p := c.Personas; p.Warm < 0 || p.Warm > p.Most || p.PerJob < 1 || p.PerJob > 64 || p.Most < 1 || p.Most > 200 {
		return fmt.Errorf("personas: warm must be from 0 to most, per_job from 1 to 64, most from 1 to 200")
	}
	if c.ViewSize < 128 || c.ViewSize > 4096 {
		return fmt.Errorf("view_size is %d: it must be between 128 and 4096", c.ViewSize)
	}
	if c.Neighbours < 1 || c.Neighbours > 64 {
		return fmt.Errorf("neighbours is %d: it must be between 1 and 64", c.Neighbours)
	}
	if c.OutboxMemory < 1<<20 || c.OutboxMemory > 1<<30 {
		return fmt.Errorf("outbox_memory is %s: it must be between 1MiB and 1GiB", c.OutboxMemory)
	}
	if c.SendTimeout < 100*time.Millisecond || c.SendTimeout > 2*time.Minute {
		return fmt.Errorf("send_timeout is %s: it must be between 100ms and 2m", c.SendTimeout)
	}
	if c.Role == RoleProvider && (len(c.Bootstrap) > 0 || c.BootstrapFile != "") {
		return fmt.Errorf("bootstrap is set, and on a provider the discovery service joins the network: give it the addresses")
	}
	if c.Role == RoleConsumer && c.AddressFile != "" {
		return fmt.Errorf("address_file is set, and nobody joins through a consumer: set it on a provider")
	}
	if len(c.Bootstrap) > maxBootstrap {
		return fmt.Errorf("bootstrap has %d addresses and may have %d", len(c.Bootstrap), maxBootstrap)
	}
	for _, a := range c.Bootstrap {
		if domain.AddressPeer(a) == "" {
			return fmt.Errorf("bootstrap has the address %q, which does not end in /p2p/ID", a)
		}
	}
	if c.BootstrapFile != "" {
		if _, err := readBootstrap(c.BootstrapFile); err != nil {
			return err
		}
	}
	return nil
}

// endpoints fills in what is not configured.
func (c *Config) endpoints(h home.Home) {
	for process, e := range map[string]*string{"broker": &c.Broker, "task": &c.Task, "discovery": &c.Discovery, "metric": &c.Metric} {
		if *e == "" {
			*e = h.Endpoint(process)
		}
	}
}

const (
	maxBootstrap     = 256
	maxBootstrapFile = 256 << 10
)

func readBootstrap(path string) ([]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fault.InvalidArgument("BOOTSTRAP_UNREADABLE", "cannot read bootstrap_file %s: %v", path, err).Because(err)
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || info.Size() > maxBootstrapFile {
		return nil, fault.InvalidArgument("BOOTSTRAP_UNREADABLE", "bootstrap_file %s has more than %d bytes", path, maxBootstrapFile).Because(err)
	}
	var out []string
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		a, _, _ := strings.Cut(lines.Text(), "#")
		if a = strings.TrimSpace(a); a == "" {
			continue
		}
		if domain.AddressPeer(a) == "" {
			return nil, fault.InvalidArgument("BOOTSTRAP_INVALID", "line %d of bootstrap_file %s does not end in /p2p/ID", n, path)
		}
		if len(out) == maxBootstrap {
			return nil, fault.InvalidArgument("BOOTSTRAP_INVALID", "bootstrap_file %s has more than %d addresses", path, maxBootstrap)
		}
		out = append(out, a)
	}
	return out, lines.Err()
}

// bootstrap is whom to dial now: a file that became unreadable leaves the addresses that were given.
func (c *Config) bootstrap() []string {
	out := append([]string(nil), c.Bootstrap...)
	if c.BootstrapFile != "" {
		if more, err := readBootstrap(c.BootstrapFile); err == nil {
			out = append(out, more...)
		}
	}
	return out
}
