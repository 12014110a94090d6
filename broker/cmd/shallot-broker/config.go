package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/shallot-net/shallot/broker/internal/adapter/files"
	"github.com/shallot-net/shallot/broker/internal/adapter/libp2p"
	"github.com/shallot-net/shallot/broker/internal/app"
	"github.com/shallot-net/shallot/broker/internal/domain/access"
	"github.com/shallot-net/shallot/broker/internal/domain/delivery"
	"github.com/shallot-net/shallot/kit/config"
)

// Config of the process. What is 0 takes the default that ARCHITECTURE and the help name.
type Config struct {
	config.Common
	Mode           string   `koanf:"mode" help:"open, or anonymous: everything over Tor; a home that was used in one mode is refused in the other"`
	AnnounceAddrs  []string `koanf:"announce_addrs" help:"open mode: multiaddrs that others are told beside those that are listened on, and in place of loopback: where something forwards to this node, such as /ip4/192.0.2.7/tcp/4001"`
	ListenAddrs    []string `koanf:"listen_addrs" help:"open mode: multiaddrs on which other nodes are answered, such as /ip4/0.0.0.0/tcp/4001; empty: only dial out"`
	NetworkKeyFile string   `koanf:"network_key_file" help:"the key of a private network, a swarm key file with mode 600; empty: HOME/network.key where that is there, else an open network"`
	Routing        string   `koanf:"routing" help:"role in the routing table, by which strangers find each other: server (a provider: answers, keeps records, may be found), client (only asks) or off; empty: client in open mode, off in anonymous mode"`
	Allow          []string `koanf:"allow" help:"peers that may be connected, beside those in HOME/peers.allow, which is read again when it changes; empty, and no such file: all"`
	Deny           []string `koanf:"deny" help:"peers that may not, beside those in HOME/peers.deny, which is read again when it changes"`
	Onion          Onion    `koanf:"onion"`
	Unfenced       bool     `koanf:"unfenced" help:"anonymous mode: start also where this process could reach the network beside tor"`
	Limits         Limits   `koanf:"limits"`
	Content        Content  `koanf:"content"`
}

// Onion says how anonymous mode reaches tor.
type Onion struct {
	SOCKS    string `koanf:"socks" help:"anonymous mode: tor's SOCKS socket, unix:/path"`
	Service  bool   `koanf:"service" help:"anonymous mode: be reachable as an onion service, as a provider must be; else only dial out"`
	Endpoint string `koanf:"endpoint" help:"anonymous mode: where shallot-onion answers; empty: unix:HOME/run/onion.sock"`
	Dir      string `koanf:"dir" help:"anonymous mode: the folder of the socket to which tor brings what comes in; a tor of another user must be able to enter it by its group, and others must not; empty: HOME/run"`
}

// Content says what the repository keeps.
type Content struct {
	Quota config.Size   `koanf:"quota"  help:"how much content may take on disk; what would go beyond it is refused. 0 for no limit"`
	Keep  time.Duration `koanf:"keep"  help:"how long content that nobody pins is kept at least, and with it what a transfer that was cut off has fetched; a fifth of it when there is little room"`
}

// Limits bound what the broker holds.
type Limits struct {
	PeerEvents     int           `koanf:"peer_events" help:"events of one peer that may be unanswered before its stream is read no further"`
	PeerBytes      config.Size   `koanf:"peer_bytes" help:"the same in bytes"`
	PeerRate       int           `koanf:"peer_rate" help:"events of one peer that are taken in a second; what comes faster waits, and twice as many may come at once"`
	PeerByteRate   config.Size   `koanf:"peer_byte_rate" help:"the same in bytes"`
	GossipRate     int           `koanf:"gossip_rate" help:"messages of gossip of one peer that are looked at in a second; five times as many may come at once, and what is more is not heard"`
	Patience       time.Duration `koanf:"patience" help:"how long a peer may take over a frame that it has begun, and over what is written to it, before the stream is ended"`
	TotalBytes     config.Size   `koanf:"total_bytes" help:"events of all peers that are unanswered, in bytes"`
	Backlog        int           `koanf:"backlog" help:"events that may wait for one peer"`
	BacklogBytes   config.Size   `koanf:"backlog_bytes" help:"the same in bytes"`
	SubscriberWait time.Duration `koanf:"subscriber_wait" help:"how long an event waits for a service that takes it, such as one that restarts"`
	GossipBuffer   int           `koanf:"gossip_buffer" help:"gossip of one topic that a slow group may have waiting; then the oldest is dropped"`
}

// listenDefault is that of open mode.
var listenDefault = []string{"/ip4/127.0.0.1/tcp/0"}

func defaults() Config {
	return Config{
		Mode:        app.ModeOpen,
		ListenAddrs: slices.Clone(listenDefault),
		Limits: Limits{PeerEvents: 256, PeerBytes: 2 << 20, PeerRate: 2000, PeerByteRate: 32 << 20, GossipRate: 100, Patience: 30 * time.Second, TotalBytes: 48 << 20, Backlog: 8192, BacklogBytes: 32 << 20,
			SubscriberWait: 5 * time.Second, GossipBuffer: 1024},
		Content: Content{Quota: 32 << 30, Keep: 30 * time.Minute},
	}
}

