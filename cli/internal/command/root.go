package command

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/shallot-net/shallot/cli/internal/render"
	"github.com/shallot-net/shallot/kit/version"
)

func (a *app) root() *cobra.Command {
	root := group(&cobra.Command{
		Use:   "shallot",
		Short: "Run programs on other people's machines, and theirs on yours",
		Long: `Shallot is a decentralised compute network. A consumer submits a task, a provider executes it in a
sandbox, and the result comes back encrypted. This command runs a node on this machine and talks to it.

Data goes to stdout, talk to stderr. 'shallot help exit-codes' lists the exit codes.`,
		Example: `  shallot dev                       # a small network on this machine, to try it
  shallot run sum 1 2 3             # in another terminal: prints 6
  shallot run wasm app.wasm -- -v   # prints what the program prints, exits with its code`,
		SilenceErrors: true, SilenceUsage: true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	})
	root.SetOut(a.Stdout)
	root.SetErr(a.Stderr)
	root.SetIn(a.Stdin)
	root.SetFlagErrorFunc(flagError)
	fitHelp(root, a.width())
	f := root.PersistentFlags()
	f.StringVar(&a.home, "home", "", "`DIR` of the node; default: this machine's node, else the first consumer of a running dev")
	f.StringVar(&a.endpoint, "endpoint", "", "gRPC `ADDRESS` of a node service instead, unix:/path or, with --cert, host:port")
	f.StringVar(&a.cert, "cert", "", "`DIR` with the files that 'shallot client add' made, to call a node over the network")
	f.Var(&a.output, "output", "how data is printed")
	_ = root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(a.output.of, cobra.ShellCompDirectiveNoFileComp))
	_ = root.MarkPersistentFlagDirname("home")
	_ = root.MarkPersistentFlagDirname("cert")

	root.AddGroup(&cobra.Group{ID: "work", Title: "Work:"}, &cobra.Group{ID: "look", Title: "Look:"}, &cobra.Group{ID: "nodes", Title: "Nodes on this machine:"},
		&cobra.Group{ID: "deploy", Title: "Nodes of several containers or machines:"})
	for id, commands := range map[string][]*cobra.Command{
		"work":   {a.run(), a.mapping(), a.job(), a.task(), a.content()},
		"look":   {a.node(), a.peers(), a.metrics(), a.top(), a.dashboard(), a.settings(), a.doctor(), a.executor()},
		"nodes":  {a.dev(), a.up(), a.token(), a.network(), a.backup(), a.restore()},
		"deploy": {a.pki(), a.client()},
	} {
		for _, c := range commands {
			c.GroupID = id
			root.AddCommand(c)
		}
	}
	root.AddCommand(a.completion(), a.version(), exitCodes())
	root.SetHelpCommand(help())
	return root
}

func (a *app) version() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: exactly(),
		Example: "  shallot version",
		RunE: func(*cobra.Command, []string) error {
			if a.json() {
				return a.out().Object(render.Object{{Name: "version", Value: version.String()}})
			}
			_, err := fmt.Fprintln(a.Stdout, version.String())
			return err
		},
	}
}

func (a *app) completion() *cobra.Command {
	shells := []string{"bash", "zsh", "fish", "powershell"}
	return &cobra.Command{
		Use: "completion bash|zsh|fish|powershell", Short: "Print a script that completes commands in a shell",
		Example: `  source <(shallot completion bash)
  shallot completion fish > ~/.config/fish/completions/shallot.fish`,
		Args: exactly("the shell"), ValidArgs: shells,
		RunE: func(cmd *cobra.Command, args []string) error {
			root := cmd.Root()
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(a.Stdout, true)
			case "zsh":
				return root.GenZshCompletion(a.Stdout)
			case "fish":
				return root.GenFishCompletion(a.Stdout, true)
			case "powershell":
				return root.GenPowerShellCompletionWithDesc(a.Stdout)
			}
			return usage("there is no completion for %q: it must be bash, zsh, fish or powershell%s", args[0], suggestion(args[0], shells, "; "))
		},
	}
}

func help() *cobra.Command {
	return &cobra.Command{
		Use: "help [COMMAND]", Short: "Help about a command, or exit-codes", Example: "  shallot help run wasm\n  shallot help exit-codes",
		RunE: func(cmd *cobra.Command, args []string) error {
			found, rest, err := cmd.Root().Find(args)
			if err != nil || found == nil {
				return unknownCommand(cmd.Root(), args[0])
			}
			if len(rest) > 0 {
				return unknownCommand(found, rest[0])
			}
			found.InitDefaultHelpFlag()
			return found.Help()
		},
	}
}

func exitCodes() *cobra.Command {
	return &cobra.Command{
		Use: "exit-codes", Short: "What the exit codes mean",
		Long: `Exit codes of every command but run:
    0  it is done
    1  it failed, for a reason that has no code of its own; doctor: something is
       wrong; task watch: the task did not complete, or its program ended with a
       code other than 0; map, job watch: some inputs failed
    2  a mistake on the command line: an unknown command, flag or value
    3  what was named does not exist: a task, a peer, a CID, a home
    4  the node cannot be reached, or did not answer in time
    5  it cannot be done in this state: another process runs on the home, a
       provider was asked to submit a task
    6  it is not allowed
    7  a limit or a disk is full
  130  interrupted by Ctrl-C; map: the job is paused, and the same command goes
       on with it

Exit codes of run:
    0-255  the program's own (of larger ones the last eight bits, or 255 where
       those are 0); sum has 0
  124  the task ran out of time: its own limit, or one of the clocks that end it
       as EXPIRED
  125  shallot failed before there was a task, or lost sight of it: a mistake on
       the command line, no node, a module that is not accepted; stderr says
       which
  126  the task failed: a trap, a limit on memory or output, no provider that
       takes it; stderr says which
  130  the task was cancelled, by Ctrl-C or by somebody else

A program may end with 124, 125, 126 or 130 itself: when shallot means it, stderr ends in a line that begins with
"shallot:". 'shallot task show ID' tells for certain.`,
		Example: "  shallot help exit-codes",
	}
}
