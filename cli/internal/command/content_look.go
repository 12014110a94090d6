package command

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/shallot-net/shallot/cli/internal/nodeclient"
	"github.com/shallot-net/shallot/cli/internal/render"
	brokerv1 "github.com/shallot-net/shallot/proto/shallot/broker/v1"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
)

func (a *app) contentStat() *cobra.Command {
	return &cobra.Command{
		Use: "stat CID[/PATH]", Short: "Show what is known of a CID", Args: exactly("CID"),
		Example: "  shallot content stat bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy",
		RunE: a.withNode(func(cmd *cobra.Command, c *nodeclient.Client, args []string) error {
			cid, path := cidPath(args[0])
			resp, err := c.StatContent(cmd.Context(), &nodev1.StatContentRequest{Cid: cid, Path: path})
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

func (a *app) contentLs() *cobra.Command {
	var owner string
	var all bool
	cmd := &cobra.Command{
		Use: "ls [CID[/PATH]]", Short: "List what is pinned, or what is in a directory",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			return exactly("CID")(cmd, args)
		},
		Long: `Ls lists what you have pinned, with --all also what the node keeps for tasks: task:ID is the result of a task, until its consumer has
it; payload:ID what a task is given, until it has ended; share:HASH a program or an input that several tasks have. With --owner it
lists what one of them keeps, or all of a kind, such as task: with the colon. Sizes are as the root of each says, and content that
several have is counted for each.

With a CID it lists what is in that directory.`,
		Example: "  shallot content ls --all\n  shallot content ls --owner task: --output json\n  shallot content ls bafybeihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku/docs",
		RunE: a.withNode(func(cmd *cobra.Command, c *nodeclient.Client, args []string) error {
			if len(args) == 1 {
				if all || owner != "" {
					return usage("--all and --owner are for pins, and not for what is in %s", args[0])
				}
				return a.listDirectory(cmd, c, args[0])
			}
			return a.listPins(cmd, c, &nodev1.ListPinsRequest{PageSize: pageSize, Owner: owner, AllOwners: all})
		}),
	}
	cmd.Flags().StringVar(&owner, "owner", "", "only what this `OWNER` keeps: user, task:ID, payload:ID, share:HASH, or a kind such as task:")
	cmd.Flags().BoolVar(&all, "all", false, "what all owners keep")
	exclusive(cmd, "owner", "all")
	_ = cmd.RegisterFlagCompletionFunc("owner", cobra.FixedCompletions([]string{"user", "task:", "payload:", "share:"}, cobra.ShellCompDirectiveNoFileComp|cobra.ShellCompDirectiveNoSpace))
	return cmd
}

func (a *app) listPins(cmd *cobra.Command, c *nodeclient.Client, req *nodev1.ListPinsRequest) error {
	var pins []*brokerv1.Pin
	for range maxListed { // pages; one of a kind may be empty before the end
		resp, err := c.ListPins(cmd.Context(), req)
		if err != nil {
			return err
		}
		pins = append(pins, resp.GetPins()...)
		if req.PageToken = resp.GetNextPageToken(); req.PageToken == "" {
			break
		}
	}
	if a.json() {
		return a.out().Object(render.Object{{Name: "pins", Value: render.Protos(pins)}})
	}
	if len(pins) == 0 {
		if owner := req.GetOwner(); owner != "" {
			a.say("nothing is pinned for %q", owner)
		} else {
			a.say("nothing is pinned")
		}
		return nil
	}
	rows := make([][]render.Cell, len(pins))
	for i, p := range pins {
		rows[i] = []render.Cell{{Text: p.GetCid()}, {Text: shortOwner(p.GetOwner())}, {Text: render.Bytes(p.GetSize())}, {Text: a.expiry(p)}}
	}
	return a.out().Table([]string{"cid", "owner", "size", "expires"}, rows)
}

// shortOwner cuts what would make the line twice as long as a terminal: the hash of a shared part. JSON has all of it.
func shortOwner(owner string) string {
	const most = 40
	if len(owner) <= most {
		return owner
	}
	return owner[:most-1] + "…"
}

func (a *app) listDirectory(cmd *cobra.Command, c *nodeclient.Client, given string) error {
	cid, path := cidPath(given)
	entries, err := c.Listing(cmd.Context(), nodeclient.Wanted{CID: cid, Path: path}, false)
	if err != nil {
		return err
	}
	if a.json() {
		return a.out().Object(render.Object{{Name: "entries", Value: render.Protos(entries)}})
	}
	if len(entries) == 0 {
		a.say("the directory is empty")
		return nil
	}
	rows := make([][]render.Cell, len(entries))
	for i, e := range entries {
		size := render.Bytes(e.GetSize())
		if e.GetKind() == "directory" {
			size = "-"
		}
		rows[i] = []render.Cell{{Text: e.GetPath()}, {Text: e.GetKind()}, {Text: size}, {Text: e.GetCid()}}
	}
	return a.out().Table([]string{"name", "kind", "size", "cid"}, rows)
}

// cidPath takes CID/PATH apart, also with /ipfs/ before it, as others print it.
func cidPath(given string) (cid, path string) {
	cid, path, _ = strings.Cut(strings.TrimPrefix(given, "/ipfs/"), "/")
	return cid, strings.TrimSuffix(path, "/")
}
