package command

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/shallot-net/shallot/cli/internal/nodeclient"
	"github.com/shallot-net/shallot/cli/internal/progress"
	"github.com/shallot-net/shallot/kit/config"
	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
)

// cancelPatience is how long Ctrl-C waits for a task that is on its way to be known, so that it can be cancelled, and then for a node that is away.
const cancelPatience = 5 * time.Second

func (a *app) run() *cobra.Command {
	c := &cobra.Command{
		Use: "run sum|wasm|NAME", Short: "Run a task and print its result",
		Long: `Run submits a task, waits for its end, prints what the program wrote to stdout and exits with its code.
Ctrl-C cancels the task, a second Ctrl-C leaves at once; --detach prints the task's id and leaves it running.
'shallot help exit-codes' tells the program's codes from shallot's own.

Types other than sum and wasm are those of providers' own executors: 'shallot peers' shows who has which. What they take as
--option, --stdin and --input is theirs to say.`,
		Example: `  shallot run sum 1 2 3
  shallot run wasm app.wasm --stdin data.csv -- --verbose
  shallot run wasm app.wasm --detach --replicas 2    # come back tomorrow, even if its provider is gone by then
  shallot run grep --option beta --stdin words.txt`,
	}
	a.runExternal(c)
	c.AddCommand(a.runSum(), a.runWasm())
	return c
}

// runFlags are those of every task type.
type runFlags struct {
	timeout              time.Duration
	memory, outputLimit  size
	redirect, noRedirect bool
	providers, labels    []string
	replicas             replicaCount
	detach, follow       bool
	outputDir            string
}

// addOutputDir adds the flag of those types whose programs write files.
func (r *runFlags) addOutputDir(cmd *cobra.Command) {
	cmd.Flags().StringVar(&r.outputDir, "output-dir", "", "make this `DIR` of the files that the program gave; it must not be there, or be empty")
	_ = cmd.MarkFlagDirname("output-dir")
	exclusive(cmd, "detach", "output-dir")
}

func (r *runFlags) add(cmd *cobra.Command) {
	r.addSpec(cmd)
	f := cmd.Flags()
	f.BoolVar(&r.detach, "detach", false, "print the task's id and leave it running")
	f.BoolVar(&r.follow, "follow", false, "print the program's stderr while it runs instead of after its end")
	exclusive(cmd, "detach", "follow")
}

// addSpec adds those that say what a task may do, and where.
func (r *runFlags) addSpec(cmd *cobra.Command) {
	f := cmd.Flags()
	f.DurationVar(&r.timeout, "timeout", 0, "stop the program after this `TIME`, for example 2s or 5m; default: as the provider says")
	f.Var(&r.memory, "memory", "memory that the program may have, a `SIZE` such as 64MiB; default: as the provider says")
	f.Var(&r.outputLimit, "output-limit", "bytes that the program may write, a `SIZE` such as 1MiB; default: as the provider says")
	f.BoolVar(&r.redirect, "redirect", false, "let the first provider hand the task to a better one (the default in open mode; in anonymous mode only small tasks can be)")
	f.BoolVar(&r.noRedirect, "no-redirect", false, "the first provider must run the task or refuse it; no other can read the input")
	f.StringArrayVar(&r.providers, "provider", nil, "peer `ID` or alias of a provider that may run it, repeatable; default: any")
	r.replicas = 1
	f.Var(&r.replicas, "replicas", "`N` providers keep the result until it is collected, 8 at most: it outlives the one that ran the task; the others see it encrypted")
	f.StringArrayVar(&r.labels, "label", nil, "`K=V` for your own use, kept at this node, repeatable")
	exclusive(cmd, "redirect", "no-redirect")
}

// spec fills in what the flags say.
func (r *runFlags) spec(cmd *cobra.Command, spec *taskv1.TaskSpec) error {
	labels, err := pairs("--label", r.labels)
	if err != nil {
		return err
	}
	spec.Labels = labels
	spec.Limits = &eventv1.Limits{Memory: uint64(r.memory), Output: uint64(r.outputLimit)}
	if cmd.Flags().Changed("timeout") {
		if r.timeout <= 0 {
			return usage("--timeout is %s: it must be more than 0", r.timeout)
		}
		spec.Limits.Time = durationpb.New(r.timeout)
	}
	spec.Placement = &taskv1.PlacementPolicy{Providers: r.providers}
	if r.replicas > 1 {
		spec.Placement.Replicas = uint32(r.replicas)
	}
	if r.redirect || r.noRedirect {
		spec.Placement.Redirect = &r.redirect
	}
	return nil
}

// pairs takes K=V arguments apart.
func pairs(flag string, list []string) (map[string]string, error) {
	out := make(map[string]string, len(list))
	for _, kv := range list {
		k, v, ok := strings.Cut(kv, "=")
		if !ok || k == "" {
			return nil, usage("%s %q is not KEY=VALUE", flag, kv)
		}
		out[k] = v
	}
	return out, nil
}

// replicaCount is a flag for how many providers keep a result.
type replicaCount uint32

