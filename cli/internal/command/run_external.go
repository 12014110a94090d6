package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/shallot-net/shallot/cli/internal/nodeclient"
	"github.com/shallot-net/shallot/cli/internal/progress"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
)

// maxOption is what the options of a task of somebody's own type may have, in bytes.
const maxOption = 1 << 20

// externalFlags are those of types that are not built in.
type externalFlags struct {
	runFlags
	option, stdin string
	inputs        []string
}

// runExternal makes cmd, which holds the built-in types, run all others.
func (a *app) runExternal(cmd *cobra.Command) {
	var flags externalFlags
	flags.add(cmd)
	f := cmd.Flags()
	f.StringVar(&flags.option, "option", "", "what the executor takes as its options: `TEXT`, or @FILE for what is in a file")
	f.StringVar(&flags.stdin, "stdin", "", "`FILE` that becomes the part stdin; - is this command's stdin")
	f.StringArrayVar(&flags.inputs, "input", nil, "`FILE` that becomes the part input:NAME, or directory whose files become input:NAME/..., or PATH:NAME to name it; repeatable")
	flags.addOutputDir(cmd)
	_ = cmd.MarkFlagFilename("stdin")
	_ = cmd.MarkFlagFilename("input")
	cmd.Args = cobra.ArbitraryArgs
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) == 0:
			return cmd.Help()
		case len(args) > 1 || !typeShaped(args[0]): // most likely a built-in type that was mistyped
			return unknownCommand(cmd, args[0])
		}
		return a.execute(cmd, &flags.runFlags, func(ctx context.Context, blobs *nodeclient.Blobs, line *progress.Line) (*taskv1.TaskSpec, error) {
			return a.externalSpec(ctx, &loader{a, blobs, line}, args[0], &flags)
		})
	}
}

func typeShaped(s string) bool {
	return s != "" && len(s) <= 64 && s[0] >= 'a' && s[0] <= 'z' && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789._-") == ""
}

// knownTimeout is short: a task may be submitted before anybody has its type.
const knownTimeout = 2 * time.Second

// known says so when nobody has the type, and refuses what then is most likely a slip.
func (l *loader) known(ctx context.Context, taskType string) error {
	ctx, cancel := context.WithTimeout(ctx, knownTimeout)
	defer cancel()
	r, err := l.blobs.Client.ListPeers(ctx, &nodev1.ListPeersRequest{Capability: taskType, PageSize: 1})
	if err != nil || len(r.GetPeers()) > 0 { // what is wrong with the node, the submission says
		return nil //nolint:nilerr // see above
	}
	if hint := suggestion(taskType, []string{"sum", "wasm"}, "; "); hint != "" {
		return usage("no provider is known that executes %q%s", taskType, hint)
	}
	l.line.Stop()
	l.say("no provider is known that executes %q: the task waits for one", taskType)
	return nil
}

func (a *app) externalSpec(ctx context.Context, l *loader, taskType string, flags *externalFlags) (*taskv1.TaskSpec, error) {
	options, err := optionBytes("--option", flags.option)
	if err != nil {
		return nil, err
	}
	if err := l.known(ctx, taskType); err != nil {
		return nil, err
	}
	p := &taskv1.ExternalPayload{Options: options}
	inputs, err := l.sources(flags.inputs, "input:") // names first: nothing is sent when one of them is wrong
	if err != nil {
		return nil, err
	}
	defer inputs.close()
	add := func(name string, b *taskv1.Blob, err error) error {
		p.Parts = append(p.Parts, &taskv1.InputFile{Path: name, Content: b})
		return err
	}
	if flags.stdin != "" {
		b, err := l.stdin(ctx, flags.stdin)
		if err := add("stdin", b, err); err != nil {
			return nil, err
		}
	}
	if err := inputs.send(ctx, l, func(name string, b *taskv1.Blob) { _ = add("input:"+name, b, nil) }); err != nil {
		return nil, err
	}
	return &taskv1.TaskSpec{Type: taskType, Payload: &taskv1.TaskSpec_External{External: p}}, nil
}

// optionBytes are a flag's text, or what is in the file that it names with @.
func optionBytes(flag, value string) ([]byte, error) {
	file, isFile := strings.CutPrefix(value, "@")
	if !isFile {
		return []byte(value), nil
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("cannot read %s %s: %w", flag, value, errors.Unwrap(err))
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxOption+1))
	if err != nil {
		return nil, fmt.Errorf("cannot read %s %s: %w", flag, value, err)
	}
	if len(b) > maxOption {
		return nil, usage("%s %s has more than %d KiB: give what is large with --stdin or --input", flag, value, maxOption>>10)
	}
	return b, nil
}
