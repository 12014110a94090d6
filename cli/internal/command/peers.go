package command

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/shallot-net/shallot/cli/internal/nodeclient"
	"github.com/shallot-net/shallot/cli/internal/render"
	discoveryv1 "github.com/shallot-net/shallot/proto/shallot/discovery/v1"
	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
)

// maxListed bounds lists whose page tokens never end.
const maxListed = 100_000

func (a *app) peers() *cobra.Command {
	var capability, state string
	var show bool
	cmd := &cobra.Command{
		Use: "peers", Short: "List the providers that the node knows", Args: exactly(),
		Example: `  shallot peers
  shallot peers --capability wasm --output json
  shallot peers --show-addresses`,
		RunE: a.withNode(func(cmd *cobra.Command, c *nodeclient.Client, _ []string) error {
			peers, err := listPeers(cmd.Context(), c, &nodev1.ListPeersRequest{Capability: capability, State: state, PageSize: pageSize, ShowAddresses: show})
			if err != nil {
				return err
			}
			return a.printPeers(peers, show)
		}),
	}
	cmd.Flags().StringVar(&capability, "capability", "", "only those that execute this task `TYPE`")
	showAddresses(cmd, &show)
	cmd.Flags().StringVar(&state, "state", "", "only those in this `STATE`: available, unavailable or leaving")
	_ = cmd.RegisterFlagCompletionFunc("state", cobra.FixedCompletions([]cobra.Completion{"available", "unavailable", "leaving"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// showAddresses is a flag of commands that show peers.
func showAddresses(cmd *cobra.Command, show *bool) {
	cmd.Flags().BoolVar(show, "show-addresses", false, "show peer ids and addresses, which an anonymous node keeps to itself otherwise")
}

func listPeers(ctx context.Context, c *nodeclient.Client, req *nodev1.ListPeersRequest) ([]*discoveryv1.Peer, error) {
	var peers []*discoveryv1.Peer
	for len(peers) < maxListed {
		resp, err := c.ListPeers(ctx, req)
		if err != nil {
			return nil, err
		}
		peers = append(peers, resp.GetPeers()...)
		if req.PageToken = resp.GetNextPageToken(); req.PageToken == "" || len(resp.GetPeers()) == 0 {
			break
		}
	}
	return peers, nil
}

func (a *app) printPeers(peers []*discoveryv1.Peer, show bool) error {
	if a.json() {
		list := make([]render.Object, len(peers))
		for i, p := range peers {
			list[i] = render.Proto(p).Without("announcement") // the signed bytes of all this
		}
		return a.out().Object(render.Object{{Name: "peers", Value: list}})
	}
	if len(peers) == 0 {
		a.say("no providers are known: 'shallot doctor' says why that may be")
		return nil
	}
	rows := make([][]render.Cell, len(peers))
	for i, p := range peers {
		rtt := ""
		if p.GetRtt() != nil {
			rtt = render.Duration(p.GetRtt().AsDuration())
		}
		connected := ""
		if p.GetConnected() {
			connected = "yes"
		}
		rows[i] = []render.Cell{
			{Text: render.Peer(p.GetAlias(), p.GetPeerId())}, {Text: p.GetRole()}, {Text: p.GetState(), Colour: peerColour(p.GetState())},
			{Text: capabilities(p.GetCapabilities())}, {Text: connected}, {Text: rtt}, {Text: render.Age(a.Now(), at(p.GetLastSeen()))},
		}
	}
	head := []string{"peer", "role", "state", "capabilities", "connected", "rtt", "last seen"}
	if show {
		head = append(head, "addresses")
		for i, p := range peers {
			rows[i] = append(rows[i], render.Cell{Text: strings.Join(p.GetAddresses(), ", ")})
		}
	}
	return a.out().Table(head, rows)
}

func peerColour(state string) render.Colour {
	switch state {
	case "available", "serving":
		return render.Good
	case "leaving":
		return render.Busy
	}
	return render.Bad
}

func capabilities(list []*eventv1.Capability) string {
	var out []string
	for _, c := range list {
		out = append(out, c.GetType())
	}
	return strings.Join(out, ", ")
}
