package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/shallot-net/shallot/cli/internal/nodeclient"
	"github.com/shallot-net/shallot/cli/internal/progress"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
)

// wasmFlags are those that only programs have.
type wasmFlags struct {
	runFlags
	stdin       string
	env, inputs []string
}

func (a *app) runWasm() *cobra.Command {
	var flags wasmFlags
	cmd := &cobra.Command{
		Use: "wasm FILE [flags] [-- ARG...]", Short: "Run a WASI program",
		Long: `Wasm runs a WASI preview 1 program, without network and files but those given with --input, which it sees in /in and
cannot change: a file as /in/NAME, a directory with all that is in it as /in/NAME/..., both under another name with
PATH:NAME, and a directory's files right in /in with DIR:. (a colon and a dot). What it writes to stdout is printed
unchanged, what it writes to stderr goes to stderr, and its exit code is this command's.

What it writes below /out becomes part of the result: --output-dir makes a directory of it when the program has ended,
whole or not at all. Without it, 'shallot task result' fetches those files later. A task has 1,000 files at most.
Directories without files are left out, both ways; links in a directory are followed to files inside of it only.`,
		Example: `  shallot run wasm app.wasm -- --verbose
  shallot run wasm app.wasm --stdin data.csv --timeout 30s --memory 256MiB > result.csv
  shallot run wasm app.wasm --input words.txt --env LANG=C -- /in/words.txt
  shallot run wasm render.wasm --input site:src --output-dir public -- /in/src /out`,
		Args: wasmArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.execute(cmd, &flags.runFlags, func(ctx context.Context, blobs *nodeclient.Blobs, line *progress.Line) (*taskv1.TaskSpec, error) {
				return a.wasmSpec(ctx, &loader{a, blobs, line}, args, &flags)
			})
		},
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
			if len(args) == 0 {
				return []string{"wasm"}, cobra.ShellCompDirectiveFilterFileExt
			}
			return nil, cobra.ShellCompDirectiveNoFileComp
		},
	}
	flags.add(cmd)
	f := cmd.Flags()
	f.StringVar(&flags.stdin, "stdin", "", "`FILE` that the program reads as its stdin; - is this command's stdin")
	f.StringArrayVar(&flags.env, "env", nil, "`K=V` in the program's environment, repeatable")
	f.StringArrayVar(&flags.inputs, "input", nil, "`FILE` or directory that the program sees as /in/NAME, or PATH:NAME to name it; repeatable")
	flags.addOutputDir(cmd)
	_ = cmd.MarkFlagFilename("stdin")
	_ = cmd.MarkFlagFilename("input")
	return cmd
}

// wasmArgs wants one file; the program's own arguments come after "--".
func wasmArgs(cmd *cobra.Command, args []string) error {
	before := len(args)
	if dash := cmd.ArgsLenAtDash(); dash >= 0 {
		before = dash
	}
	switch {
	case before == 0:
		return usage("FILE is missing: %s", cmd.UseLine())
	case before > 1:
		return usage("unexpected argument %q: the program's own arguments come after --, as in %s %s -- %s", args[1], cmd.CommandPath(), args[0], args[1])
	}
	return nil
}

func (a *app) wasmSpec(ctx context.Context, l *loader, args []string, flags *wasmFlags) (*taskv1.TaskSpec, error) {
	env, err := pairs("--env", flags.env)
	if err != nil {
		return nil, err
	}
	p := &taskv1.WasmPayload{Args: args[1:], Env: env}
	inputs, err := l.sources(flags.inputs, "/in/") // names first: nothing is sent when one of them is wrong
	if err != nil {
		return nil, err
	}
	defer inputs.close()
	if p.Module, err = l.file(ctx, "the module", args[0]); err != nil {
		return nil, err
	}
	if flags.stdin != "" {
		if p.Stdin, err = l.stdin(ctx, flags.stdin); err != nil {
			return nil, err
		}
	}
	if err := inputs.send(ctx, l, func(name string, b *taskv1.Blob) {
		p.Inputs = append(p.Inputs, &taskv1.InputFile{Path: name, Content: b})
	}); err != nil {
		return nil, err
	}
	return &taskv1.TaskSpec{Type: "wasm", Payload: &taskv1.TaskSpec_Wasm{Wasm: p}}, nil
}

// loader turns files into blobs.
type loader struct {
	*app
	blobs *nodeclient.Blobs
	line  *progress.Line
}

func (l *loader) stdin(ctx context.Context, from string) (*taskv1.Blob, error) {
	if from != "-" {
		return l.file(ctx, "--stdin", from)
	}
	return l.read(ctx, "stdin", l.Stdin, 0)
}

func (l *loader) file(ctx context.Context, what, path string) (*taskv1.Blob, error) {
	f, err := os.Open(path)
	if err != nil {
		var pe *fs.PathError
		if errors.As(err, &pe) {
			err = pe.Err
		}
		return nil, fmt.Errorf("cannot read %s %s: %w", what, path, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("cannot read %s %s: %w", what, path, err)
	}
	if info.IsDir() {
		return nil, usage("%s %s is a directory: it must be a file", what, path)
	}
	return l.read(ctx, path, f, uint64(max(info.Size(), 0)))
}

func (l *loader) read(ctx context.Context, name string, r io.Reader, total uint64) (*taskv1.Blob, error) {
	l.line.Set("reading " + name)
	blob, err := l.blobs.Blob(ctx, r, func(sent uint64) { l.line.Bytes("sending "+filepath.Base(name), sent, total) })
	if err != nil {
		return nil, fmt.Errorf("cannot send %s to the node: %w", name, err)
	}
	l.line.Set("waiting for the node")
	return blob, nil
}
