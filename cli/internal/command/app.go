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
	"golang.org/x/term"

	"github.com/shallot-net/shallot/cli/internal/nodeclient"
	"github.com/shallot-net/shallot/cli/internal/progress"
	"github.com/shallot-net/shallot/cli/internal/render"
	"github.com/shallot-net/shallot/cli/internal/supervisor"
)

// System is what the program has around it. Tests give their own.
type System struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Getenv         func(string) string
	// Interrupts gets Ctrl-C and SIGTERM.
	Interrupts <-chan os.Signal
	Now        func() time.Time
	Finder     supervisor.Finder
	// Browse opens a link in a browser; nil where there is none.
	Browse func(link string) error
	// Outlive prepares for running until stopped and returns what gets SIGHUP.
	Outlive func() (hangups <-chan os.Signal)
}

type app struct {
	System
	home, endpoint, cert string
	output               choice
}

// Run runs the program with its arguments, without its name, and returns its exit code.
func Run(ctx context.Context, sys System, args []string) int {
	a := &app{System: sys, output: choice{value: "table", of: []string{"table", "json"}}}
	root := a.root()
	root.SetArgs(negativeNumbers(root, args))
	cmd, err := root.ExecuteContextC(ctx)
	return a.exit(cmd, err)
}

func (a *app) json() bool { return a.output.value == "json" }

// out prints data.
func (a *app) out() render.Printer {
	return render.Printer{W: a.Stdout, JSON: a.json(), Colour: isTerminal(a.Stdout) && a.Getenv("NO_COLOR") == "" && a.Getenv("TERM") != "dumb"}
}

// say is talk: it goes to stderr.
func (a *app) say(format string, args ...any) {
	fmt.Fprintf(a.Stderr, "shallot: "+format+"\n", args...)
}

// waiting shows on a terminal what takes long.
func (a *app) waiting() *progress.Line {
	return progress.Start(a.Stderr, isTerminal(a.Stderr) && a.Getenv("TERM") != "dumb", progress.After)
}

func isTerminal(w any) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

func (a *app) asked() nodeclient.Asked {
	return nodeclient.Asked{Endpoint: a.endpoint, Cert: a.cert, Home: a.home}
}

// target finds the node that the command is for and says on stderr how, where the user did not say it.
func (a *app) target() (nodeclient.Target, error) {
	t, err := nodeclient.Resolve(a.asked(), nodeclient.DefaultPlaces(a.Getenv))
	if err == nil && t.Note != "" {
		a.say("%s", t.Note)
	}
	return t, err
}

// dial connects to that node.
func (a *app) dial() (*nodeclient.Client, error) {
	t, err := a.target()
	if err != nil {
		return nil, err
	}
	return nodeclient.Dial(t)
}

// withNode runs fn with a connection to the node.
func (a *app) withNode(fn func(cmd *cobra.Command, c *nodeclient.Client, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		c, err := a.dial()
		if err != nil {
			return err
		}
		defer c.Close()
		ctx, stop := a.interruptible(cmd.Context())
		defer stop()
		cmd.SetContext(ctx)
		err = fn(cmd, c, args)
		if err != nil && interrupted(ctx) {
			return errInterrupted // whatever the call made of it
		}
		return err
	}
}

func interrupted(ctx context.Context) bool { return errors.Is(context.Cause(ctx), errInterrupted) }

// interruptible ends the context on Ctrl-C: for commands that change nothing when they end early.
func (a *app) interruptible(ctx context.Context) (context.Context, func()) {
	return a.until(ctx, nil)
}

func (a *app) until(ctx context.Context, hangups <-chan os.Signal) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() {
		select {
		case <-a.Interrupts:
			cancel(errInterrupted)
		case <-hangups:
			cancel(errInterrupted)
		case <-done:
		}
	}()
	return ctx, func() { close(done); cancel(nil) }
}

// choice is a flag with a few possible values.
type choice struct {
	value string
	of    []string
}

// Set implements pflag.Value.
func (c *choice) Set(s string) error {
	for _, o := range c.of {
		if s == o {
			c.value = s
			return nil
		}
	}
	return fmt.Errorf("it must be %s%s", strings.Join(c.of, " or "), suggestion(s, c.of, "; "))
}

func (c *choice) String() string { return c.value }

// Type implements pflag.Value.
func (c *choice) Type() string { return strings.Join(c.of, "|") }
