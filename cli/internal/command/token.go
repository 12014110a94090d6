package command

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/shallot-net/shallot/cli/internal/gatewayclient"
	"github.com/shallot-net/shallot/cli/internal/render"
)

func (a *app) token() *cobra.Command {
	var g gatewayFlags
	cmd := group(&cobra.Command{
		Use: "token", Short: "Let programs use a node over REST, and take it back",
		Long: `A token is a word that a program sends with its requests to the node's gateway. One is made with the node and lies in the file
that 'shallot node' names; each program had better have one of its own, which may do all but make and revoke tokens. The
gateway keeps their hashes alone. 'shallot client' is for programs that speak gRPC from another machine.`,
		Example: `  shallot token add ci
  curl -H "Authorization: Bearer TOKEN" URL/v1/tasks
  shallot token revoke ci`,
	})
	for _, c := range []*cobra.Command{a.tokenAdd(&g), a.tokenRevoke(&g), a.tokenList(&g)} {
		g.add(c)
		cmd.AddCommand(c)
	}
	return cmd
}

// withGateway runs fn with the gateway of the node.
func (a *app) withGateway(g *gatewayFlags, fn func(ctx context.Context, c *gatewayclient.Client, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		c, err := a.gateway(*g)
		if err != nil {
			return err
		}
		ctx, stop := a.interruptible(cmd.Context())
		defer stop()
		if err = fn(ctx, c, args); err != nil && interrupted(ctx) {
			return errInterrupted
		}
		return err
	}
}

func (a *app) tokenAdd(g *gatewayFlags) *cobra.Command {
	return &cobra.Command{
		Use: "add NAME", Short: "Make a token and print it, this once", Args: exactly("the token's name"),
		Example: "  shallot token add ci > ci.token",
		RunE: a.withGateway(g, func(ctx context.Context, c *gatewayclient.Client, args []string) error {
			token, err := c.AddToken(ctx, args[0])
			if err != nil {
				return err
			}
			if a.json() {
				return a.out().Object(render.Object{{Name: "name", Value: args[0]}, {Name: "token", Value: token}, {Name: "gateway", Value: c.URL}})
			}
			a.say("keep it as a password: it is printed this once; 'shallot token revoke %s' takes it back", args[0])
			_, err = fmt.Fprintln(a.Stdout, render.Clean(token))
			return err
		}),
	}
}

func (a *app) tokenRevoke(g *gatewayFlags) *cobra.Command {
	return &cobra.Command{
		Use: "revoke NAME", Short: "Take a token back", Args: exactly("the token's name"),
		Long:    "Revoke ends what the token has open and the sessions of browsers begun with it, within a second at every gateway of the node. The token main is replaced: another one is in the token file, and all sessions end.",
		Example: "  shallot token revoke ci\n  shallot token revoke main",
		RunE: a.withGateway(g, func(ctx context.Context, c *gatewayclient.Client, args []string) error {
			if err := c.RevokeToken(ctx, args[0]); err != nil {
				return err
			}
			a.say("%s is revoked", args[0])
			return nil
		}),
	}
}

func (a *app) tokenList(g *gatewayFlags) *cobra.Command {
	return &cobra.Command{
		Use: "ls", Short: "List the names of tokens", Args: exactly(),
		Example: "  shallot token ls --output json",
		RunE: a.withGateway(g, func(ctx context.Context, c *gatewayclient.Client, _ []string) error {
			tokens, err := c.Tokens(ctx)
			if err != nil {
				return err
			}
			if a.json() {
				return a.out().Object(render.Object{{Name: "tokens", Value: tokens}})
			}
			rows := make([][]render.Cell, len(tokens))
			for i, t := range tokens {
				rows[i] = []render.Cell{{Text: t.Name}, {Text: t.Created.UTC().Format(time.DateOnly)}}
			}
			return a.out().Table([]string{"token", "added"}, rows)
		}),
	}
}
