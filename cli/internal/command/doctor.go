package command

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/shallot-net/shallot/cli/internal/doctor"
	"github.com/shallot-net/shallot/cli/internal/nodeclient"
	"github.com/shallot-net/shallot/cli/internal/render"
	"github.com/shallot-net/shallot/cli/internal/supervisor"
	"github.com/shallot-net/shallot/kit/home"
)

func (a *app) doctor() *cobra.Command {
	var leak bool
	watch := 10 * time.Second
	cmd := &cobra.Command{
		Use: "doctor", Short: "Say what is wrong and what to do", Args: exactly(),
		Long: `Doctor looks at the node on this machine, or at every node of a dev network: programs, permissions, sockets, disk, clock,
locks, processes, gateway, network. It changes nothing. The exit code is 1 if anything is wrong.

With --leak it watches an anonymous node instead: whether its processes have a network at all, what they have open, and what they send meanwhile.`,
		Example: `  shallot doctor
  shallot doctor --output json
  shallot doctor --leak --for 1m`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := a.interruptible(cmd.Context())
			defer stop()
			if a.endpoint != "" {
				return usage("doctor looks at files and processes of this machine: give --home, not --endpoint")
			}
			homes, err := a.patients()
			if err != nil {
				return err
			}
			if !leak {
				watch = 0
			} else if watch < time.Second || watch > time.Hour {
				return usage("--for %s: it must be from 1s to 1h", watch)
			}
			return a.examine(ctx, homes, watch)
		},
	}
	cmd.Flags().BoolVar(&leak, "leak", false, "watch an anonymous node for anything that would show where it is")
	cmd.Flags().DurationVar(&watch, "for", watch, "how long to watch with --leak")
	return cmd
}

// patients are the homes to look at.
func (a *app) patients() ([]home.Home, error) {
	dir := a.home
	if dir == "" {
		t, err := nodeclient.Resolve(nodeclient.Asked{}, nodeclient.DefaultPlaces(a.Getenv))
		switch {
		case t.Home != nil:
			dir = t.Home.Dir
		case err != nil:
			if dir = nodeclient.DefaultPlaces(a.Getenv).Up; !isHome(dir) {
				return nil, err
			}
		}
		if t.Note != "" {
			a.say("%s", t.Note)
		}
	}
	h, err := home.Find(dir)
	if err != nil {
		return nil, err
	}
	network, err := supervisor.ReadNetwork(h.Dir)
	if err != nil {
		return []home.Home{h}, nil //nolint:nilerr // it is a node's home, not a network's
	}
	var homes []home.Home
	for _, n := range network.Nodes {
		h, err := home.Find(n.Home)
		if err != nil {
			return nil, err
		}
		homes = append(homes, h)
	}
	return homes, nil
}

func isHome(dir string) bool {
	_, err := home.Find(dir)
	return err == nil
}

func (a *app) examine(ctx context.Context, homes []home.Home, watch time.Duration) error {
	reports := make([]doctor.Report, len(homes))
	wrong := false
	for i, h := range homes {
		d := doctor.Doctor{Home: h, Finder: a.Finder, Now: a.Now}
		reports[i] = d.Examine(ctx)
		if watch > 0 {
			a.say("watching %s for %s", h.Dir, watch)
			reports[i] = d.Leak(ctx, watch)
		}
		wrong = wrong || reports[i].Wrong()
	}
	if err := a.printReports(reports, wrong); err != nil {
		return err
	}
	if wrong {
		return &codeError{code: exitFailed}
	}
	return nil
}

func (a *app) printReports(reports []doctor.Report, wrong bool) error {
	if a.json() {
		return a.out().Object(render.Object{{Name: "healthy", Value: !wrong}, {Name: "nodes", Value: reports}})
	}
	colours := map[string]render.Colour{doctor.OK: render.Good, doctor.Warning: render.Busy, doctor.Wrong: render.Bad}
	var rows [][]render.Cell
	for _, r := range reports {
		name := r.Node
		if name == "" {
			name = r.Home
		}
		for _, f := range r.Findings {
			rows = append(rows, []render.Cell{{Text: name}, {Text: f.Check}, {Text: f.Status, Colour: colours[f.Status]}, {Text: f.Detail}})
			if f.Mend != "" {
				rows = append(rows, []render.Cell{{Text: " "}, {Text: " "}, {Text: " "}, {Text: "→ " + f.Mend, Colour: render.Busy}})
			}
		}
	}
	return a.out().Table([]string{"node", "check", "status", "what was found, → what to do"}, rows)
}
