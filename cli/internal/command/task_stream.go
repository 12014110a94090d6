package command

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/shallot-net/shallot/cli/internal/nodeclient"
	"github.com/shallot-net/shallot/cli/internal/render"
	"github.com/shallot-net/shallot/kit/fault"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
)

func (a *app) taskWatch() *cobra.Command {
	return &cobra.Command{
		Use: "watch ID", Short: "Print a task's changes until it ends", Args: exactly("ID"), ValidArgsFunction: a.completeTasks,
		Long: `Watch prints one line for each change of a task, with --output json one JSON document a line, and ends when the task
does: with 0 when it completed with exit code 0, else with 1.`,
		Example: "  shallot task watch 3f2a9c",
		RunE: a.withTask(func(cmd *cobra.Command, c *nodeclient.Client, id string) error {
			var last *taskv1.Task
			if err := c.Watch(cmd.Context(), id, func(t *taskv1.Task) error {
				last = t
				return a.printChange(t)
			}); err != nil {
				return err
			}
			if last.GetState() != "COMPLETED" || last.GetExitCode() != 0 {
				return &codeError{code: exitFailed}
			}
			return nil
		}),
	}
}

func (a *app) printChange(t *taskv1.Task) error {
	if a.json() {
		return a.out().Line(render.Proto(t))
	}
	line := a.Now().Local().Format("15:04:05") + "  " + a.out().Paint(render.StateColour(t.GetState()), t.GetState())
	if t.GetState() == "ACCEPTED" && t.GetQueuePosition() > 0 {
		line += fmt.Sprintf("  at place %d in the queue", t.GetQueuePosition())
	}
	if who := render.PeerCell(t.GetProviderAlias(), t.GetProvider()); who != "" {
		line += "  at " + render.Clean(who)
	}
	if t.GetAttempts() > 1 {
		line += "  attempt " + attempts(t)
	}
	if t.ExitCode != nil {
		line += "  exit code " + exitText(t)
	}
	if t.GetError() != nil {
		line += "  " + render.Clean(reason(t))
	}
	_, err := fmt.Fprintln(a.Stdout, line)
	return err
}

func (a *app) taskLogs() *cobra.Command {
	var follow bool
	cmd := &cobra.Command{
		Use: "logs ID", Short: "Print a task's stderr", Args: exactly("ID"), ValidArgsFunction: a.completeTasks,
		Example: "  shallot task logs -f 3f2a9c",
		RunE: a.withTask(func(cmd *cobra.Command, c *nodeclient.Client, id string) error {
			if !a.json() {
				return c.Logs(cmd.Context(), id, follow, a.Stdout)
			}
			var text capture
			if err := c.Logs(cmd.Context(), id, follow, &text); err != nil {
				return err
			}
			return a.out().Object(text.fields(render.Object{{Name: "id", Value: id}}, "stderr"))
		}),
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on until the task ends")
	return cmd
}

func (a *app) taskResult() *cobra.Command {
	var body, file, dir string
	cmd := &cobra.Command{
		Use: "result ID", Short: "Fetch a task's result", Args: exactly("ID"), ValidArgsFunction: a.completeTasks,
		Long: `Result prints what the task wrote to stdout, unchanged, or another body of its result. With --output-dir it makes a
directory of all files that the task gave, whole or not at all.`,
		Example: `  shallot task result 3f2a9c > out.bin
  shallot task result 3f2a9c --body output:report.csv --file report.csv
  shallot task result 3f2a9c --output-dir report`,
		RunE: a.withTask(func(cmd *cobra.Command, c *nodeclient.Client, id string) error {
			if dir != "" {
				return a.resultDir(cmd.Context(), c, id, dir)
			}
			get := func(w io.Writer) error { return c.Result(cmd.Context(), id, body, w, 0) }
			doc := render.Object{{Name: "id", Value: id}, {Name: "body", Value: body}}
			return a.printBody(get, file, doc, "data")
		}),
	}
	cmd.Flags().StringVar(&body, "body", "stdout", "`BODY` of the result: stdout, stderr or output:PATH")
	cmd.Flags().StringVar(&file, "file", "", "write it to this `FILE`, whole or not at all, instead of to stdout")
	cmd.Flags().StringVar(&dir, "output-dir", "", "make this `DIR` of all files that the task gave; it must not be there, or be empty")
	exclusive(cmd, "output-dir", "file")
	exclusive(cmd, "output-dir", "body")
	_ = cmd.MarkFlagDirname("output-dir")
	return cmd
}

func (a *app) resultDir(ctx context.Context, c *nodeclient.Client, id, dir string) error {
	if err := outputDir(dir); err != nil {
		return err
	}
	resp, err := c.GetTask(ctx, &nodev1.GetTaskRequest{TaskId: id})
	if err != nil {
		return err
	}
	t := resp.GetTask()
	if !nodeclient.Terminal(t.GetState()) {
		return fault.FailedPrecondition("TASK_NOT_FINISHED", "task %s is %s: its result is there when it has ended", id, t.GetState())
	}
	line := a.waiting()
	defer line.Stop()
	if err := writeFiles(ctx, c, line, t, dir); err != nil {
		return err
	}
	line.Stop()
	if a.json() {
		return a.out().Object(render.Object{{Name: "id", Value: id}, {Name: "output_dir", Value: dir}, {Name: "files", Value: render.Protos(t.GetResult().GetFiles())}})
	}
	a.say("%d files are in %s", len(t.GetResult().GetFiles()), dir)
	return nil
}

// printBody writes bytes to a file or to stdout; in JSON they are a field of the document.
func (a *app) printBody(get func(io.Writer) error, file string, doc render.Object, name string) error {
	if file != "" {
		var size counter
		if err := toFile(file, func(w io.Writer) error { return get(io.MultiWriter(w, &size)) }); err != nil {
			return err
		}
		if a.json() {
			return a.out().Object(doc.With("file", file).With("size", uint64(size)))
		}
		return nil
	}
	if !a.json() {
		return get(a.Stdout)
	}
	var text capture
	if err := get(&text); err != nil {
		return err
	}
	return a.out().Object(text.fields(doc.With("size", text.size), name))
}

type counter uint64

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}
