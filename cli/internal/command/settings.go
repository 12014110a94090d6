package command

import (
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/shallot-net/shallot/cli/internal/nodeclient"
	"github.com/shallot-net/shallot/cli/internal/render"
	"github.com/shallot-net/shallot/kit/fault"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
	telemetryv1 "github.com/shallot-net/shallot/proto/shallot/telemetry/v1"
)

func (a *app) settings() *cobra.Command {
	var show, set bool
	cmd := &cobra.Command{
		Use: "settings [PREFIX]", Short: "Show what the node's processes run with, and where each value came from", ValidArgsFunction: a.completeSettings,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usage("unexpected argument %q: %s", args[1], cmd.UseLine())
			}
			return nil
		},
		Long: `Settings shows the configuration that is in force: of each process of the node and of each replica of it, every setting, its value, and
whether that is the default or came from a file, the environment or a flag. With PREFIX only settings whose names begin so are
shown; before a dot it may be the name of a process. Secrets are not shown, only that there is one. The gateway says its own
over REST only: GET /v1/settings.`,
		Example: `  shallot settings
  shallot settings --set                  # only what is not the default
  shallot settings task.provider
  shallot settings consumer.lease --output json`,
		RunE: a.withNode(func(cmd *cobra.Command, c *nodeclient.Client, args []string) error {
			resp, err := c.GetSettings(cmd.Context(), &nodev1.GetSettingsRequest{ShowAddresses: show})
			if err != nil {
				return err
			}
			prefix := ""
			if len(args) > 0 {
				prefix = args[0]
			}
			return a.printSettings(resp, prefix, set)
		}),
	}
	cmd.Flags().BoolVar(&set, "set", false, "only what is not the default")
	showAddresses(cmd, &show)
	return cmd
}

// chosen are the settings of a process that are asked for.
func chosen(p *telemetryv1.ProcessSettings, prefix string, set bool) []*telemetryv1.Setting {
	return slices.DeleteFunc(slices.Clone(p.GetSettings()), func(s *telemetryv1.Setting) bool {
		return set && s.GetOrigin() == "default" || !strings.HasPrefix(s.GetName(), prefix) && !strings.HasPrefix(p.GetName()+"."+s.GetName(), prefix)
	})
}

func (a *app) printSettings(resp *nodev1.GetSettingsResponse, prefix string, set bool) error {
	var names []string
	found := 0
	var rows [][]render.Cell
	list := []render.Object{}
	replicas := map[string]int{}
	for _, p := range resp.GetProcesses() {
		replicas[p.GetName()]++
	}
	for _, p := range resp.GetProcesses() {
		who := p.GetName()
		if replicas[who] > 1 && p.GetReplica() != "" {
			who += " " + p.GetReplica()
		}
		if p.GetError() != "" {
			a.say("%s does not say its settings: %s", who, render.Clean(p.GetError()))
		}
		some := chosen(p, prefix, set)
		found += len(some)
		list = append(list, render.Proto(p).With("settings", render.Protos(some)))
		for _, s := range p.GetSettings() {
			names = append(names, p.GetName()+"."+s.GetName(), s.GetName())
		}
		for _, s := range some {
			value := s.GetValue()
			if s.GetSecret() {
				value = "(secret)"
			}
			origin := render.Cell{Text: s.GetOrigin()}
			if s.GetOrigin() == "default" {
				origin.Colour = render.Faint
			}
			rows = append(rows, []render.Cell{{Text: who}, {Text: s.GetName()}, {Text: value}, origin, {Text: s.GetPlace()}})
		}
	}
	if found == 0 && prefix != "" && !set {
		return fault.NotFound("SETTING_NOT_FOUND", "no setting of this node begins with %q%s: 'shallot settings' lists them", prefix, suggestion(prefix, names, "; "))
	}
	if a.json() {
		return a.out().Object(render.Object{{Name: "version", Value: resp.GetVersion()}, {Name: "processes", Value: list}})
	}
	if found == 0 {
		a.say("everything is as it is by default")
		return nil
	}
	return a.out().Table([]string{"process", "setting", "value", "from", "place"}, rows)
}

// completeSettings offers the names of settings.
func (a *app) completeSettings(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var out []cobra.Completion
	a.quickly(func(ctx context.Context, c *nodeclient.Client) {
		resp, _ := c.GetSettings(ctx, &nodev1.GetSettingsRequest{})
		for _, p := range resp.GetProcesses() {
			for _, s := range p.GetSettings() {
				out = append(out, cobra.CompletionWithDesc(p.GetName()+"."+s.GetName(), s.GetHelp()))
			}
		}
	})
	return out, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
}