// Validate checks what the tags cannot say.
func (c *Config) Validate() error {
	if err := c.checkMode(); err != nil {
		return err
	}
	if !slices.Contains([]string{app.RoutingServer, app.RoutingClient, app.RoutingOff}, c.Routing) {
		return fmt.Errorf("routing is %q: it must be server, client or off", c.Routing)
	}
	for key, ids := range map[string][]string{"allow": c.Allow, "deny": c.Deny} {
		if _, err := access.Parse([]byte(strings.Join(ids, "\n")), libp2p.CanonicalID); err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
	}
	if c.Content.Quota != 0 && c.Content.Quota < 64<<20 || c.Content.Keep < time.Second {
		return errors.New("content: quota must be 64MiB or more, or 0 for no limit; keep must be 1s or more")
	}
	l := c.Limits
	if l.PeerEvents < 1 || l.PeerBytes < 1<<20 || l.PeerRate < 1 || l.GossipRate < 10 || l.Patience < time.Second || l.PeerByteRate < 1<<20 || l.TotalBytes < l.PeerBytes || l.Backlog < 1 || l.BacklogBytes < 1<<20 || l.GossipBuffer < 1 || l.SubscriberWait < 0 {
		return errors.New("limits: counts must be 1 or more, gossip_rate 10 or more, sizes 1MiB or more, patience 1s or more, total_bytes at least peer_bytes")
	}
	return nil
}

// checkMode checks what belongs to one mode only, and takes the mode's defaults.
func (c *Config) checkMode() error {
	routing := app.RoutingClient
	switch c.Mode {
	case app.ModeOpen:
		if c.Onion != (Onion{}) || c.Unfenced {
			return errors.New("onion and unfenced belong to anonymous mode: give --mode anonymous, or leave them out")
		}
	case app.ModeAnonymous:
		if slices.Equal(c.ListenAddrs, listenDefault) {
			c.ListenAddrs = nil
		}
		if len(c.ListenAddrs) > 0 {
			return fmt.Errorf("listen_addrs is %q: in anonymous mode a node listens at its onion service only (onion.service); leave it out", c.ListenAddrs)
		}
		if len(c.AnnounceAddrs) > 0 {
			return fmt.Errorf("announce_addrs is %q: in anonymous mode a node is known by its onion address alone; leave it out", c.AnnounceAddrs)
		}
		if path, ok := strings.CutPrefix(c.Onion.SOCKS, "unix:"); !ok || !filepath.IsAbs(path) {
			return fmt.Errorf("onion.socks is %q: anonymous mode needs tor's SOCKS socket, in the form unix:/path (SocksPort unix:/path in torrc)", c.Onion.SOCKS)
		}
		if c.Onion.Dir != "" && !filepath.IsAbs(c.Onion.Dir) {
			return fmt.Errorf("onion.dir is %q: it must be an absolute path, because tor takes it from elsewhere", c.Onion.Dir)
		}
		routing = app.RoutingOff // each step of a query is a dial to a stranger, who learns what is looked for
	default:
		return fmt.Errorf("mode is %q: it must be %s or %s", c.Mode, app.ModeOpen, app.ModeAnonymous)
	}
	if c.Routing == "" {
		c.Routing = routing
	}
	return nil
}

// networkKey is that of the private network that the home is of, nil in an open one.
func (c *Config) networkKey(home, state string) ([]byte, error) {
	path, required := c.NetworkKeyFile, true
	if path == "" {
		path, required = filepath.Join(home, "network.key"), false
	}
	key, err := files.NetworkKey(path, required, libp2p.ParseNetworkKey)
	if err != nil {
		return nil, err
	}
	return key, files.ClaimNetwork(state, key)
}

// access are the lists of the configuration; Validate has seen that they are lists.
func (c *Config) access() access.Lists {
	allow, _ := access.Parse([]byte(strings.Join(c.Allow, "\n")), libp2p.CanonicalID)
	deny, _ := access.Parse([]byte(strings.Join(c.Deny, "\n")), libp2p.CanonicalID)
	return access.New(allow, deny)
}

// dialOverTor is how long a try to reach a peer may take there: three round trips and more, of up to 3 s each way.
const dialOverTor = 90 * time.Second

func (l Limits) app(mode string) app.Limits {
	var dial time.Duration // as app has it
	if mode == app.ModeAnonymous {
		dial = dialOverTor
	}
	return app.Limits{Dial: dial, InEvents: l.PeerEvents, InBytes: int(l.PeerBytes), InTotal: int(l.TotalBytes), InPerSecond: l.PeerRate, InBytesPerSecond: int(l.PeerByteRate), Patience: l.Patience,
		OutEvents: l.PeerEvents, OutBytes: int(l.PeerBytes), OutWaiting: l.Backlog, OutWaitingBytes: int(l.BacklogBytes)}
}

func (l Limits) delivery() delivery.Config {
	return delivery.Config{Linger: max(l.SubscriberWait, time.Millisecond), Gossip: l.GossipBuffer}
}
