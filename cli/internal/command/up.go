package command

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/shallot-net/shallot/cli/internal/nodeclient"
	"github.com/shallot-net/shallot/cli/internal/supervisor"
	"github.com/shallot-net/shallot/kit/home"
)

func (a *app) up() *cobra.Command {
	cfg := supervisor.SingleConfig{}
	role := choice{of: []string{supervisor.Provider, supervisor.Consumer}}
	var verbose, anonymous bool
	var tor supervisor.AnonymousSingle
	cmd := &cobra.Command{
		Use: "up", Short: "Run this machine's node", Args: exactly(),
		Long: `Up runs a node in the foreground: a consumer, which submits tasks, or a provider, which executes them. A home keeps the
role that it was started with first. It prints the line "ready" on stderr when every service is healthy, starts again
what dies, and stops on Ctrl-C. The home is $XDG_DATA_HOME/shallot unless --home names another.

With --anonymous the node is reached and reaches others over Tor only, and its processes have no network beside it. It
starts the program tor, which must be installed, or uses one that runs. A home is anonymous for good, or not at all:
take another --home for the other mode. Its onion address, which others join through, is said by 'shallot node
--show-addresses' alone. Bridges and the sockets of a tor are kept from one start to the next; "none" in
their place takes them back.`,
		Example: `  shallot up --bootstrap /ip4/192.0.2.7/tcp/4001/p2p/12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp
  shallot up --role provider --listen /ip4/0.0.0.0/tcp/4001
  shallot up --anonymous --home ~/hidden --bootstrap /onion3/ADDRESS:4001/p2p/ID
  shallot up --anonymous --tor-control unix:/run/tor/control --tor-socks unix:/run/tor/socks`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := a.until(cmd.Context(), a.Outlive())
			defer stop()
			if cfg.Home = a.home; cfg.Home == "" {
				cfg.Home = nodeclient.DefaultPlaces(a.Getenv).Up
			}
			for flag, list := range map[string][]string{"--bootstrap": cfg.Bootstrap, "--listen": cfg.Listen} {
				for _, addr := range list {
					if !strings.HasPrefix(addr, "/") {
						return usage("%s %q is not a multiaddr such as /ip4/192.0.2.7/tcp/4001", flag, addr)
					}
				}
			}
			if err := checkModeFlags(cmd, anonymous, cfg, tor); err != nil {
				return err
			}
			if anonymous {
				cfg.Anonymous = &tor
			}
			cfg.Role = a.roleOf(role.value, cfg.Home)
			if err := checkExecutors(cfg.Role, cfg.Executors, anonymous); err != nil {
				return err
			}
			cfg.Finder, cfg.Print = a.Finder, supervisor.NewPrinter(a.Stderr)
			cfg.Mirror = mirror(verbose, cfg.Print)
			cfg.Ready = func(n supervisor.ReadyNode) {
				if err := a.printReady([]supervisor.ReadyNode{n}); err != nil {
					a.say("%v", err)
				}
				if anonymous && n.Role == supervisor.Provider {
					cfg.Print.Printf("others join through its onion address: shallot --home %s node --show-addresses", shellQuote(n.Home))
				}
				cfg.Print.Printf("ready")
			}
			return supervisor.RunSingle(ctx, cfg)
		},
	}
	f := cmd.Flags()
	f.Var(&role, "role", "`ROLE` of the node, provider or consumer (default: as before, at first consumer)")
	f.StringArrayVar(&cfg.Bootstrap, "bootstrap", nil, "`ADDRESS` to join the network through, a multiaddr that ends in /p2p/ID, repeatable")
	f.StringArrayVar(&cfg.Listen, "listen", nil, "swarm `ADDRESS` to listen on, a multiaddr, repeatable (default: as before, at first port 4001 on a provider and any on a consumer)")
	f.StringArrayVar(&cfg.Executors, "executor", nil, "an executor of your own, `TYPE=ADDRESS` with unix:/path or 127.0.0.1:port, repeatable; only on a provider")
	f.BoolVar(&anonymous, "anonymous", false, "reach others, and be reached, over Tor only")
	f.StringArrayVar(&tor.Tor.Bridges, "bridge", nil, "bridge `LINE` by which tor enters its network, as tor takes it, repeatable (default: as before; none: no more)")
	f.StringArrayVar(&tor.Tor.Transports, "pluggable-transport", nil, "`LINE` of a pluggable transport that bridges need, such as 'obfs4 exec /usr/bin/obfs4proxy', repeatable (default: as before; none: no more)")
	f.StringVar(&tor.Tor.Control, "tor-control", "", "`SOCKET` of the control port of a tor that runs already, unix:/path (default: as before; none: start one)")
	f.StringVar(&tor.Tor.Socks, "tor-socks", "", "its `SOCKET` for connections, unix:/path")
	f.BoolVar(&tor.Unfenced, "unfenced", false, unfencedHelp)
	f.BoolVar(&verbose, "verbose", false, "print what the processes log on stderr, too")
	_ = cmd.RegisterFlagCompletionFunc("role", cobra.FixedCompletions(role.of, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// onion begins the only addresses that an anonymous node dials.
const onion = "/onion3/"

// checkModeFlags refuses what does not go together, before anything of it can show in the wrong network.
func checkModeFlags(cmd *cobra.Command, anonymous bool, cfg supervisor.SingleConfig, tor supervisor.AnonymousSingle) error {
	if err := onlyAnonymous(cmd, anonymous, "bridge", "pluggable-transport", "tor-control", "tor-socks", "unfenced"); err != nil {
		return err
	}
	for _, addr := range cfg.Bootstrap {
		switch strings.HasPrefix(addr, onion) {
		case true:
			if !anonymous {
				return usage("--bootstrap %s is the address of an anonymous node: give --anonymous as well", addr)
			}
		default:
			if anonymous {
				return usage("--bootstrap %s is no onion address, and an anonymous node dials no other: ask for one that begins with /onion3/, or leave --anonymous out", addr)
			}
		}
	}
	if !anonymous {
		return nil
	}
	if len(cfg.Listen) > 0 {
		return usage("--listen %s: an anonymous node is reached by its onion service alone: leave --listen out", cfg.Listen[0])
	}
	return tor.Tor.Check()
}

// checkExecutors finds what the task service would refuse again and again.
func checkExecutors(role string, list []string, anonymous bool) error {
	for _, e := range list {
		name, address, ok := strings.Cut(e, "=")
		switch {
		case role != supervisor.Provider:
			return usage("--executor %s: a %s executes nothing; give --role provider", e, role)
		case !ok || !typeShaped(name) || address == "" || strings.Contains(address, ","):
			return usage("--executor %q is not TYPE=ADDRESS, such as grep=unix:/run/grep.sock", e)
		case anonymous && !strings.HasPrefix(address, "unix:"):
			return usage("--executor %s: an anonymous node has no network to reach it by: have the executor listen on a Unix socket, %s=unix:/path", e, name)
		case name == "sum" || name == "wasm":
			return usage("--executor %s: the type %s is built in; give yours another name", e, name)
		}
	}
	return nil
}

// roleOf is the role that was asked for, else the home's, else consumer.
func (a *app) roleOf(asked, dir string) string {
	if asked != "" {
		return asked
	}
	if h, err := home.Find(dir); err == nil {
		if r := supervisor.RecordedRole(h); r != "" {
			if r != supervisor.Consumer {
				fmt.Fprintf(a.Stderr, "shallot: %s is the home of a %s\n", h.Dir, r)
			}
			return r
		}
	}
	return supervisor.Consumer
}
