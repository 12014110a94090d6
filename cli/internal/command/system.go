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
	return System{Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv, Interrupts: interrupts, Now: time.Now,
		Finder: supervisor.BesideSelf(), Outlive: outlive, Browse: realBrowser}
}

// outlive is for commands that run until they are stopped. A terminal that goes away stops them in good order; a reader of
// their stderr that goes away does not stop them. The others die of both, as programs do.
func outlive() (hangups <-chan os.Signal) {
	// Notified, not ignored: processes that are started would inherit that.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	c := make(chan os.Signal, 1)
	if !signal.Ignored(syscall.SIGHUP) { // nohup
		signal.Notify(c, syscall.SIGHUP)
	}
	return c
}
