package command

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/shallot-net/shallot/cli/internal/nodeclient"
	"github.com/shallot-net/shallot/cli/internal/render"
	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	metricv1 "github.com/shallot-net/shallot/proto/shallot/metric/v1"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
)

func (a *app) metrics() *cobra.Command {
	var show bool
	cmd := &cobra.Command{
		Use: "metrics [PEER]", Short: "Show the resources of nodes", Args: cobra.MaximumNArgs(1),
		Long: "Metrics lists the freshest known resources of providers; with a peer id, or an alias, those of one.",
		Example: `  shallot metrics
  shallot metrics 12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp --output json`,
		RunE: a.withNode(func(cmd *cobra.Command, c *nodeclient.Client, args []string) error {
			if len(args) == 1 {
				resp, err := c.GetPeerMetrics(cmd.Context(), &nodev1.GetPeerMetricsRequest{PeerId: args[0], ShowAddresses: show})
				if err != nil {
					return err
				}
				return a.printMetric(resp.GetMetric())
			}
			var all []*metricv1.KnownMetric
			req := &nodev1.ListMetricsRequest{PageSize: pageSize, ShowAddresses: show}
			for len(all) < maxListed {
				resp, err := c.ListMetrics(cmd.Context(), req)
				if err != nil {
					return err
				}
				all = append(all, resp.GetMetrics()...)
				if req.PageToken = resp.GetNextPageToken(); req.PageToken == "" || len(resp.GetMetrics()) == 0 {
					break
				}
			}
			return a.printMetrics(all)
		}),
	}
	showAddresses(cmd, &show)
	return cmd
}

func (a *app) printMetrics(list []*metricv1.KnownMetric) error {
	if a.json() {
		return a.out().Object(render.Object{{Name: "metrics", Value: render.Protos(list)}})
	}
	if len(list) == 0 {
		a.say("no metrics are known")
		return nil
	}
	rows := make([][]render.Cell, len(list))
	for i, k := range list {
		m := k.GetMetric()
		peer := render.PeerCell(k.GetAlias(), m.GetPeerId())
		if k.GetOwn() {
			peer += " (this)"
		}
		rows[i] = []render.Cell{
			{Text: peer}, {Text: cpu(m.GetCpu())}, {Text: percent(m.GetCpu().GetLoad())},
			{Text: render.Bytes(m.GetMemory().GetFree()) + " of " + render.Bytes(m.GetMemory().GetTotal())},
			{Text: render.Bytes(m.GetDisk().GetFree())}, {Text: gpus(m.GetGpus())}, {Text: queue(m.GetQueue())},
			{Text: render.Duration(k.GetAge().AsDuration())},
		}
	}
	return a.out().Table([]string{"peer", "cpu", "load", "memory free", "disk free", "gpu", "running", "age"}, rows)
}

func (a *app) printMetric(k *metricv1.KnownMetric) error {
	if a.json() {
		return a.out().Object(render.Proto(k))
	}
	m := k.GetMetric()
	var p pairRows
	p.add("peer", render.Peer(k.GetAlias(), m.GetPeerId()))
	p.add("cpu", m.GetCpu().GetModel())
	p.add("cores", cpu(m.GetCpu()))
	p.add("load", fmt.Sprintf("%s, %.2f over a minute", percent(m.GetCpu().GetLoad()), m.GetCpu().GetLoad1()))
	p.add("memory", share(m.GetMemory().GetFree(), m.GetMemory().GetTotal()))
	p.add("disk", share(m.GetDisk().GetFree(), m.GetDisk().GetTotal()))
	p.add("gpu", gpus(m.GetGpus()))
	p.add("tasks", queue(m.GetQueue()))
	p.add("age", render.Duration(k.GetAge().AsDuration()))
	return a.out().Pairs(p)
}

func cpu(c *eventv1.Cpu) string {
	return fmt.Sprintf("%d × %.1f GHz", max(c.GetThreads(), c.GetCores()), c.GetMhz()/1000)
}

func percent(ratio float64) string { return fmt.Sprintf("%.0f %%", ratio*100) }

func share(free, total uint64) string {
	return render.Bytes(free) + " free of " + render.Bytes(total)
}

func gpus(list []*eventv1.Gpu) string {
	var out []string
	for _, g := range list {
		out = append(out, strings.TrimSpace(g.GetModel()+" "+render.Bytes(g.GetMemory())))
	}
	return strings.Join(out, ", ")
}

func queue(q *eventv1.Queue) string {
	return fmt.Sprintf("%d of %d, %d waiting", q.GetRunning(), q.GetSlots(), q.GetPending())
}
