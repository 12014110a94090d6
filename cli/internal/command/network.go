package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"github.com/shallot-net/shallot/cli/internal/nodeclient"
	"github.com/shallot-net/shallot/cli/internal/render"
	"github.com/shallot-net/shallot/cli/internal/supervisor"
	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/home"
	"github.com/shallot-net/shallot/kit/invite"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
)

func (a *app) network() *cobra.Command {
	cmd := group(&cobra.Command{
		Use: "network", Short: "Make, or join, a private network",
		Long: `A private network has a key: who does not have it cannot exchange a byte with its nodes. The key is in HOME/network.key,
and 'up' and 'dev' use the network of their home. Whoever has an invite is in, and can invite others.

One that is made with --anonymous is for anonymous nodes: to who does not have its key, their onion services are not there.`,
		Example: `  shallot network create
  shallot up --role provider
  shallot network invite            # on the other machine: shallot network join INVITE

  shallot network create --anonymous && shallot up --anonymous --role provider`,
	})
	cmd.AddCommand(a.networkCreate(), a.networkInvite(), a.networkJoin(), a.networkDemoTor())
	return cmd
}

// ownHome is the home that is not of a running node yet.
func (a *app) ownHome() (home.Home, error) {
	dir := a.home
	if dir == "" {
		dir = nodeclient.DefaultPlaces(a.Getenv).Up
	}
	return home.Open(dir)
}

func (a *app) networkCreate() *cobra.Command {
	var anonymous bool
	cmd := &cobra.Command{
		Use: "create", Short: "Make a private network, whose first node is this home's", Args: exactly(),
		Example: "  shallot network create\n  shallot --home /tmp/try network create && shallot dev --home /tmp/try\n  shallot network create --anonymous",
		RunE: func(*cobra.Command, []string) error {
			h, err := a.ownHome()
			if err != nil {
				return err
			}
			if _, err := supervisor.NetworkKey(h); !errors.Is(err, fs.ErrNotExist) {
				return fault.FailedPrecondition("NETWORK_FIXED", "%s is of a private network already: take another --home", h.Dir)
			}
			if !anonymous && supervisor.RecordedMode(h) == supervisor.Anonymous {
				return usage("%s is the home of an anonymous node: give --anonymous, or another --home", h.Dir)
			}
			if err := supervisor.WriteNetwork(h, invite.Invite{Key: invite.NewKey(), Anonymous: anonymous}); err != nil {
				return err
			}
			a.say("start a provider with 'shallot up%s --role provider', then invite others with 'shallot network invite'", withFlag(anonymous))
			return a.printHome(h, anonymous)
		},
	}
	cmd.Flags().BoolVar(&anonymous, "anonymous", false, "for anonymous nodes: without the key nobody can see that they are there")
	return cmd
}

func withFlag(anonymous bool) string {
	if anonymous {
		return " --anonymous"
	}
	return ""
}

func modeOf(anonymous bool) string {
	if anonymous {
		return supervisor.Anonymous
	}
	return supervisor.Open
}

func (a *app) printHome(h home.Home, anonymous bool) error {
	if a.json() {
		return a.out().Object(render.Object{{Name: "home", Value: h.Dir}, {Name: "mode", Value: modeOf(anonymous)}})
	}
	_, err := fmt.Fprintln(a.Stdout, render.Clean(h.Dir))
	return err
}

func (a *app) networkJoin() *cobra.Command {
	var anonymous bool
	cmd := &cobra.Command{
		Use: "join [INVITE]", Short: "Make this home one of the private network that an invite is for", Args: cobra.MaximumNArgs(1),
		Long: `Join makes the home one of the network; 'shallot up' then joins it. Without an argument, or with -, the invite is read from
stdin, so that it gets into neither the shell's history nor the list of processes. The invite says whether the network is
anonymous; with --anonymous no other is joined.`,
		Example: "  shallot network join < invite.txt\n  shallot network join shallot1-…",
		RunE: func(_ *cobra.Command, args []string) error {
			text := "-"
			if len(args) > 0 {
				text = args[0]
			}
			if text == "-" {
				b, err := io.ReadAll(io.LimitReader(a.Stdin, 1<<20))
				if err != nil {
					return err
				}
				text = string(b)
			}
			i, err := invite.Decode(text)
			if err != nil {
				return err
			}
			if anonymous && !i.Anonymous {
				return usage("the invite is to a network in open mode, where nodes see each other's addresses: leave --anonymous out, or ask for an invite to an anonymous one")
			}
			h, err := a.ownHome()
			if err != nil {
				return err
			}
			if err := supervisor.WriteNetwork(h, i); err != nil {
				return err
			}
			a.say("start the node with 'shallot up%[1]s', as a provider with 'shallot up%[1]s --role provider'", withFlag(i.Anonymous))
			return a.printHome(h, i.Anonymous)
		},
	}
	cmd.Flags().BoolVar(&anonymous, "anonymous", false, "refuse an invite to a network that is not anonymous")
	return cmd
}

