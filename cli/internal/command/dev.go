package command

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/shallot-net/shallot/cli/internal/nodeclient"
	"github.com/shallot-net/shallot/cli/internal/render"
	"github.com/shallot-net/shallot/cli/internal/supervisor"
	"github.com/shallot-net/shallot/kit/home"
)

func (a *app) dev() *cobra.Command {
	cfg := supervisor.NetworkConfig{}
	var verbose bool
	cmd := &cobra.Command{
		Use: "dev", Short: "Run a small network on this machine, to try it", Args: exactly(),
		Long: `Dev runs providers and consumers in the foreground, each with all its services as real processes, in directories of
their own under --home (default: $XDG_DATA_HOME/shallot-dev). It prints the line "ready" on stderr when every service is
healthy and every node knows every provider, starts again what dies, and stops everything on Ctrl-C.`,
		Example: `  shallot dev
  shallot dev --home /tmp/try --providers 5 --consumers 2`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := a.until(cmd.Context(), a.Outlive())
			defer stop()
			if cfg.Dir = a.home; cfg.Dir == "" {
				cfg.Dir = nodeclient.DefaultPlaces(a.Getenv).Dev
			}
			cfg.Finder, cfg.Print = a.Finder, supervisor.NewPrinter(a.Stderr)
			cfg.Mirror = mirror(verbose, cfg.Print)
			cfg.Ready = func(nodes []supervisor.ReadyNode) {
				if err := a.printReady(nodes); err != nil {
					a.say("%v", err)
				}
				cfg.Print.Printf("in another terminal: shallot --home %s run sum 1 2 3", shellQuote(entry(nodes)))
				cfg.Print.Printf("ready")
			}
			return supervisor.RunNetwork(ctx, cfg)
		},
	}
	cmd.Flags().IntVar(&cfg.Providers, "providers", 3, "how many providers")
	cmd.Flags().IntVar(&cfg.Consumers, "consumers", 1, "how many consumers")
	cmd.Flags().BoolVar(&verbose, "verbose", false, "print what the processes log on stderr, too")
	return cmd
}

func mirror(verbose bool, print *supervisor.Printer) func(node, process, line string) {
	if !verbose {
		return nil
	}
	return func(node, process, line string) { print.Printf("[%s %s] %s", node, process, render.Clean(line)) }
}

// entry is the node that a first task is given to.
func entry(nodes []supervisor.ReadyNode) string {
	i := slices.IndexFunc(nodes, func(n supervisor.ReadyNode) bool { return n.Role == supervisor.Consumer })
	return nodes[max(i, 0)].Home
}

// shellQuote quotes a path for a shell where it needs to be.
func shellQuote(s string) string {
	if strings.IndexFunc(s, func(r rune) bool {
		return !strings.ContainsRune("/._-+=:,@%", r) && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	}) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

func (a *app) printReady(nodes []supervisor.ReadyNode) error {
	if a.json() {
		return a.out().Object(render.Object{{Name: "nodes", Value: nodes}})
	}
	rows := make([][]render.Cell, len(nodes))
	for i, n := range nodes {
		rows[i] = []render.Cell{{Text: n.Name}, {Text: n.PeerID}, {Text: n.GatewayURL}, {Text: n.Home}}
	}
	return a.out().Table([]string{"node", "peer id", "gateway", "home"}, rows)
}

func (a *app) up() *cobra.Command {
	cfg := supervisor.SingleConfig{}
	role := choice{of: []string{supervisor.Provider, supervisor.Consumer}}
	var verbose bool
	cmd := &cobra.Command{
		Use: "up", Short: "Run this machine's node", Args: exactly(),
		Long: `Up runs a node in the foreground: a consumer, which submits tasks, or a provider, which executes them. A home keeps the
role that it was started with first. It prints the line "ready" on stderr when every service is healthy, starts again
what dies, and stops on Ctrl-C. The home is $XDG_DATA_HOME/shallot unless --home names another.`,
		Example: `  shallot up --bootstrap /ip4/192.0.2.7/tcp/4001/p2p/12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp
  shallot up --role provider --listen /ip4/0.0.0.0/tcp/4001`,
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
			cfg.Role = a.roleOf(role.value, cfg.Home)
			if err := checkExecutors(cfg.Role, cfg.Executors); err != nil {
				return err
			}
			cfg.Finder, cfg.Print = a.Finder, supervisor.NewPrinter(a.Stderr)
			cfg.Mirror = mirror(verbose, cfg.Print)
			cfg.Ready = func(n supervisor.ReadyNode) {
				if err := a.printReady([]supervisor.ReadyNode{n}); err != nil {
					a.say("%v", err)
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
	f.BoolVar(&verbose, "verbose", false, "print what the processes log on stderr, too")
	_ = cmd.RegisterFlagCompletionFunc("role", cobra.FixedCompletions(role.of, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// checkExecutors finds what the task service would refuse again and again.
func checkExecutors(role string, list []string) error {
	for _, e := range list {
		name, address, ok := strings.Cut(e, "=")
		switch {
		case role != supervisor.Provider:
			return usage("--executor %s: a %s executes nothing; give --role provider", e, role)
		case !ok || !typeShaped(name) || address == "" || strings.Contains(address, ","):
			return usage("--executor %q is not TYPE=ADDRESS, such as grep=unix:/run/grep.sock", e)
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
