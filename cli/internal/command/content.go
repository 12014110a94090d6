package command

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/shallot-net/shallot/cli/internal/nodeclient"
	"github.com/shallot-net/shallot/cli/internal/render"
	"github.com/shallot-net/shallot/cli/internal/supervisor"
	brokerv1 "github.com/shallot-net/shallot/proto/shallot/broker/v1"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
)

// pinTimeout is how long pinning may take: all that is missing is fetched first.
const pinTimeout = time.Hour

func (a *app) content() *cobra.Command {
	c := group(&cobra.Command{
		Use: "content", Short: "Store and fetch files and directories by what is in them",
		Long:    "Content stores files and directories as IPFS content. In open mode they are public to everybody who knows their CID; an\nanonymous node keeps them to itself.",
		Example: "  shallot content put report.pdf\n  shallot content get bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy > report.pdf",
	})
	c.AddCommand(a.contentPut(), a.contentGet(), a.contentStat(), a.contentPin(), a.contentUnpin(), a.contentLs(), a.contentGC(), a.contentVerify())
	return c
}

func (a *app) contentPut() *cobra.Command {
	var hidden bool
	cmd := &cobra.Command{
		Use: "put FILE|DIR", Short: "Store a file or a directory, pinned, and print its CID", Args: exactly("FILE"),
		Long: `Put stores a file, or a directory with all that is in it. What in a directory begins with a dot is left out, unless
--hidden is given. A directory with links, devices or pipes in it is refused.

In open mode whoever knows the CID can have it. An anonymous node keeps it and gives it to nobody.`,
		Example: "  shallot content put report.pdf\n  shallot content put site\n  tar c src | shallot content put -",
		RunE: a.withNode(func(cmd *cobra.Command, c *nodeclient.Client, args []string) error {
			put := a.put
			if info, err := os.Stat(args[0]); err == nil && info.IsDir() {
				put = func(ctx context.Context, c *nodeclient.Client, dir string) (*nodev1.PutContentResponse, error) {
					return a.putTree(ctx, c, dir, hidden)
				}
			}
			resp, err := put(cmd.Context(), c, args[0])
			if err != nil {
				return err
			}
			if n, err := c.GetNode(cmd.Context(), &nodev1.GetNodeRequest{}); err == nil && n.GetNode().GetMode() == supervisor.Anonymous {
				a.say("kept on this node alone: an anonymous node gives nobody what its users put")
			}
			if a.json() {
				return a.out().Object(render.Proto(resp))
			}
			_, err = fmt.Fprintln(a.Stdout, resp.GetCid())
			return err
		}),
	}
	cmd.Flags().BoolVar(&hidden, "hidden", false, "of a directory, also what begins with a dot")
	return cmd
}

func (a *app) put(ctx context.Context, c *nodeclient.Client, path string) (*nodev1.PutContentResponse, error) {
	line := a.waiting()
	defer line.Stop()
	r, total := a.Stdin, uint64(0)
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, unreadable(path, err)
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			return nil, unreadable(path, err)
		}
		if info.IsDir() {
			return nil, usage("%s is a directory: it must be a file", path)
		}
		r, total = f, uint64(max(info.Size(), 0))
	}
	line.Set("storing " + filepath.Base(path))
	return c.Put(ctx, r, func(sent uint64) { line.Bytes("storing "+filepath.Base(path), sent, total) })
}

func (a *app) untilWhen(p *brokerv1.Pin) string {
	if p.GetExpiresAt() == nil {
		return ""
	}
	return " until " + at(p.GetExpiresAt()).Local().Format("2006-01-02 15:04")
}

func (a *app) contentPin() *cobra.Command {
	var keep time.Duration
	cmd := &cobra.Command{
		Use: "pin CID", Short: "Keep a file on this node, fetching what is missing of it", Args: exactly("CID"),
		Example: "  shallot content pin bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy --keep 72h",
		RunE: a.withNode(func(cmd *cobra.Command, c *nodeclient.Client, args []string) error {
			req := &nodev1.PinContentRequest{Cid: args[0]}
			if cmd.Flags().Changed("keep") {
				if keep <= 0 {
					return usage("--keep is %s: it must be more than 0", keep)
				}
				req.Keep = durationpb.New(keep)
			}
			line := a.waiting()
			defer line.Stop()
			line.Set("fetching " + args[0])
			ctx, cancel := context.WithTimeout(cmd.Context(), pinTimeout)
			defer cancel()
			resp, err := c.PinContent(ctx, req)
			if err != nil {
				return err
			}
			line.Stop()
			if a.json() {
				return a.out().Object(render.Object{{Name: "cid", Value: args[0]}, {Name: "size", Value: resp.GetSize()}})
			}
			a.say("pinned %s (%s)", args[0], render.Bytes(resp.GetSize()))
			return nil
		}),
	}
	cmd.Flags().DurationVar(&keep, "keep", 0, "`TIME` to keep it, for example 72h; default: until it is unpinned")
	return cmd
}

func (a *app) contentUnpin() *cobra.Command {
	return &cobra.Command{
		Use: "unpin CID", Short: "Let a file go", Args: exactly("CID"),
		Example: "  shallot content unpin bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy",
		RunE: a.withNode(func(cmd *cobra.Command, c *nodeclient.Client, args []string) error {
			if _, err := c.UnpinContent(cmd.Context(), &nodev1.UnpinContentRequest{Cid: args[0]}); err != nil {
				return err
			}
			if a.json() {
				return a.out().Object(render.Object{{Name: "cid", Value: args[0]}})
			}
			a.say("unpinned %s", args[0])
			return nil
		}),
	}
}

func (a *app) expiry(p *brokerv1.Pin) string {
	if p.GetExpiresAt() == nil {
		return "never"
	}
	return "in " + render.Duration(at(p.GetExpiresAt()).Sub(a.Now()))
}