// maxReplicas is the task service's bound.
const maxReplicas = 8

// Set implements pflag.Value.
func (n *replicaCount) Set(text string) error {
	v, err := strconv.ParseUint(text, 10, 32)
	if err != nil || v < 1 || v > maxReplicas {
		return fmt.Errorf("from 1 (only the provider that runs the task) to %d providers may keep the result", maxReplicas)
	}
	*n = replicaCount(v)
	return nil
}

func (n *replicaCount) String() string { return strconv.FormatUint(uint64(*n), 10) }

// Type implements pflag.Value.
func (n *replicaCount) Type() string { return "number" }

// size is a flag for a number of bytes.
type size config.Size

// Set implements pflag.Value.
func (s *size) Set(text string) error {
	if err := (*config.Size)(s).UnmarshalText([]byte(text)); err != nil {
		return err
	}
	if *s == 0 {
		return fmt.Errorf("it must be more than 0")
	}
	return nil
}

func (s *size) String() string {
	if *s == 0 {
		return ""
	}
	return config.Size(*s).String()
}

// Type implements pflag.Value.
func (s *size) Type() string { return "size" }

// builder makes a task spec; it may read files and upload them.
type builder func(ctx context.Context, blobs *nodeclient.Blobs, line *progress.Line) (*taskv1.TaskSpec, error)

// execute runs one task from its spec to its end.
func (a *app) execute(cmd *cobra.Command, flags *runFlags, build builder) error {
	if err := outputDir(flags.outputDir); err != nil {
		return err
	}
	c, err := a.dial()
	if err != nil {
		return err
	}
	defer c.Close()
	c.Trouble = func(err error) { a.say("the node does not answer (%v); waiting for it to come back", err) }
	ctx, cancel := context.WithCancel(cmd.Context())
	defer cancel()
	line := a.waiting()
	defer line.Stop()

	spec, err := a.build(ctx, c, line, build)
	if err != nil {
		return err
	}
	if err := flags.spec(cmd, spec); err != nil {
		return err
	}
	request := rand.Text()
	if flags.detach {
		ctx, stop := a.interruptible(ctx)
		defer stop()
		line.Set("waiting for the node")
		t, err := c.Submit(ctx, request, spec)
		line.Stop()
		switch {
		case err != nil && interrupted(ctx):
			a.say(unconfirmed)
			return errInterrupted
		case err != nil:
			return err
		}
		return a.printSubmitted(t)
	}
	e := &execution{app: a, client: c, line: line, follow: flags.follow, outputDir: flags.outputDir, cancelFollow: cancel}
	return e.run(ctx, request, spec)
}

// build makes the spec, or stops on Ctrl-C, whatever it reads from.
func (a *app) build(ctx context.Context, c *nodeclient.Client, line *progress.Line, build builder) (*taskv1.TaskSpec, error) {
	type built struct {
		spec *taskv1.TaskSpec
		err  error
	}
	done := make(chan built, 1)
	go func() {
		spec, err := build(ctx, &nodeclient.Blobs{Client: c}, line)
		done <- built{spec, err}
	}()
	select {
	case b := <-done:
		return b.spec, b.err
	case <-a.Interrupts:
		return nil, errInterrupted
	}
}

// execution is one task that is waited for.
type execution struct {
	*app
	client       *nodeclient.Client
	line         *progress.Line
	follow       bool
	outputDir    string
	cancelFollow context.CancelFunc

	task     *nodeclient.Run
	captured *capture // with JSON output
	logs     sync.WaitGroup
}

type outcome struct {
	task *taskv1.Task
	err  error
}

func (e *execution) run(ctx context.Context, request string, spec *taskv1.TaskSpec) error {
	var stdout io.Writer = quiet{e.line, e.Stdout}
	if e.json() {
		e.captured = &capture{}
		stdout = e.captured
	}
	e.task = nodeclient.NewRun(e.client, request, spec, stdout, func(t *taskv1.Task) { e.line.Set(doing(t)) })
	e.line.Set("waiting for the node")
	if e.follow {
		e.logs.Go(func() { e.followLogs(ctx) })
	}
	done := make(chan outcome, 1)
	go func() {
		t, err := e.task.Follow(ctx)
		done <- outcome{t, err}
	}()
	gaveUp := make(chan struct{})
	stored := e.task.Known()
	var overdue <-chan time.Time
	for interrupts := 0; ; {
		select {
		case o := <-done:
			return e.ended(ctx, o)
		case <-stored:
			stored, overdue = nil, time.After(progress.After)
		case <-overdue:
			e.unplaced(ctx)
		case <-gaveUp:
			return errInterrupted
		case <-e.Interrupts:
			if interrupts++; interrupts > 1 {
				e.leave()
				return &codeError{code: exitInterrupted}
			}
			e.line.Stop()
			e.say("cancelling the task; Ctrl-C again leaves at once")
			go e.cancel(ctx, gaveUp)
		}
	}
}

