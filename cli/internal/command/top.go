package command

import (
	"cmp"
	"context"
	"io"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/shallot-net/shallot/cli/internal/nodeclient"
	"github.com/shallot-net/shallot/cli/internal/render"
	"github.com/shallot-net/shallot/cli/internal/top"
	discoveryv1 "github.com/shallot-net/shallot/proto/shallot/discovery/v1"
	metricv1 "github.com/shallot-net/shallot/proto/shallot/metric/v1"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
)

func (a *app) top() *cobra.Command {
	var once bool
	cmd := &cobra.Command{
		Use: "top", Short: "Watch the node live", Args: exactly(),
		Long: `Top shows the node once a second: its state, its processes with what they use, its queue, and its last tasks. While the
node is away it says so, and goes on when it is back. Keys: q quits, s sorts the tasks another way, the arrows scroll.
With --once, and where stdout is no terminal, it prints what it sees once; --output json prints that as one object.`,
		Example: `  shallot top
  shallot top --once
  shallot top --output json`,
		RunE: a.withNode(func(cmd *cobra.Command, c *nodeclient.Client, _ []string) error {
			ask := &topAsker{c}
			if a.json() || once || !isTerminal(a.Stdout) || !isTerminal(a.Stdin) || a.Getenv("TERM") == "dumb" {
				return a.topOnce(cmd.Context(), ask)
			}
			return top.Live(cmd.Context(), top.Config{Asker: ask, In: a.Stdin, Out: a.Stdout, Env: os.Environ(), Now: a.Now, Paint: a.out().Paint})
		}),
	}
	cmd.Flags().BoolVar(&once, "once", false, "print what there is and end")
	return cmd
}

func (a *app) topOnce(ctx context.Context, ask top.Asker) error {
	s, err := top.Look(ctx, ask, a.Now)
	if err != nil {
		return err
	}
	f := s.Figures()
	if a.json() {
		for _, p := range s.Peers { // kilobytes each, and for handing on
			p.Announcement, p.SealingKey = nil, ""
		}
		o := render.Object{{Name: "node", Value: render.Proto(s.Node)}, {Name: "tasks", Value: render.Protos(s.Tasks)}, {Name: "peers", Value: render.Protos(s.Peers)},
			{Name: "tasks_per_minute", Value: f.PerMinute}, {Name: "p50_seconds", Value: f.Half.Seconds()}, {Name: "p99_seconds", Value: f.Most.Seconds()},
			{Name: "running", Value: f.Running}, {Name: "waiting", Value: f.Waiting}, {Name: "slots", Value: f.Slots}}
		if s.Own != nil {
			o = append(o, render.Field{Name: "metric", Value: render.Proto(s.Own)})
		}
		return a.out().Object(o)
	}
	width := 80
	if f, ok := a.Stdout.(*os.File); ok {
		if w, _, err := term.GetSize(int(f.Fd())); err == nil && w > 0 {
			width = w
		}
	}
	for _, l := range top.Frame(s, &top.Screen{Width: width, Now: a.Now(), Paint: a.out().Paint}) {
		if _, err := io.WriteString(a.Stdout, l+"\n"); err != nil {
			return err
		}
	}
	return nil
}

// topAsker asks a node for what top shows. Names are aliases in anonymous mode: a screen is seen by others.
type topAsker struct{ c *nodeclient.Client }

// topTasks is how many tasks are looked at.
const topTasks = 200

func (t *topAsker) Node(ctx context.Context) (*nodev1.Node, error) {
	r, err := t.c.GetNode(ctx, &nodev1.GetNodeRequest{Usage: true})
	return r.GetNode(), err
}

func (t *topAsker) Tasks(ctx context.Context) ([]*taskv1.Task, error) {
	r, err := t.c.ListTasks(ctx, &nodev1.ListTasksRequest{PageSize: topTasks})
	return r.GetTasks(), err
}

func (t *topAsker) Peers(ctx context.Context) ([]*discoveryv1.Peer, error) {
	r, err := t.c.ListPeers(ctx, &nodev1.ListPeersRequest{PageSize: pageSize})
	return r.GetPeers(), err
}

func (t *topAsker) Own(ctx context.Context, n *nodev1.Node) (*metricv1.KnownMetric, error) {
	r, err := t.c.GetPeerMetrics(ctx, &nodev1.GetPeerMetricsRequest{PeerId: cmp.Or(n.GetAlias(), n.GetPeerId())})
	return r.GetMetric(), err
}
