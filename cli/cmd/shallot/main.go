// Command shallot runs a node on this machine and talks to it.
package main

import (
	"context"
	"os"

	"github.com/shallot-net/shallot/cli/internal/command"
)

func main() { os.Exit(command.Run(context.Background(), command.RealSystem(), os.Args[1:])) }
