package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/shallot-net/shallot/cli/internal/nodeclient"
	"github.com/shallot-net/shallot/cli/internal/render"
	brokerv1 "github.com/shallot-net/shallot/proto/shallot/broker/v1"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
)

// collectTimeout is how long a collection may take: it writes again what lives in files that are mostly dead.
const collectTimeout = time.Hour

func (a *app) contentGC() *cobra.Command {
	return &cobra.Command{
		Use: "gc", Short: "Remove from this node what nobody pins", Args: exactly(),
		Long: "Removes at once all content that nobody pins and nobody is writing, and gives its space back.\n" +
			"The node does so by itself too, once content has not been used for a while.",
		Example: "  shallot content unpin bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy\n  shallot content gc",
		RunE: a.withNode(func(cmd *cobra.Command, c *nodeclient.Client, _ []string) error {
			line := a.waiting()
			defer line.Stop()
			line.Set("removing what nobody pins")
			ctx, cancel := context.WithTimeout(cmd.Context(), collectTimeout)
			defer cancel()
			r, err := c.CollectContent(ctx, &nodev1.CollectContentRequest{})
			if err != nil {
				return err
			}
			line.Stop()
			if a.json() {
				return a.out().Object(render.Proto(r))
			}
			quota := "no limit"
			if r.GetQuota() > 0 {
				quota = render.Bytes(r.GetQuota())
			}
			var p pairRows
			p.add("removed", fmt.Sprintf("%s in %d blocks", render.Bytes(r.GetBytes()), r.GetBlocks()))
			p.add("on disk", render.Bytes(r.GetUsed()))
			p.add("quota", quota)
			return a.out().Pairs(p)
		}),
	}
}

func (a *app) contentVerify() *cobra.Command {
	var look bool
	cmd := &cobra.Command{
		Use: "verify", Short: "Read all content of this node, and fetch again what is damaged or missing", Args: exactly(),
		Long: "Reads every block, compares it with its hash, and looks whether everything that is pinned is there.\n" +
			"What is damaged or missing is fetched again from peers that are connected. It exits with 1 when some of it stays so.",
		Example: "  shallot content verify\n  shallot content verify --no-repair --output json",
		RunE: a.withNode(func(cmd *cobra.Command, c *nodeclient.Client, _ []string) error {
			findings, last, err := a.verify(cmd.Context(), c, look)
			if err != nil {
				return err
			}
			if err := a.printVerified(findings, last); err != nil {
				return err
			}
			if left := last.GetBad() - last.GetRepaired(); left > 0 {
				return fmt.Errorf("damaged or missing, and not fetched again: %d blocks: put their files again, or connect to a peer that has them and verify once more", left)
			}
			return nil
		}),
	}
	cmd.Flags().BoolVar(&look, "no-repair", false, "only look, and fetch nothing")
	return cmd
}

// verify follows one verification. Findings are few: the node ends it when they are too many.
func (a *app) verify(ctx context.Context, c *nodeclient.Client, look bool) (findings []*brokerv1.VerifyFinding, last *brokerv1.VerifyProgress, err error) {
	line := a.waiting()
	defer line.Stop()
	line.Set("reading what is stored")
	s, err := c.VerifyContent(ctx, &nodev1.VerifyContentRequest{NoRepair: look})
	if err != nil {
		return nil, nil, err
	}
	for {
		m, err := s.Recv()
		switch {
		case errors.Is(err, io.EOF) && last.GetDone():
			return findings, last, nil
		case errors.Is(err, io.EOF):
			return nil, nil, errors.New("the node ended the verification early: try again")
		case err != nil:
			return nil, nil, err
		}
		if f := m.GetFinding(); f != nil {
			findings = append(findings, f)
		}
		if p := m.GetProgress(); p != nil {
			last = p
			line.Bytes("reading what is stored", p.GetBytes(), max(p.GetBytes(), p.GetTotalBytes()))
		}
	}
}

func (a *app) printVerified(findings []*brokerv1.VerifyFinding, last *brokerv1.VerifyProgress) error {
	if a.json() {
		return a.out().Object(render.Object{
			{Name: "blocks", Value: last.GetBlocks()}, {Name: "bytes", Value: last.GetBytes()}, {Name: "bad", Value: last.GetBad()},
			{Name: "repaired", Value: last.GetRepaired()}, {Name: "findings", Value: render.Protos(findings)},
		})
	}
	a.say("read %s in %d blocks: %d damaged or missing, %d of those fetched again", render.Bytes(last.GetBytes()), last.GetBlocks(), last.GetBad(), last.GetRepaired())
	if len(findings) == 0 {
		return nil
	}
	rows := make([][]render.Cell, len(findings))
	for i, f := range findings {
		rows[i] = []render.Cell{{Text: f.GetCid()}, {Text: f.GetProblem()}, {Text: yes(f.GetRepaired())}}
	}
	return a.out().Table([]string{"block", "problem", "fetched again"}, rows)
}
