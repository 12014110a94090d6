package command

import (
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// Tree is all commands with their flags and texts, for pages about them: nothing of this machine is in it, and none of them is to be run.
func Tree() *cobra.Command {
	a := &app{System: System{Stdin: strings.NewReader(""), Stdout: io.Discard, Stderr: io.Discard, Getenv: func(string) string { return "" }, Now: time.Now},
		output: choice{value: "table", of: []string{"table", "json"}}}
	return a.root()
}