func (a *app) networkInvite() *cobra.Command {
	var addresses []string
	cmd := &cobra.Command{
		Use: "invite", Short: "Print an invite to this node's private network", Args: exactly(),
		Long: `Invite prints one line of text that holds the network's key and addresses to join through: this node's own if it is a
provider, and those of providers that it knows. Whoever gets the line is in: send it on a way that you trust.`,
		Example: "  shallot network invite\n  shallot network invite --address /dns4/example.org/tcp/4001/p2p/12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp",
		RunE: func(cmd *cobra.Command, _ []string) error {
			i, err := a.invitation(cmd.Context(), addresses)
			if err != nil {
				return err
			}
			line, err := i.Encode()
			if err != nil {
				return err
			}
			if !slices.ContainsFunc(i.Addresses, func(a string) bool { return !invite.Loopback(a) }) {
				a.say("all addresses in it are of this machine alone: with others, use 'shallot up --role provider --listen', or --address")
			}
			if a.json() {
				return a.out().Object(render.Object{{Name: "invite", Value: line}, {Name: "addresses", Value: i.Addresses}, {Name: "mode", Value: modeOf(i.Anonymous)}})
			}
			_, err = fmt.Fprintln(a.Stdout, line)
			return err
		},
	}
	cmd.Flags().StringArrayVar(&addresses, "address", nil, "`ADDRESS` to join through instead, a multiaddr that ends in /p2p/ID, repeatable; no node need run then")
	return cmd
}

// invitation is the key of the network, its mode, and where to join it.
func (a *app) invitation(ctx context.Context, given []string) (i invite.Invite, err error) {
	if len(given) > 0 {
		h, err := a.ownHome()
		if err != nil {
			return i, err
		}
		i, err = privateNetwork(h)
		i.Addresses = given
		return i, err
	}
	t, err := a.target()
	if err != nil {
		return i, err
	}
	if t.Home == nil {
		return i, usage("an invite holds the key in a node's home: give --home instead of --endpoint")
	}
	if i, err = privateNetwork(*t.Home); err != nil {
		return i, err
	}
	c, err := nodeclient.Dial(t)
	if err != nil {
		return i, err
	}
	defer c.Close()
	ctx, stop := a.interruptible(ctx)
	defer stop()
	i.Addresses, err = joinThrough(ctx, c)
	return i, err
}

// privateNetwork looks in the home, and for a node of a dev network in the network's.
func privateNetwork(h home.Home) (i invite.Invite, err error) {
	of := h
	i.Key, err = supervisor.NetworkKey(h)
	if errors.Is(err, fs.ErrNotExist) {
		if up, ferr := home.Find(filepath.Dir(h.Dir)); ferr == nil {
			if _, derr := supervisor.ReadNetwork(up.Dir); derr == nil {
				of = up
				i.Key, err = supervisor.NetworkKey(up)
			}
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		return i, fault.FailedPrecondition("NETWORK_OPEN", "%s is of no private network, and an open one needs no invite: give others the addresses that 'shallot node' prints, or begin with 'shallot network create'", h.Dir)
	}
	if err != nil {
		return i, err
	}
	mode, err := supervisor.NetworkMode(of)
	if mode == "" { // an earlier version has made it
		mode = supervisor.RecordedMode(h)
	}
	i.Anonymous = mode == supervisor.Anonymous
	return i, err
}

func joinThrough(ctx context.Context, c *nodeclient.Client) ([]string, error) {
	var byNode [][]string
	self, err := c.GetNode(ctx, &nodev1.GetNodeRequest{ShowAddresses: true}) // an invite is for the one who is invited
	if err != nil {
		return nil, err
	}
	if n := self.GetNode(); n.GetRole() == supervisor.Provider {
		byNode = append(byNode, n.GetAddresses())
	}
	peers, err := c.ListPeers(ctx, &nodev1.ListPeersRequest{State: "available", ShowAddresses: true})
	if err != nil {
		return nil, err
	}
	for _, p := range peers.GetPeers() {
		var full []string
		for _, a := range p.GetAddresses() {
			full = append(full, a+"/p2p/"+p.GetPeerId())
		}
		byNode = append(byNode, full)
	}
	out := invite.Through(byNode)
	if len(out) == 0 {
		return nil, fault.FailedPrecondition("NOBODY_TO_JOIN", "no provider with an address is known yet, and a network is joined through one: start one with 'shallot up --role provider'")
	}
	return out, nil
}
