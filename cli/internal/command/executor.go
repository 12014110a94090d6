package command

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/shallot-net/shallot/cli/internal/executorcheck"
	"github.com/shallot-net/shallot/cli/internal/render"
)

func (a *app) executor() *cobra.Command {
	c := group(&cobra.Command{
		Use: "executor", Short: "Check an executor of your own",
		Long: `An executor is a gRPC server that adds a task type to a provider. docs/executors.md shows how to write one; 'shallot up --executor
TYPE=ADDRESS' offers it.`,
		Example: "  shallot executor check unix:/tmp/grep.sock --payload beta",
	})
	c.AddCommand(a.executorCheck())
	return c
}

// checkFlags are what an executor is checked with.
type checkFlags struct {
	typ, payload, slow, stdin string
	bad, inputs               []string
	timeout                   time.Duration
}

func (a *app) executorCheck() *cobra.Command {
	var flags checkFlags
	cmd := &cobra.Command{
		Use: "check ADDRESS", Short: "Hold an executor against the contract",
		Long: `Check calls an executor as a provider would: it asks for its description and its health, validates payloads, runs one, repeats it,
sends its parts in chunks, cancels runs in the middle and wants their places back within a second, and cuts the connection. It
prints what it found; the exit code is 0 when nothing failed, else 1. Nothing of a node is needed.`,
		Example: `  shallot executor check unix:/tmp/grep.sock --payload beta --stdin words.txt
  shallot executor check 127.0.0.1:7000 --payload @good.json --bad-payload '{}' --slow-payload @slow.json --output json`,
		Args: exactly("ADDRESS"),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := flags.config(args[0])
			if err != nil {
				return err
			}
			ctx, stop := a.interruptible(cmd.Context())
			defer stop()
			line := a.waiting()
			var results []executorcheck.Result
			good, err := executorcheck.Run(ctx, cfg, func(r executorcheck.Result) {
				line.Set("checked: " + r.Check)
				results = append(results, r)
			})
			line.Stop()
			if err != nil {
				return err
			}
			if err := a.printChecks(results, good); err != nil {
				return err
			}
			if !good {
				return &codeError{code: exitFailed}
			}
			return nil
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	f := cmd.Flags()
	f.StringVar(&flags.typ, "type", "", "the task `TYPE` that it must have")
	f.StringVar(&flags.payload, "payload", "", "options of a good payload: `TEXT`, or @FILE for what is in a file")
	f.StringArrayVar(&flags.bad, "bad-payload", nil, "options that it must refuse, `TEXT` or @FILE, repeatable")
	f.StringVar(&flags.slow, "slow-payload", "", "options of a run that takes some seconds, `TEXT` or @FILE; default: those of --payload")
	f.StringVar(&flags.stdin, "stdin", "", "`FILE` for the part stdin")
	f.StringArrayVar(&flags.inputs, "input", nil, "`FILE` for the part input:NAME, repeatable")
	f.DurationVar(&flags.timeout, "timeout", time.Minute, "`TIME` that a run may take")
	return cmd
}

// maxCheckPart bounds a part, in bytes: all of it is held in memory.
const maxCheckPart = 256 << 20

func (f *checkFlags) config(address string) (executorcheck.Config, error) {
	cfg := executorcheck.Config{Address: address, Type: f.typ, Timeout: f.timeout}
	if f.timeout <= 0 {
		return cfg, usage("--timeout is %s: it must be more than 0", f.timeout)
	}
	var err error
	if cfg.Options, err = optionBytes("--payload", f.payload); err != nil {
		return cfg, err
	}
	if f.slow != "" {
		if cfg.Slow, err = optionBytes("--slow-payload", f.slow); err != nil {
			return cfg, err
		}
	}
	for _, b := range f.bad {
		options, err := optionBytes("--bad-payload", b)
		if err != nil {
			return cfg, err
		}
		cfg.Bad = append(cfg.Bad, options)
	}
	if f.stdin != "" {
		if err := addPart(&cfg, "stdin", f.stdin); err != nil {
			return cfg, err
		}
	}
	for _, file := range f.inputs {
		if err := addPart(&cfg, "input:"+filepath.Base(filepath.Clean(file)), file); err != nil {
			return cfg, err
		}
	}
	return cfg, nil
}

func addPart(cfg *executorcheck.Config, name, file string) error {
	f, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("cannot read the part %s: %w", name, err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxCheckPart+1))
	if err != nil {
		return fmt.Errorf("cannot read the part %s: %w", name, err)
	}
	if len(data) > maxCheckPart {
		return usage("%s has more than %d MiB: a check needs no more", file, maxCheckPart>>20)
	}
	cfg.Parts = append(cfg.Parts, executorcheck.Part{Name: name, Data: data})
	return nil
}

func (a *app) printChecks(results []executorcheck.Result, good bool) error {
	if a.json() {
		return a.out().Object(render.Object{{Name: "ok", Value: good}, {Name: "checks", Value: results}})
	}
	colours := map[string]render.Colour{executorcheck.Pass: render.Good, executorcheck.Fail: render.Bad, executorcheck.Skipped: render.Faint}
	rows := make([][]render.Cell, len(results))
	for i, r := range results {
		rows[i] = []render.Cell{{Text: r.Check}, {Text: r.Verdict, Colour: colours[r.Verdict]}, {Text: render.Duration(r.Took)}, {Text: r.Detail}}
	}
	return a.out().Table([]string{"check", "verdict", "took", "detail"}, rows)
}