// unplaced says why nobody has the task yet. It will be looked for a provider for minutes, and whoever waits had better know at once that there is none.
func (e *execution) unplaced(ctx context.Context) {
	t := e.task.Task()
	if t.GetState() != "PENDING" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, knownTimeout)
	defer cancel()
	r, err := e.client.GetTask(ctx, &nodev1.GetTaskRequest{TaskId: t.GetId()}) // what is told while it changes has no history
	if err != nil {
		return // that the node does not answer is said elsewhere
	}
	history := r.GetTask().GetHistory()
	if n := len(history); n > 0 && history[n-1].GetWhat() == "NO_CANDIDATE" {
		e.line.Stop()
		e.say("the task waits for a provider: %s (task %s)", history[n-1].GetDetail(), t.GetId())
	}
}

// cancel asks the node to end the task. One that is not known to be stored cannot be named, and a node that is away cannot be told: it gives up.
func (e *execution) cancel(ctx context.Context, gaveUp chan<- struct{}) {
	wait := time.NewTimer(cancelPatience)
	defer wait.Stop()
	select {
	case <-e.task.Known():
	case <-wait.C:
		e.say(unconfirmed)
		close(gaveUp)
		return
	}
	asking, stop := context.WithTimeout(ctx, cancelPatience)
	defer stop()
	_, err := e.client.Cancel(asking, e.task.Task().GetId())
	if err == nil || ctx.Err() != nil {
		return
	}
	e.say("cannot cancel the task: %v", err)
	if asking.Err() != nil {
		e.leave()
		close(gaveUp)
	}
}

const unconfirmed = "the node has not confirmed the task; 'shallot task ls' shows whether it was stored"

// leave says where the task can be found.
func (e *execution) leave() {
	if t := e.task.Task(); t != nil {
		e.say("left task %s; 'shallot task show %s' says how it is", t.GetId(), t.GetId())
	} else {
		e.say(unconfirmed)
	}
}

// ended is end until Ctrl-C: what the task gave can take long to fetch.
func (e *execution) ended(ctx context.Context, o outcome) error {
	ctx, stop := e.interruptible(ctx)
	defer stop()
	err := e.end(ctx, o)
	if err == nil || !interrupted(ctx) || o.task == nil {
		return err
	}
	e.line.Stop()
	e.say("task %s has ended (%s); 'shallot task result %s' fetches what it gave", o.task.GetId(), o.task.GetState(), o.task.GetId())
	return errInterrupted
}

func (e *execution) followLogs(ctx context.Context) {
	select {
	case <-ctx.Done():
		return
	case <-e.task.Known():
	}
	if err := e.client.Logs(ctx, e.task.Task().GetId(), true, quiet{e.line, e.Stderr}); err != nil && ctx.Err() == nil {
		e.say("cannot follow the program's stderr: %v", err)
	}
}

// end prints what is left to print and turns the outcome into an exit code.
func (e *execution) end(ctx context.Context, o outcome) error {
	if o.err != nil {
		e.line.Stop()
		if o.task != nil {
			return fmt.Errorf("%w (task %s; 'shallot task show' says how it is)", o.err, o.task.GetId())
		}
		return o.err
	}
	if err := e.stderr(ctx, o.task); err != nil && !interrupted(ctx) {
		e.say("cannot read the program's stderr: %v", err)
	}
	werr := e.files(ctx, o.task)
	e.line.Stop()
	if e.json() {
		if err := e.printRun(ctx, o.task); err != nil {
			return err
		}
	}
	if err := verdict(o.task); err != nil && werr != nil && !interrupted(ctx) {
		e.say("%v", werr)
		return err
	} else if err != nil {
		return err
	}
	return werr
}

// files makes --output-dir of what the program wrote. One that failed may have written something before; where nothing was kept, there is
// no directory.
func (e *execution) files(ctx context.Context, t *taskv1.Task) error {
	if e.outputDir == "" || t.GetState() != "COMPLETED" && len(t.GetResult().GetFiles()) == 0 {
		return nil
	}
	if err := writeFiles(ctx, e.client, e.line, t, e.outputDir); err != nil {
		return fmt.Errorf("%w (task %s; 'shallot task result %s' can fetch it again)", err, t.GetId(), t.GetId())
	}
	return nil
}

// stderr prints what the program wrote there, where it was not followed.
func (e *execution) stderr(ctx context.Context, t *taskv1.Task) error {
	if e.follow {
		e.logs.Wait()
		return nil
	}
	if r := t.GetResult(); t.GetState() == "COMPLETED" && r != nil && r.GetStderrSize() == 0 {
		return nil // the common case saves a call
	}
	err := e.client.Logs(ctx, t.GetId(), false, quiet{e.line, e.Stderr})
	if t.GetState() != "COMPLETED" && codeOf(err) == exitNotFound {
		return nil // nothing was kept
	}
	return err
}

// quiet takes the progress line away before anything else is written to the terminal.
type quiet struct {
	line *progress.Line
	w    io.Writer
}

func (q quiet) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	q.line.Stop()
	return q.w.Write(p)
}
