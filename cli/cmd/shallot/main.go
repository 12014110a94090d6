// Command shallot runs a node on this machine and talks to it.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/shallot-net/shallot/cli/internal/command"
	"github.com/shallot-net/shallot/cli/internal/supervisor"
)

func main() {
	interrupts := make(chan os.Signal, 2)
	signal.Notify(interrupts, os.Interrupt, syscall.SIGTERM)
	os.Exit(command.Run(context.Background(), command.System{
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv,
		Interrupts: interrupts, Now: time.Now, Finder: supervisor.BesideSelf(),
	}, os.Args[1:]))
}
