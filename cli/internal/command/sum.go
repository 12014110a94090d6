package command

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/shallot-net/shallot/cli/internal/nodeclient"
	"github.com/shallot-net/shallot/cli/internal/progress"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
)

// maxAddendBytes bounds what is read from a file of addends: far more than a task may carry.
const maxAddendBytes = 64 << 20

func (a *app) runSum() *cobra.Command {
	var flags runFlags
	var stdin string
	cmd := &cobra.Command{
		Use: "sum ADDEND...", Short: "Add numbers, exactly",
		Long: `Sum adds decimal numbers exactly: 0.1, -3, 1e400. Negative ones need no "--" before them. With --stdin more addends
are read from a file, separated by white space.`,
		Example: `  shallot run sum 1 2 3
  shallot run sum -1 0.25 1e400
  seq 1 100000 | shallot run sum --stdin -`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 && stdin == "" {
				return usage("there is no addend: give at least one number, for example %s 1 2 3", cmd.CommandPath())
			}
			return a.execute(cmd, &flags, func(context.Context, *nodeclient.Blobs, *progress.Line) (*taskv1.TaskSpec, error) {
				addends, err := a.addends(args, stdin)
				if err != nil {
					return nil, err
				}
				return &taskv1.TaskSpec{Type: "sum", Payload: &taskv1.TaskSpec_Sum{Sum: &taskv1.SumPayload{Addends: addends}}}, nil
			})
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	flags.add(cmd)
	cmd.Flags().StringVar(&stdin, "stdin", "", "`FILE` with more addends; - is this command's stdin")
	return cmd
}

func (a *app) addends(args []string, from string) ([]string, error) {
	if from == "" {
		return args, nil
	}
	r := a.Stdin
	if from != "-" {
		f, err := os.Open(from)
		if err != nil {
			return nil, fmt.Errorf("cannot read the addends: %w", err)
		}
		defer f.Close()
		r = f
	}
	text, err := io.ReadAll(io.LimitReader(r, maxAddendBytes+1))
	if err != nil {
		return nil, fmt.Errorf("cannot read the addends: %w", err)
	}
	if len(text) > maxAddendBytes {
		return nil, usage("the addends in %s are more than %d MiB", from, maxAddendBytes>>20)
	}
	addends := append(args, strings.Fields(string(text))...)
	if len(addends) == 0 {
		return nil, usage("there is no addend: %s is empty", from)
	}
	return addends, nil
}
