package command

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/shallot-net/shallot/cli/internal/nodeclient"
	"github.com/shallot-net/shallot/cli/internal/render"
	"github.com/shallot-net/shallot/kit/fault"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
)

func (a *app) job() *cobra.Command {
	c := group(&cobra.Command{
		Use: "job", Short: "Look at jobs, pause, resume and cancel them",
		Long: `Job looks at the jobs of a node, which 'shallot map' makes. An ID may be shortened to any beginning that only one job
has. The same 'map' command writes a job's results.`,
		Example: `  shallot job ls
  shallot job show 3f2a`,
	})
	c.AddCommand(a.jobLs(), a.jobShow(), a.jobWatch(),
		a.jobMove("pause", "Start no more of a job's inputs", "Pause lets what is at providers run to its end, and starts nothing more.", (*nodeclient.Client).Pause),
		a.jobMove("resume", "Go on with a paused job", "Resume goes on with a job; 'shallot map' does so too, and writes its results.", (*nodeclient.Client).Resume),
		a.jobMove("cancel", "End a job and its tasks", "Cancel ends a job for good. What it has done stays; one that has ended stays as it is.", (*nodeclient.Client).EndJob))
	return c
}

var jobStates = []string{"OPEN", "RUNNING", "PAUSED", "COMPLETED", "FAILED", "CANCELLED"}

