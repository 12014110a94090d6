package command

import (
	"context"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shallot-net/shallot/cli/internal/nodeclient"
	"github.com/shallot-net/shallot/cli/internal/render"
	"github.com/shallot-net/shallot/kit/fault"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
)

func (a *app) task() *cobra.Command {
	c := group(&cobra.Command{
		Use: "task", Short: "Look at tasks, cancel them, fetch their results",
		Long: `Task looks at the tasks of a node: on a consumer those that it submitted, on a provider those that it was given.
An ID may be shortened to any beginning that only one task has.`,
		Example: `  shallot task ls --state RUNNING
  shallot task show 3f2a`,
	})
	c.AddCommand(a.taskLs(), a.taskShow(), a.taskWhy(), a.taskWatch(), a.taskLogs(), a.taskCancel(), a.taskResult())
	return c
}

var taskStates = []string{"PENDING", "SUBMITTED", "ACCEPTED", "RUNNING", "COMPLETED", "FAILED", "CANCELLED", "EXPIRED"}

func (a *app) taskLs() *cobra.Command {
	var states []string
	var kind, text string
	var since time.Duration
	var limit int
	cmd := &cobra.Command{
		Use: "ls", Short: "List tasks, newest first", Args: exactly(),
		Example: `  shallot task ls
  shallot task ls --state FAILED --state EXPIRED --since 24h --output json`,
		RunE: a.withNode(func(cmd *cobra.Command, c *nodeclient.Client, _ []string) error {
			req := &nodev1.ListTasksRequest{Type: kind, Text: text}
			for _, s := range states {
				req.States = append(req.States, strings.ToUpper(s))
			}
			if err := knownStates(req.States); err != nil {
				return err
			}
			if since > 0 {
				req.CreatedAfter = timestamppb.New(a.Now().Add(-since))
			}
			if limit < 1 {
				return usage("--limit is %d: it must be at least 1", limit)
			}
			tasks, more, err := listTasks(cmd.Context(), c, req, limit)
			if err != nil {
				return err
			}
			if more && !cmd.Flags().Changed("limit") {
				a.say("there are more than %d tasks: --limit shows more of them", limit)
			}
			return a.printTasks(tasks)
		}),
	}
	f := cmd.Flags()
	f.StringArrayVar(&states, "state", nil, "only tasks in this `STATE`, repeatable")
	f.StringVar(&kind, "type", "", "only tasks of this `TYPE`")
	f.StringVar(&text, "text", "", "only tasks with this `TEXT` in their labels, errors or ids")
	f.DurationVar(&since, "since", 0, "only tasks made in this `TIME`, for example 2h")
	f.IntVar(&limit, "limit", 50, "how many tasks at most")
	_ = cmd.RegisterFlagCompletionFunc("state", cobra.FixedCompletions(taskStates, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func knownStates(states []string) error {
next:
	for _, s := range states {
		for _, k := range taskStates {
			if s == k {
				continue next
			}
		}
		return usage("--state %q is none of %s%s", s, strings.Join(taskStates, ", "), suggestion(s, taskStates, "; "))
	}
	return nil
}

const pageSize = 100

// listTasks reads pages until it has limit tasks; more tells that there are others.
func listTasks(ctx context.Context, c *nodeclient.Client, req *nodev1.ListTasksRequest, limit int) (tasks []*taskv1.Task, more bool, err error) {
	for {
		req.PageSize = uint32(min(limit-len(tasks)+1, pageSize)) //nolint:gosec // bounded by pageSize
		resp, err := c.ListTasks(ctx, req)
		if err != nil {
			return nil, false, err
		}
		tasks = append(tasks, resp.GetTasks()...)
		if len(tasks) > limit {
			return tasks[:limit], true, nil
		}
		if req.PageToken = resp.GetNextPageToken(); req.PageToken == "" || len(resp.GetTasks()) == 0 {
			return tasks, false, nil
		}
	}
}

func (a *app) printTasks(tasks []*taskv1.Task) error {
	if a.json() {
		return a.out().Object(render.Object{{Name: "tasks", Value: render.Protos(tasks)}})
	}
	if len(tasks) == 0 {
		a.say("there are no tasks")
		return nil
	}
	// A provider's tasks have been run by itself: whose they are says more.
	who, other := "provider", func(t *taskv1.Task) string { return render.PeerCell(t.GetProviderAlias(), t.GetProvider()) }
	if slices.ContainsFunc(tasks, func(t *taskv1.Task) bool { return t.GetConsumer() != "" || t.GetConsumerAlias() != "" }) {
		who, other = "consumer", func(t *taskv1.Task) string { return render.PeerCell(t.GetConsumerAlias(), t.GetConsumer()) }
	}
	rows := make([][]render.Cell, len(tasks))
	for i, t := range tasks {
		rows[i] = []render.Cell{
			{Text: render.ShortID(t.GetId())}, {Text: t.GetType()}, {Text: t.GetState(), Colour: render.StateColour(t.GetState())},
			{Text: attempts(t)}, {Text: exitText(t)}, {Text: other(t)},
			{Text: render.Age(a.Now(), at(t.GetCreatedAt()))}, {Text: took(t)}, {Text: t.GetError().GetReason()},
		}
	}
	return a.out().Table([]string{"id", "type", "state", "attempts", "exit", who, "created", "took", "error"}, rows)
}

func (a *app) taskShow() *cobra.Command {
	var show bool
	cmd := &cobra.Command{
		Use: "show ID", Short: "Show one task and its history", Args: exactly("ID"), ValidArgsFunction: a.completeTasks,
		Example: "  shallot task show 3f2a9c",
		RunE: a.withTask(func(cmd *cobra.Command, c *nodeclient.Client, id string) error {
			resp, err := c.GetTask(cmd.Context(), &nodev1.GetTaskRequest{TaskId: id, ShowAddresses: show})
			if err != nil {
				return err
			}
			return a.printTask(resp.GetTask())
		}),
	}
	showAddresses(cmd, &show)
	return cmd
}

func (a *app) taskCancel() *cobra.Command {
	return &cobra.Command{
		Use: "cancel ID", Short: "End a task", Args: exactly("ID"), ValidArgsFunction: a.completeTasks,
		Long:    "Cancel asks for the end of a task. One that has ended stays as it is.",
		Example: "  shallot task cancel 3f2a9c",
		RunE: a.withTask(func(cmd *cobra.Command, c *nodeclient.Client, id string) error {
			t, err := c.Cancel(cmd.Context(), id)
			if err != nil {
				return err
			}
			if a.json() {
				return a.out().Object(render.Proto(t))
			}
			if t.GetState() == "CANCELLED" {
				a.say("task %s is cancelled", id)
			} else if nodeclient.Terminal(t.GetState()) {
				a.say("task %s had ended: %s", id, t.GetState())
			} else {
				a.say("task %s is being cancelled", id)
			}
			return nil
		}),
	}
}

// withTask is withNode for commands about one task.
func (a *app) withTask(fn func(cmd *cobra.Command, c *nodeclient.Client, id string) error) func(*cobra.Command, []string) error {
	return a.withNode(func(cmd *cobra.Command, c *nodeclient.Client, args []string) error {
		id, err := taskID(cmd.Context(), c, args[0])
		if err != nil {
			return err
		}
		return fn(cmd, c, id)
	})
}

var (
	fullID  = regexp.MustCompile(`^[0-9a-f]{32}$`)
	shortID = regexp.MustCompile(`^[0-9a-f]{4,31}$`)
)

// maxSearched bounds how many tasks are looked through for a shortened id.
const maxSearched = 5000

// taskID completes a shortened id.
func taskID(ctx context.Context, c *nodeclient.Client, given string) (string, error) {
	id := strings.ToLower(given)
	if fullID.MatchString(id) {
		return id, nil
	}
	if !shortID.MatchString(id) {
		return "", usage("%q is no task id: it has 32 hex digits, of which the first 4 can be enough; 'shallot task ls' lists them", given)
	}
	tasks, _, err := listTasks(ctx, c, &nodev1.ListTasksRequest{}, maxSearched)
	if err != nil {
		return "", err
	}
	var found []string
	for _, t := range tasks {
		if strings.HasPrefix(t.GetId(), id) {
			found = append(found, t.GetId())
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return "", fault.NotFound("TASK_NOT_FOUND", "there is no task whose id begins with %q: 'shallot task ls' lists them", given)
	}
	return "", usage("%d tasks have ids that begin with %q: give more of it, for example %s", len(found), given, found[0])
}

// completeTasks offers the ids of the newest tasks.
func (a *app) completeTasks(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var tasks []*taskv1.Task
	a.quickly(func(ctx context.Context, c *nodeclient.Client) {
		tasks, _, _ = listTasks(ctx, c, &nodev1.ListTasksRequest{}, 30)
	})
	var out []cobra.Completion
	for _, t := range tasks {
		out = append(out, cobra.CompletionWithDesc(t.GetId(), t.GetType()+" "+t.GetState()))
	}
	return out, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
}

// quickly asks the node for what a completion offers, where it answers at once.
func (a *app) quickly(ask func(ctx context.Context, c *nodeclient.Client)) {
	t, err := nodeclient.Resolve(a.asked(), nodeclient.DefaultPlaces(a.Getenv))
	if err != nil {
		return
	}
	c, err := nodeclient.Dial(t)
	if err != nil {
		return
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	ask(ctx, c)
}
