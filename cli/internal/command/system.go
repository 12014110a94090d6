package command

import (
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/shallot-net/shallot/cli/internal/supervisor"
)

// RealSystem is what a real program has around it. From then on Ctrl-C and SIGTERM only go to commands.
func RealSystem() System {
	interrupts := make(chan os.Signal, 2)
	signal.Notify(interrupts, os.Interrupt, syscall.SIGTERM)
	return System{Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv, Interrupts: interrupts, Now: time.Now, Finder: supervisor.BesideSelf()}
}