func (a *app) jobLs() *cobra.Command {
	var states []string
	var limit int
	cmd := &cobra.Command{
		Use: "ls", Short: "List jobs, newest first", Args: exactly(),
		Example: `  shallot job ls
  shallot job ls --state RUNNING --state PAUSED --output json`,
		RunE: a.withNode(func(cmd *cobra.Command, c *nodeclient.Client, _ []string) error {
			for i, s := range states {
				if states[i] = strings.ToUpper(s); !contains(jobStates, states[i]) {
					return usage("--state %q is none of %s%s", s, strings.Join(jobStates, ", "), suggestion(states[i], jobStates, "; "))
				}
			}
			if limit < 1 {
				return usage("--limit is %d: it must be at least 1", limit)
			}
			jobs, more, err := listJobs(cmd.Context(), c, states, limit)
			if err != nil {
				return err
			}
			if more && !cmd.Flags().Changed("limit") {
				a.say("there are more than %d jobs: --limit shows more of them", limit)
			}
			return a.printJobs(jobs)
		}),
	}
	cmd.Flags().StringArrayVar(&states, "state", nil, "only jobs in this `STATE`, repeatable")
	cmd.Flags().IntVar(&limit, "limit", 50, "how many jobs at most")
	_ = cmd.RegisterFlagCompletionFunc("state", cobra.FixedCompletions(jobStates, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func contains(list []string, s string) bool {
	for _, l := range list {
		if l == s {
			return true
		}
	}
	return false
}

// listJobs reads pages until it has limit jobs; more tells that there are others.
func listJobs(ctx context.Context, c *nodeclient.Client, states []string, limit int) (jobs []*taskv1.Job, more bool, err error) {
	req := &nodev1.ListJobsRequest{States: states}
	for {
		req.PageSize = uint32(min(limit-len(jobs)+1, pageSize)) //nolint:gosec // bounded by pageSize
		resp, err := c.ListJobs(ctx, req)
		if err != nil {
			return nil, false, err
		}
		jobs = append(jobs, resp.GetJobs()...)
		if len(jobs) > limit {
			return jobs[:limit], true, nil
		}
		if req.PageToken = resp.GetNextPageToken(); req.PageToken == "" || len(resp.GetJobs()) == 0 {
			return jobs, false, nil
		}
	}
}

func (a *app) printJobs(jobs []*taskv1.Job) error {
	if a.json() {
		return a.out().Object(render.Object{{Name: "jobs", Value: render.Protos(jobs)}})
	}
	if len(jobs) == 0 {
		a.say("there are no jobs")
		return nil
	}
	rows := make([][]render.Cell, len(jobs))
	for i, j := range jobs {
		k := j.GetCounts()
		rows[i] = []render.Cell{{Text: render.ShortID(j.GetId())}, {Text: j.GetState(), Colour: render.StateColour(j.GetState())},
			{Text: fmt.Sprintf("%d/%d", done(j), j.GetTotal())}, {Text: fmt.Sprint(k.GetRunning())}, {Text: fmt.Sprint(k.GetFailed())}, {Text: fmt.Sprint(k.GetExtra())},
			{Text: render.Age(a.Now(), at(j.GetCreatedAt()))}, {Text: j.GetName()}}
	}
	return a.out().Table([]string{"id", "state", "done", "running", "failed", "extra", "created", "name"}, rows)
}

// shownFailures is how many of a job's failures 'job show' lists.
const shownFailures = 1000

func (a *app) jobShow() *cobra.Command {
	return &cobra.Command{
		Use: "show ID", Short: "Show one job and its failures", Args: exactly("ID"), ValidArgsFunction: a.completeJobs,
		Example: "  shallot job show 3f2a9c",
		RunE: a.withJob(func(cmd *cobra.Command, c *nodeclient.Client, id string) error {
			resp, err := c.GetJob(cmd.Context(), &nodev1.GetJobRequest{JobId: id})
			if err != nil {
				return err
			}
			failed, err := c.ListShards(cmd.Context(), &nodev1.ListShardsRequest{JobId: id, States: []string{"FAILED"}, PageSize: shownFailures})
			if err != nil {
				return err
			}
			return a.printJob(resp.GetJob(), failed.GetShards())
		}),
	}
}

func (a *app) printJob(j *taskv1.Job, failed []*taskv1.Shard) error {
	if a.json() {
		return a.out().Object(render.Proto(j).With("failures", render.Protos(failed)))
	}
	k := j.GetCounts()
	var p pairRows
	p.add("id", j.GetId())
	p.add("name", j.GetName())
	p.add("state", j.GetState(), render.StateColour(j.GetState()))
	p.add("detail", j.GetDetail())
	p.add("inputs", fmt.Sprintf("%d: %d waiting, %d running, %d completed, %d failed, %d cancelled", j.GetTotal(), k.GetWaiting(), k.GetRunning(), k.GetCompleted(), k.GetFailed(), k.GetCancelled()))
	p.add("extra runs", fmt.Sprint(k.GetExtra()))
	p.add("in parallel", fmt.Sprint(j.GetParallel()))
	if j.GetInputPath() != "" {
		p.add("input file", "/in/"+j.GetInputPath())
	}
	p.add("created", a.moment(at(j.GetCreatedAt())))
	p.add("started", a.moment(at(j.GetStartedAt())))
	p.add("finished", a.moment(at(j.GetFinishedAt())))
	if err := a.out().Pairs(p); err != nil || len(failed) == 0 {
		return err
	}
	fmt.Fprintln(a.Stdout)
	rows := make([][]render.Cell, len(failed))
	for i, sh := range failed {
		rows[i] = []render.Cell{{Text: sh.GetName()}, {Text: render.ShortID(sh.GetTaskId())}, {Text: sh.GetError().GetReason(), Colour: render.Bad}, {Text: sh.GetError().GetMessage()}}
	}
	return a.out().Table([]string{"failed", "task", "reason", "message"}, rows)
}

func (a *app) jobWatch() *cobra.Command {
	return &cobra.Command{
		Use: "watch ID", Short: "Print a job's progress until it ends", Args: exactly("ID"), ValidArgsFunction: a.completeJobs,
		Long: `Watch prints one line for each input that has ended and for each change of the job, with --output json one JSON document
a line, and ends when the job does: with 0 when every input completed, else with 1.`,
		Example: "  shallot job watch 3f2a9c",
		RunE: a.withJob(func(cmd *cobra.Command, c *nodeclient.Client, id string) error {
			state := ""
			if err := c.FollowJob(cmd.Context(), id, false, func(n nodeclient.JobNews) error {
				if n.Job != nil {
					state = n.Job.GetState()
				}
				return a.printJobNews(n)
			}); err != nil {
				return err
			}
			if state != "COMPLETED" {
				return &codeError{code: exitFailed}
			}
			return nil
		}),
	}
}

func (a *app) printJobNews(n nodeclient.JobNews) error {
	var line string
	switch {
	case a.json() && n.Job != nil:
		return a.out().Line(render.Object{{Name: "event", Value: "job"}, {Name: "job", Value: render.Proto(n.Job)}})
	case a.json():
		return a.out().Line(render.Object{{Name: "event", Value: "input"}, {Name: "shard", Value: render.Proto(n.Shard.GetShard())}})
	case n.Job != nil:
		k := n.Job.GetCounts()
		line = fmt.Sprintf("%s  %d of %d done, %d running, %d failed", a.out().Paint(render.StateColour(n.Job.GetState()), n.Job.GetState()), done(n.Job), n.Job.GetTotal(), k.GetRunning(), k.GetFailed())
	default:
		sh := n.Shard.GetShard()
		line = fmt.Sprintf("%s  %s", a.out().Paint(render.StateColour(sh.GetState()), sh.GetState()), render.Clean(sh.GetName()))
		if sh.GetError() != nil {
			line += "  " + shardReason(sh)
		}
	}
	_, err := fmt.Fprintln(a.Stdout, a.Now().Local().Format("15:04:05")+"  "+line)
	return err
}

func (a *app) jobMove(name, short, long string, move func(*nodeclient.Client, context.Context, string) (*taskv1.Job, error)) *cobra.Command {
	return &cobra.Command{
		Use: name + " ID", Short: short, Long: long, Args: exactly("ID"), ValidArgsFunction: a.completeJobs,
		Example: "  shallot job " + name + " 3f2a9c",
		RunE: a.withJob(func(cmd *cobra.Command, c *nodeclient.Client, id string) error {
			j, err := move(c, cmd.Context(), id)
			if err != nil {
				return err
			}
			if a.json() {
				return a.out().Object(render.Proto(j))
			}
			a.say("job %s is %s: %d of %d inputs are done, %d are at providers", id, j.GetState(), done(j), j.GetTotal(), j.GetCounts().GetRunning())
			return nil
		}),
	}
}

// withJob is withNode for commands about one job.
func (a *app) withJob(fn func(cmd *cobra.Command, c *nodeclient.Client, id string) error) func(*cobra.Command, []string) error {
	return a.withNode(func(cmd *cobra.Command, c *nodeclient.Client, args []string) error {
		id, err := jobID(cmd.Context(), c, args[0])
		if err != nil {
			return err
		}
		return fn(cmd, c, id)
	})
}

// jobID completes a shortened id, as taskID does.
func jobID(ctx context.Context, c *nodeclient.Client, given string) (string, error) {
	id := strings.ToLower(given)
	if fullID.MatchString(id) {
		return id, nil
	}
	if !shortID.MatchString(id) {
		return "", usage("%q is no job id: it has 32 hex digits, of which the first 4 can be enough; 'shallot job ls' lists them", given)
	}
	jobs, _, err := listJobs(ctx, c, nil, maxSearched)
	if err != nil {
		return "", err
	}
	var found []string
	for _, j := range jobs {
		if strings.HasPrefix(j.GetId(), id) {
			found = append(found, j.GetId())
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return "", fault.NotFound("JOB_NOT_FOUND", "there is no job whose id begins with %q: 'shallot job ls' lists them", given)
	}
	return "", usage("%d jobs have ids that begin with %q: give more of it, for example %s", len(found), given, found[0])
}

// completeJobs offers the ids of the newest jobs.
func (a *app) completeJobs(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var out []cobra.Completion
	a.quickly(func(ctx context.Context, c *nodeclient.Client) {
		jobs, _, _ := listJobs(ctx, c, nil, 30)
		for _, j := range jobs {
			out = append(out, cobra.CompletionWithDesc(j.GetId(), j.GetState()+" "+j.GetName()))
		}
	})
	return out, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
}
