package command

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/shallot-net/shallot/cli/internal/nodeclient"
	"github.com/shallot-net/shallot/cli/internal/render"
	"github.com/shallot-net/shallot/cli/internal/supervisor"
	"github.com/shallot-net/shallot/kit/tor"
)

func (a *app) dev() *cobra.Command {
	cfg := supervisor.NetworkConfig{}
	var verbose, anonymous, unfenced bool
	var relays int
	network := choice{of: []string{torPrivate, torPublic}}
	cmd := &cobra.Command{
		Use: "dev", Short: "Run a small network on this machine, to try it", Args: exactly(),
		Long: `Dev runs providers and consumers in the foreground, each with all its services as real processes, in directories of
their own under --home (default: $XDG_DATA_HOME/shallot-dev). It prints the line "ready" on stderr when every service is
healthy and every node knows every provider, starts again what dies, and stops everything on Ctrl-C.

With --anonymous the nodes reach each other over Tor only: over a private Tor network that is made on this machine, of
which nothing reaches the internet and which hides nothing, or with --tor public over the real one. The directory is
$XDG_DATA_HOME/shallot-dev-anonymous then. It takes the program tor (Debian: apt-get install tor).`,
		Example: `  shallot dev
  shallot dev --home /tmp/try --providers 5 --consumers 2
  shallot dev --anonymous`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := a.until(cmd.Context(), a.Outlive())
			defer stop()
			if err := onlyAnonymous(cmd, anonymous, "tor", "tor-relays", "unfenced"); err != nil {
				return err
			}
			if cmd.Flags().Changed("tor-relays") && network.value == torPublic {
				return usage("--tor-relays is for a private Tor network: leave out --tor %s, or this flag", torPublic)
			}
			if relays < 3 || relays > tor.MaxPrivateRelays {
				return usage("--tor-relays %d: give 3 to %d, each of which takes some 50 MiB of memory", relays, tor.MaxPrivateRelays)
			}
			cfg.Dir = nodeclient.DefaultPlaces(a.Getenv).Dev
			if anonymous {
				cfg.Anonymous = &supervisor.AnonymousNetwork{Public: network.value == torPublic, Relays: relays, Unfenced: unfenced}
				cfg.Dir = nodeclient.DefaultPlaces(a.Getenv).DevAnonymous
			}
			if a.home != "" {
				cfg.Dir = a.home
			}
			cfg.Finder, cfg.Print = a.Finder, supervisor.NewPrinter(a.Stderr)
			cfg.Mirror = mirror(verbose, cfg.Print)
			cfg.Ready = func(nodes []supervisor.ReadyNode) {
				if err := a.printReady(nodes); err != nil {
					a.say("%v", err)
				}
				cfg.Print.Printf("in another terminal: shallot --home %s run sum 1 2 3", shellQuote(entry(nodes)))
				cfg.Print.Printf("in a browser: shallot --home %s dashboard", shellQuote(entry(nodes)))
				cfg.Print.Printf("ready")
			}
			return supervisor.RunNetwork(ctx, cfg)
		},
	}
	cmd.Flags().IntVar(&cfg.Providers, "providers", 3, "how many providers")
	cmd.Flags().IntVar(&cfg.Consumers, "consumers", 1, "how many consumers")
	cmd.Flags().BoolVar(&anonymous, "anonymous", false, "have the nodes reach each other over Tor only")
	cmd.Flags().Var(&network, "tor", "which Tor `NETWORK` --anonymous uses: private, on this machine (default), or public")
	cmd.Flags().IntVar(&relays, "tor-relays", 3, "how many relays the private Tor network has, beside its three authorities, which relay too: with more of them, the ways between two nodes share fewer")
	cmd.Flags().BoolVar(&unfenced, "unfenced", false, unfencedHelp)
	cmd.Flags().BoolVar(&verbose, "verbose", false, "print what the processes log on stderr, too")
	_ = cmd.RegisterFlagCompletionFunc("tor", cobra.FixedCompletions(network.of, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// Tor networks.
const (
	torPrivate = "private"
	torPublic  = "public"
)

const unfencedHelp = "run anonymous nodes also where they cannot be shut off from the network, or not: a mistake in a program can then show where this machine is"

// onlyAnonymous refuses flags that say something in anonymous mode only.
func onlyAnonymous(cmd *cobra.Command, anonymous bool, flags ...string) error {
	for _, f := range flags {
		if !anonymous && cmd.Flags().Changed(f) {
			return usage("--%s is for anonymous mode: give --anonymous as well, or leave it out", f)
		}
	}
	return nil
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
		rows[i] = []render.Cell{{Text: n.Name}, {Text: render.Peer(n.Alias, n.PeerID)}, {Text: n.GatewayURL}, {Text: n.Home}}
	}
	if len(nodes) > 0 && nodes[0].Alias != "" {
		return a.out().Table([]string{"node", "calls itself", "gateway", "home"}, rows)
	}
	return a.out().Table([]string{"node", "peer id", "gateway", "home"}, rows)
}
