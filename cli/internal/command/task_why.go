package command

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/shallot-net/shallot/cli/internal/nodeclient"
	"github.com/shallot-net/shallot/cli/internal/render"
	"github.com/shallot-net/shallot/kit/reasons"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
)

func (a *app) taskWhy() *cobra.Command {
	var show bool
	cmd := &cobra.Command{
		Use: "why ID", Short: "Say why a task is where it is, or why it failed", Args: exactly("ID"), ValidArgsFunction: a.completeTasks,
		Long: `Why says of each attempt of a task why it went to its provider, why not to the others, and how it ended; of a task that has
failed it says what that means and what to do. A consumer knows it, of the tasks that it submitted.`,
		Example: `  shallot task why 3f2a9c
  shallot task why 3f2a9c --output json`,
		RunE: a.withTask(func(cmd *cobra.Command, c *nodeclient.Client, id string) error {
			task, err := c.GetTask(cmd.Context(), &nodev1.GetTaskRequest{TaskId: id, ShowAddresses: show})
			if err != nil {
				return err
			}
			placement, err := c.GetPlacement(cmd.Context(), &nodev1.GetPlacementRequest{TaskId: id, ShowAddresses: show})
			if err != nil {
				return err
			}
			return a.printWhy(task.GetTask(), placement.GetAttempts())
		}),
	}
	showAddresses(cmd, &show)
	return cmd
}

// ownReason is said of a reason that Shallot itself does not give.
var ownReason = reasons.Entry{Means: "a reason of the executor's own", Mends: "the message says more; else ask whoever wrote the executor"}

// ending is what the end of a task means; nothing where it went well or goes on.
func ending(t *taskv1.Task) (reasons.Entry, bool) {
	switch reason := t.GetError().GetReason(); {
	case reason != "":
		e, known := reasons.End(reason)
		if !known {
			e = ownReason
		}
		return e, true
	case t.GetExitCode() != 0:
		return reasons.End("EXIT_CODE")
	}
	return reasons.Entry{}, false
}

// endOf says in words how an attempt ended: what the provider said of it is in the history.
func endOf(t *taskv1.Task, p *taskv1.PlacementAttempt) string {
	for _, h := range t.GetHistory() {
		if h.GetAttempt() == p.GetAttempt() && h.GetWhat() == p.GetEnded() {
			return h.GetDetail()
		}
	}
	return ""
}

func (a *app) printWhy(t *taskv1.Task, attempts []*taskv1.PlacementAttempt) error {
	if a.json() {
		return a.out().Object(whyJSON(t, attempts))
	}
	var p pairRows
	p.add("id", t.GetId())
	p.add("type", t.GetType())
	p.add("state", t.GetState(), render.StateColour(t.GetState()))
	p.add("exit code", exitText(t))
	if t.GetError() != nil {
		p.add("error", reason(t), render.Bad)
	}
	if e, ended := ending(t); ended {
		p.add("it means", e.Means)
		p.add("what to do", strings.ReplaceAll(e.Mends, "task logs ID", "task logs "+render.ShortID(t.GetId())), render.Busy)
	}
	if err := a.out().Pairs(p); err != nil {
		return err
	}
	if len(attempts) == 0 {
		a.say("no provider was looked for yet, or an older release placed the task: 'shallot task show %s' has its history", render.ShortID(t.GetId()))
	}
	for _, at := range attempts {
		if err := a.printAttempt(t, at); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) printAttempt(t *taskv1.Task, p *taskv1.PlacementAttempt) error {
	if _, err := fmt.Fprintln(a.Stdout); err != nil {
		return err
	}
	var rows pairRows
	rows.add("attempt", strconv.FormatUint(uint64(p.GetAttempt()), 10))
	rows.add("when", a.moment(at(p.GetAt())))
	chosen := render.Peer(p.GetAlias(), p.GetPeerId())
	if chosen == "" {
		chosen = "nobody yet"
	}
	rows.add("went to", chosen)
	rows.add("because", because(p))
	rows.add("handed on to", render.Peer(p.GetProviderAlias(), p.GetProvider()))
	rows.add("ended", ended(t, p))
	if err := a.out().Pairs(rows); err != nil || len(p.GetConsidered()) == 0 {
		return err
	}
	var cells [][]render.Cell
	for _, c := range p.GetConsidered() {
		colour := render.Plain
		if c.GetVerdict() == "CHOSEN" {
			colour = render.Good
		}
		why := reasons.Considered(c.GetVerdict())
		if c.GetReason() != "" && why != "" {
			why += ": "
		}
		cells = append(cells, []render.Cell{{Text: render.PeerCell(c.GetAlias(), c.GetPeerId())}, {Text: c.GetVerdict(), Colour: colour},
			{Text: strconv.FormatFloat(c.GetScore(), 'g', 3, 64)}, {Text: why + c.GetReason()}})
	}
	return a.out().Table([]string{"considered", "verdict", "wait", "why"}, cells)
}

// because says why the provider was chosen, of how many.
func because(p *taskv1.PlacementAttempt) string {
	out := reasons.Chosen(p.GetChosenBecause())
	if out == "" {
		out = p.GetChosenBecause()
	}
	if p.GetKnown() > 0 {
		out += fmt.Sprintf(" (%d known, %d qualify)", p.GetKnown(), p.GetQualified())
	}
	return out
}

func ended(t *taskv1.Task, p *taskv1.PlacementAttempt) string {
	what := p.GetEnded()
	said := endOf(t, p)
	if e, known := reasons.End(what); known && what != t.GetError().GetReason() {
		what += ", " + e.Means
	}
	if said != "" {
		what += ": " + said
	}
	return what
}

// whyJSON is what node says, with the words beside the codes.
func whyJSON(t *taskv1.Task, attempts []*taskv1.PlacementAttempt) render.Object {
	out := render.Object{{Name: "task_id", Value: t.GetId()}, {Name: "type", Value: t.GetType()}, {Name: "state", Value: t.GetState()}}
	if t.ExitCode != nil {
		out = out.With("exit_code", t.GetExitCode())
	}
	if t.GetError() != nil {
		out = out.With("error", render.Proto(t.GetError()))
	}
	if e, ended := ending(t); ended {
		out = out.With("means", e.Means).With("mends", e.Mends)
	}
	list := make([]render.Object, len(attempts))
	for i, p := range attempts {
		list[i] = render.Proto(p).With("because", because(p)).With("ended_detail", endOf(t, p))
	}
	return out.With("attempts", list)
}
