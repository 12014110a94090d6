// Command bench measures Shallot on this machine and prints each figure beside its floor and its aim. It exits with 0 unless
// something failed to run: being slow is a finding, not a failure.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/shallot-net/shallot/test/internal/bench"
	"github.com/shallot-net/shallot/test/internal/dev"
	"github.com/shallot-net/shallot/test/internal/floor"
)

func main() {
	if len(os.Args) == 6 && os.Args[1] == floor.ChildArg {
		floor.Child(os.Args[2], os.Args[3], os.Args[4], os.Args[5] == "true")
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	cfg := bench.Config{Say: func(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	out := flags.String("out", "", "write the figures as JSON to this `file`, too")
	rows := flags.String("rows", "", "measure only these, separated by commas: "+strings.Join(bench.Rows, ","))
	flags.BoolVar(&cfg.Quick, "quick", false, "repeat little: shows that it works")
	flags.StringVar(&cfg.Profile, "profile", "", "write CPU profiles of the nodes' processes into this `folder`")
	flags.StringVar(&cfg.Work, "work", "", "a WASI `module` to measure as the compute-bound programs, with the arguments of test/programs/work")
	flags.StringVar(&cfg.Dir, "dir", "", "the `folder` for homes and files (default: where temporary files go); it should be on a disk")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if *rows != "" {
		cfg.Rows = strings.Split(*rows, ",")
	}
	for _, r := range cfg.Rows {
		if !slices.Contains(bench.Rows, r) {
			return fmt.Errorf("there is no row %q: the rows are %s", r, strings.Join(bench.Rows, ", "))
		}
	}
	var err error
	if cfg.Bin, err = dev.Bin(); err != nil {
		return err
	}
	report, err := bench.Run(ctx, cfg)
	if perr := report.Print(os.Stdout); perr != nil {
		err = errors.Join(err, perr)
	}
	if *out != "" {
		err = errors.Join(err, report.Write(*out))
	}
	return err
}
