package command

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/shallot-net/shallot/cli/internal/nodeclient"
	"github.com/shallot-net/shallot/cli/internal/render"
	brokerv1 "github.com/shallot-net/shallot/proto/shallot/broker/v1"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
)

// pinTimeout is how long pinning may take: all that is missing is fetched first.
const pinTimeout = time.Hour

func (a *app) content() *cobra.Command {
	c := group(&cobra.Command{
		Use: "content", Short: "Store and fetch files by what is in them",
		Long:    "Content stores files as IPFS content. They are public to everybody who knows their CID.",
		Example: "  shallot content put report.pdf\n  shallot content get bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy > report.pdf",
	})
	c.AddCommand(a.contentPut(), a.contentGet(), a.contentStat(), a.contentPin(), a.contentUnpin(), a.contentLs(), a.contentGC(), a.contentVerify())
	return c
}

func (a *app) contentPut() *cobra.Command {
	return &cobra.Command{
		Use: "put FILE", Short: "Store a file, pinned, and print its CID", Args: exactly("FILE"),
		Example: "  shallot content put report.pdf\n  tar c src | shallot content put -",
		RunE: a.withNode(func(cmd *cobra.Command, c *nodeclient.Client, args []string) error {
			resp, err := a.put(cmd.Context(), c, args[0])
			if err != nil {
				return err
			}
			if a.json() {
				return a.out().Object(render.Proto(resp))
			}
			_, err = fmt.Fprintln(a.Stdout, resp.GetCid())
			return err
		}),
	}
}

func (a *app) put(ctx context.Context, c *nodeclient.Client, path string) (*nodev1.PutContentResponse, error) {
	line := a.waiting()
	defer line.Stop()
	r, total := a.Stdin, uint64(0)
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			return nil, err
		}
		if info.IsDir() {
			return nil, usage("%s is a directory: it must be a file", path)
		}
		r, total = f, uint64(max(info.Size(), 0))
	}
	line.Set("storing " + filepath.Base(path))
	return c.Put(ctx, r, func(sent uint64) { line.Bytes("storing "+filepath.Base(path), sent, total) })
}

func (a *app) contentGet() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use: "get CID", Short: "Fetch a file, from this node or from peers", Args: exactly("CID"),
		Example: "  shallot content get bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy > report.pdf",
		RunE: a.withNode(func(cmd *cobra.Command, c *nodeclient.Client, args []string) error {
			line := a.waiting()
			defer line.Stop()
			line.Set("looking for " + args[0])
			get := func(w io.Writer) error {
				progress := func(done, total uint64) { line.Bytes("fetching", done, total) }
				if file == "" && isTerminal(a.Stdout) { // the bytes themselves are to be seen there
					w, progress = quiet{line, w}, func(uint64, uint64) {}
				}
				return c.Content(cmd.Context(), args[0], w, progress)
			}
			return a.printBody(get, file, render.Object{{Name: "cid", Value: args[0]}}, "data")
		}),
	}
	cmd.Flags().StringVar(&file, "file", "", "write it to this `FILE`, whole or not at all, instead of to stdout")
	return cmd
}

func (a *app) contentStat() *cobra.Command {
	return &cobra.Command{
		Use: "stat CID", Short: "Show what is known of a CID", Args: exactly("CID"),
		Example: "  shallot content stat bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy",
		RunE: a.withNode(func(cmd *cobra.Command, c *nodeclient.Client, args []string) error {
			resp, err := c.StatContent(cmd.Context(), &nodev1.StatContentRequest{Cid: args[0]})
			if err != nil {
				return err
			}
			s := resp.GetContent()
			if a.json() {
				return a.out().Object(render.Proto(s))
			}
			var p pairRows
			p.add("cid", s.GetCid())
			p.add("kind", s.GetKind())
			p.add("size", render.Bytes(s.GetSize()))
			p.add("blocks", fmt.Sprint(s.GetBlocks()))
			p.add("on this node", yes(s.GetLocal()))
			for _, pin := range s.GetPins() {
				p.add("pinned for", pin.GetOwner()+a.untilWhen(pin))
			}
			return a.out().Pairs(p)
		}),
	}
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

func (a *app) contentLs() *cobra.Command {
	return &cobra.Command{
		Use: "ls", Short: "List what is pinned", Args: exactly(),
		Example: "  shallot content ls",
		RunE: a.withNode(func(cmd *cobra.Command, c *nodeclient.Client, _ []string) error {
			var pins []*brokerv1.Pin
			req := &nodev1.ListPinsRequest{PageSize: pageSize}
			for len(pins) < maxListed {
				resp, err := c.ListPins(cmd.Context(), req)
				if err != nil {
					return err
				}
				pins = append(pins, resp.GetPins()...)
				if req.PageToken = resp.GetNextPageToken(); req.PageToken == "" || len(resp.GetPins()) == 0 {
					break
				}
			}
			if a.json() {
				return a.out().Object(render.Object{{Name: "pins", Value: render.Protos(pins)}})
			}
			if len(pins) == 0 {
				a.say("nothing is pinned")
				return nil
			}
			rows := make([][]render.Cell, len(pins))
			for i, p := range pins {
				rows[i] = []render.Cell{{Text: p.GetCid()}, {Text: p.GetOwner()}, {Text: a.expiry(p)}}
			}
			return a.out().Table([]string{"cid", "owner", "expires"}, rows)
		}),
	}
}

func (a *app) expiry(p *brokerv1.Pin) string {
	if p.GetExpiresAt() == nil {
		return "never"
	}
	return "in " + render.Duration(at(p.GetExpiresAt()).Sub(a.Now()))
}
