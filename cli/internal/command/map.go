package command

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/shallot-net/shallot/cli/internal/render"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
)

// mapFlags are those of a job.
type mapFlags struct {
	runFlags
	inputs      []string
	output      string
	asFile      string
	env         []string
	parallel    uint32
	personas    uint32
	hedge, json bool
	again       bool
}

// mapping is "map", which is a word of Go.
func (a *app) mapping() *cobra.Command {
	c := group(&cobra.Command{
		Use: "map", Short: "Run a program over many inputs",
		Long:    "Map runs one program over many inputs, on as many providers as there are, and writes what it prints for each into a file.",
		Example: `  shallot map wasm app.wasm --inputs 'pages/*.html' --output words`,
	})
	c.AddCommand(a.mapWasm())
	return c
}

func (a *app) mapWasm() *cobra.Command {
	var flags mapFlags
	cmd := &cobra.Command{
		Use: "wasm FILE --inputs GLOB --output DIR [flags] [-- ARG...]", Short: "Run a WASI program over many inputs",
		Long: `Wasm runs a WASI preview 1 program once for each input, which it reads as its stdin, and writes what it prints into the
output folder, into a file that has the input's name. A file is written whole or not at all. What the program writes to
stderr is kept with its task: 'shallot task logs'.

What a provider fails is done by another one. A program's own failure, such as an exit code other than 0, is final. All
failures are listed at the end, and the exit code is 1 then.

Ctrl-C pauses the job: inputs that are at a provider are finished there, no others are begun. The same command goes on
with it, and does nothing twice; so it does after a crash of anything. --detach leaves the job running, and the same
command collects its results later. A job is its output folder, program, arguments, environment, limits and inputs: with
other ones it is another job. 'shallot job' looks at jobs and ends them.`,
		Example: `  shallot map wasm app.wasm --inputs 'pages/*.html' --output words -- --count
  shallot map wasm app.wasm --inputs 'a/*.csv' --inputs 'b/*.csv' --output out --as-file=data.csv -- /in/data.csv
  shallot map wasm app.wasm --inputs '*.txt' --output out --detach --replicas 2`,
		Args: mapArgs,
		RunE: func(cmd *cobra.Command, args []string) error { return a.runMap(cmd, args, &flags) },
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
			if len(args) == 0 {
				return []string{"wasm"}, cobra.ShellCompDirectiveFilterFileExt
			}
			return nil, cobra.ShellCompDirectiveNoFileComp
		},
	}
	flags.addSpec(cmd)
	f := cmd.Flags()
	f.StringArrayVar(&flags.inputs, "inputs", nil, "input files, a `GLOB` such as 'pages/*.html', repeatable; quote it")
	f.StringVar(&flags.output, "output", "", "`DIR` that the results are written to")
	f.StringVar(&flags.asFile, "as-file", "", "the program finds its input as the file /in/`NAME` instead of on stdin; without =NAME as /in/input")
	f.Lookup("as-file").NoOptDefVal = "input"
	f.StringArrayVar(&flags.env, "env", nil, "`K=V` in the program's environment, repeatable")
	f.Uint32Var(&flags.parallel, "parallel", 64, "inputs that are at providers at once, at most")
	f.Uint32Var(&flags.personas, "personas", 8, "anonymous mode: throw-away identities that the inputs leave from at one time, at most; with fewer a provider sees more of them to be of one consumer")
	f.BoolVar(&flags.hedge, "hedge", false, "try inputs that take longer than 95 of 100 others a second time elsewhere, and take the first result")
	f.BoolVar(&flags.json, "json", false, "print progress and outcome as JSON, a document a line")
	f.BoolVar(&flags.detach, "detach", false, "print the job's id and leave it running")
	f.BoolVar(&flags.again, "again", false, "do all inputs anew, also where the same job has ended before")
	_ = cmd.MarkFlagDirname("output")
	return cmd
}

// mapArgs is wasmArgs; more files are most likely a GLOB that the shell has expanded.
func mapArgs(cmd *cobra.Command, args []string) error {
	before := len(args)
	if dash := cmd.ArgsLenAtDash(); dash >= 0 {
		before = dash
	}
	if before > 1 {
		return usage("unexpected argument %q: quote the GLOB of --inputs, so that the shell leaves it alone; the program's own arguments come after --", args[1])
	}
	return wasmArgs(cmd, args)
}

func (a *app) runMap(cmd *cobra.Command, args []string, flags *mapFlags) error {
	if flags.json {
		a.output.value = "json"
	}
	switch {
	case len(flags.inputs) == 0:
		return usage("--inputs is missing: which files, such as --inputs 'pages/*.html'")
	case flags.output == "":
		return usage("--output is missing: the folder that the results are written to")
	}
	inputs, err := findInputs(flags.inputs)
	if err != nil {
		return err
	}
	c, err := a.dial()
	if err != nil {
		return err
	}
	defer c.Close()
	c.Trouble = func(err error) { a.say("the node does not answer (%v); waiting for it to come back", err) }
	m := &mapRun{app: a, client: c, flags: flags, module: args[0], inputs: inputs}
	ctx, stop := a.interruptible(cmd.Context())
	m.line = a.waiting()
	defer m.line.Stop()
	job, err := m.prepare(ctx, cmd, args)
	stopped := interrupted(ctx)
	stop()
	if stopped {
		job = m.started(cmd.Context(), job)
	}
	switch {
	case stopped && job == nil:
		return errInterrupted // the same command sends the rest
	case err != nil && !stopped:
		return err
	case flags.detach:
		m.line.Stop()
		return a.printDetached(job)
	}
	return m.follow(cmd.Context(), job, stopped)
}

// prepare makes the job with all its inputs, or finds it, and sees to it that it runs.
func (m *mapRun) prepare(ctx context.Context, cmd *cobra.Command, args []string) (*taskv1.Job, error) {
	if err := m.hash(ctx); err != nil {
		return nil, err
	}
	if err := m.makeOutput(); err != nil {
		return nil, err
	}
	spec, err := m.spec(ctx, cmd, args)
	if err != nil {
		return nil, err
	}
	job, err := m.find(ctx, spec)
	if err != nil {
		return nil, err
	}
	if job, err = m.send(ctx, job); err != nil {
		return job, err
	}
	if job.GetState() == "PAUSED" {
		resumed, err := m.client.Resume(ctx, job.GetId())
		if err != nil && codeOf(err) != exitState { // it has just ended
			return job, err
		}
		if err == nil {
			job = resumed
		}
		m.say("going on with job %s: %d of %d inputs are done", render.ShortID(job.GetId()), done(job), job.GetTotal())
	}
	return job, nil
}

// started returns the job if it runs: the call that was interrupted may have been the one that started it.
func (m *mapRun) started(ctx context.Context, job *taskv1.Job) *taskv1.Job {
	if job == nil {
		return nil
	}
	r, err := m.client.GetJob(ctx, &nodev1.GetJobRequest{JobId: job.GetId()})
	if err != nil || r.GetJob().GetState() != "RUNNING" {
		return nil
	}
	return r.GetJob()
}

func (a *app) printDetached(job *taskv1.Job) error {
	if a.json() {
		return a.out().Line(render.Object{{Name: "event", Value: "job"}, {Name: "job", Value: render.Proto(job)}})
	}
	a.say("job %s is running; the same command without --detach collects its results", render.ShortID(job.GetId()))
	_, err := fmt.Fprintln(a.Stdout, job.GetId())
	return err
}

// done is how many inputs have ended.
func done(j *taskv1.Job) uint32 {
	c := j.GetCounts()
	return c.GetCompleted() + c.GetFailed() + c.GetCancelled()
}
