package command

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/shallot-net/shallot/cli/internal/nodeclient"
	"github.com/shallot-net/shallot/cli/internal/render"
	"github.com/shallot-net/shallot/cli/internal/supervisor"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
)

func (a *app) node() *cobra.Command {
	var show bool
	cmd := &cobra.Command{
		Use: "node", Short: "Show the node, its processes and its addresses", Args: cobra.ArbitraryArgs,
		Long: `Node shows what the node is and how its processes are. Where its node service does not answer, what the supervisor
knows is shown, and the exit code is 4. An anonymous node shows an alias in place of its peer id and its
onion address, unless they are asked for.`,
		Example: `  shallot node
  shallot node --output json
  shallot node --show-addresses    # what others join an anonymous network through`,
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return unknownCommand(cmd, args[0])
		}
		ctx, stop := a.interruptible(cmd.Context())
		defer stop()
		return a.showNode(ctx, show)
	}
	showAddresses(cmd, &show)
	cmd.AddCommand(a.connect())
	return cmd
}

func (a *app) connect() *cobra.Command {
	return &cobra.Command{
		Use: "connect ADDRESS", Short: "Join the network through one more address", Args: exactly("ADDRESS"),
		Example: "  shallot node connect /ip4/192.0.2.7/tcp/4001/p2p/12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp",
		RunE: a.withNode(func(cmd *cobra.Command, c *nodeclient.Client, args []string) error {
			resp, err := c.ConnectPeer(cmd.Context(), &nodev1.ConnectPeerRequest{Address: args[0]})
			if err != nil {
				return err
			}
			if a.json() {
				return a.out().Object(render.Proto(resp))
			}
			_, err = fmt.Fprintln(a.Stdout, render.Clean(render.Peer(resp.GetAlias(), resp.GetPeerId())))
			return err
		}),
	}
}

// nodeView is what is known of a node: from its node service and from its supervisor, one of which may be missing.
type nodeView struct {
	node    *nodev1.Node
	state   supervisor.State
	gateway supervisor.Gateway
	home    string
	// gatewayErr is why the gateway does not answer: the node service knows nothing of it.
	gatewayErr error
}

func (a *app) showNode(ctx context.Context, show bool) error {
	t, err := a.target()
	if err != nil && t.Home == nil {
		return err
	}
	v := nodeView{node: &nodev1.Node{}}
	if t.Home != nil {
		v.home = t.Home.Dir
		v.state, _ = supervisor.ReadState(*t.Home)     // a node may run without a supervisor
		v.gateway, _ = supervisor.ReadGateway(*t.Home) // or without a gateway
	}
	if err == nil {
		err = v.ask(ctx, t, show)
	}
	if err != nil && len(v.state.Processes) == 0 {
		return err
	}
	if v.gateway.URL != "" {
		v.gatewayErr = v.gateway.Healthy(ctx)
	}
	if perr := a.printNode(v); perr != nil {
		return perr
	}
	return err
}

// askTimeout is short: there is something to show without an answer.
const askTimeout = 3 * time.Second

func (v *nodeView) ask(ctx context.Context, t nodeclient.Target, show bool) error {
	c, err := nodeclient.Dial(t)
	if err != nil {
		return err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	resp, err := c.GetNode(ctx, &nodev1.GetNodeRequest{ShowAddresses: show})
	if err != nil {
		return err
	}
	v.node = resp.GetNode()
	return nil
}

// processes joins what the node service and the supervisor say. The supervisor's pid is the newer one: the node service
// may have asked before a restart.
func (v *nodeView) processes() []*nodev1.Process {
	var out []*nodev1.Process
	byName := map[string]*nodev1.Process{}
	for _, p := range v.node.GetProcesses() {
		byName[p.GetName()] = p
	}
	for _, s := range v.state.Processes {
		p := byName[s.Name]
		delete(byName, s.Name)
		if p == nil {
			p = &nodev1.Process{Name: s.Name, State: "unknown"}
			switch {
			case s.PID == 0:
				p.State, p.Detail = "stopped", s.LastError
			case s.Name == supervisor.Tor || s.Name == supervisor.Onion: // the node service does not see them
				p.State = "running"
			case s.Name == "gateway" && v.gateway.URL != "":
				if p.State = "serving"; v.gatewayErr != nil {
					p.State, p.Detail = "unreachable", v.gatewayErr.Error()
				}
			}
		}
		if s.PID != 0 && supervisor.Alive(s.PID) {
			p.Pid = int64(s.PID)
		}
		out = append(out, p)
	}
	for _, p := range v.node.GetProcesses() {
		if byName[p.GetName()] != nil {
			out = append(out, p)
		}
	}
	return out
}

func (v *nodeView) mode() string {
	if v.node.GetMode() != "" {
		return v.node.GetMode()
	}
	return v.state.Mode
}

// fence is what the broker sees, else what the supervisor made.
func (v *nodeView) fence() string {
	if v.node.GetFence() != "" {
		return v.node.GetFence()
	}
	return v.state.Fence
}

// anonymity is what an anonymous node has to show beside the rest.
func (v *nodeView) anonymity() (p pairRows) {
	if v.mode() != supervisor.Anonymous {
		return nil
	}
	p.add("fence", v.fence(), good(v.fence() == "enclosed"))
	if t := v.node.GetTor(); t != nil {
		p.add("tor", supervisor.TorState(t), good(t.GetState() == "online"))
	}
	return p
}

func (v *nodeView) role() string {
	if v.node.GetRole() != "" {
		return v.node.GetRole()
	}
	return v.state.Role
}

func (a *app) printNode(v nodeView) error {
	if a.json() {
		return a.out().Object(render.Proto(v.node).With("role", v.role()).With("mode", v.mode()).With("fence", v.fence()).With("processes", render.Protos(v.processes())).
			With("gateway_url", v.gateway.URL).With("token_file", v.gateway.TokenFile).
			With("home", v.home).With("supervisor_pid", v.state.SupervisorPID))
	}
	n := v.node
	var p pairRows
	p.add("alias", n.GetAlias())
	p.add("peer id", n.GetPeerId())
	p.add("role", v.role())
	p.add("mode", v.mode())
	p = append(p, v.anonymity()...)
	if n.GetPeerId() != "" || n.GetAlias() != "" {
		p.add("ready", yes(n.GetReady()), good(n.GetReady()))
		p.add("online", yes(n.GetOnline()), good(n.GetOnline()))
		p.add("providers", strconv.FormatUint(uint64(n.GetProvidersKnown()), 10)+" known")
		p.add("peers", strconv.FormatUint(uint64(n.GetConnections()), 10)+" connected")
	}
	p.add("executes", capabilities(n.GetCapabilities()))
	p.add("addresses", strings.Join(n.GetAddresses(), ", "))
	p.add("gateway", v.gateway.URL)
	p.add("token file", v.gateway.TokenFile)
	p.add("home", v.home)
	p.add("version", n.GetVersion())
	p.add("started", a.moment(at(n.GetStartedAt())))
	if err := a.out().Pairs(p); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(a.Stdout); err != nil {
		return err
	}
	var rows [][]render.Cell
	for _, p := range v.processes() {
		rows = append(rows, []render.Cell{
			{Text: p.GetName()}, {Text: strconv.FormatInt(p.GetPid(), 10)},
			{Text: strings.ReplaceAll(p.GetState(), "_", " "), Colour: peerColour(p.GetState())}, {Text: p.GetDetail()},
		})
	}
	return a.out().Table([]string{"process", "pid", "state", "detail"}, rows)
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func good(b bool) render.Colour {
	if b {
		return render.Good
	}
	return render.Bad
}
