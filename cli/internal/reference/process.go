package main

import (
	"cmp"
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/cpuguy83/go-md2man/v2/md2man"

	"github.com/shallot-net/shallot/kit/config/helptext"
)

// processes of a node, whose pages are of section 8; executor is one that nobody starts by hand.
var (
	processes = []string{"broker", "onion", "discovery", "metric", "task", "node", "gateway"}
	executor  = "shallot-executor-wasm"
)

// pages writes the manual pages of the processes of a node, out of what the programs in a folder print for --help.
func pages(ctx context.Context, programs, dir, version string) error {
	day, err := moment()
	if err != nil {
		return err
	}
	for _, p := range processes {
		out, err := usage(ctx, programs, "shallot-"+p)
		if err != nil {
			return err
		}
		help, err := helptext.Parse(out)
		if err != nil {
			return err
		}
		if err := put(filepath.Join(dir, help.Program+".8"), page(help.Program, help.Does, day, version, process(p, help))); err != nil {
			return err
		}
	}
	out, err := usage(ctx, programs, executor)
	if err != nil {
		return err
	}
	program, does, options, err := flags(out)
	if err != nil {
		return err
	}
	return put(filepath.Join(dir, program+".8"), page(program, does, day, version, executes(options)))
}

func usage(ctx context.Context, programs, program string) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(programs, program), "--help") //nolint:gosec // whoever builds a release names the folder
	out, err := cmd.CombinedOutput()                                            // package flag prints help to stderr
	if err != nil {
		return "", fmt.Errorf("ask %s for its help: %w", program, err)
	}
	return string(out), nil
}

// flags takes apart the help of a program that has flags and no settings.
func flags(text string) (program, does, options string, err error) {
	first, rest, ok := strings.Cut(text, "\n\n")
	program, does, named := strings.Cut(first, ": ")
	if !ok || !named || strings.TrimSpace(rest) == "" {
		return "", "", "", fmt.Errorf("no program and flags in the help %.80q", text)
	}
	return program, strings.TrimSuffix(does, "."), rest, nil
}

// page sets a page, of which the body is in Markdown.
func page(program, does string, day time.Time, version, body string) []byte {
	text := fmt.Sprintf("%% %q %q %q %q %q\n# NAME\n%s - %s\n\n%s", strings.ToUpper(program), "8", day.Format("Jan 2006"), "shallot "+version, "Shallot", program, plain(does), body)
	return md2man.Render([]byte(text))
}

// process is the page of one of a node's, without its name.
func process(name string, help helptext.Help) string {
	var b strings.Builder
	fmt.Fprintf(&b, `# SYNOPSIS
**%[1]s** **--home** *DIR* [**--KEY** *VALUE*]...

**%[1]s** **--home** *DIR* **--health**

**%[1]s** **--version** | **--help**

# DESCRIPTION
One of the processes that a Shallot node is made of. **shallot up** and **shallot dev** start and watch all of them; where each is a unit of its own, this one is *shallot-%[2]s.service*.

Each value comes from a flag, else from the environment, else from the configuration file, else it is the default. In a file a dot is a level. In the name of a flag a dash may stand for an underscore. What is unknown or cannot be is refused at the start, with its name, its value and where it came from. Secrets are files, which settings name.

# OPTIONS
`, help.Program, name)
	for _, s := range help.Settings {
		flag, argument, _ := strings.Cut(s.Flag, " ")
		if argument == "" && s.Env != "" && s.Value != "true" && s.Value != "false" {
			argument = "VALUE"
		}
		fmt.Fprintf(&b, "**%s**", plain(flag))
		if argument != "" {
			fmt.Fprintf(&b, " *%s*", argument)
		}
		fmt.Fprintf(&b, "\n: %s.", plain(cmp.Or(strings.TrimSuffix(s.What, "."), "see the settings of the suite")))
		if s.Value != "" {
			fmt.Fprintf(&b, " Default: %s.", plain(s.Value))
		}
		if s.Env != "" {
			fmt.Fprintf(&b, " Variable: %s.", plain(s.Env))
		}
		b.WriteString("\n\n")
	}
	fmt.Fprintf(&b, `# SIGNALS
**SIGTERM**, **SIGINT**
: end what is being done, and stop. A second one ends the process at once.

# EXIT STATUS
0 after a signal, and with **--health** when the process that runs is ready; 1 after an error, which is one line on stderr; 130 after a second signal.

# FILES
*HOME/config.yaml*
: settings, in a section *%[1]s*

*HOME/run/%[1]s.sock*
: where it answers, unless **--listen** says otherwise

*/etc/shallot/shallot.env*
: variables of the units of *shallot.target*

# SEE ALSO
%[2]s
`, name, also("shallot-"+name))
	return b.String()
}

// executes is the page of the executor, without its name.
func executes(options string) string {
	return fmt.Sprintf(`# SYNOPSIS
**%[1]s** [*FLAG*]...

# DESCRIPTION
**shallot-task** starts as many as it has use for, speaks *shallot.executor.v1* to each over an inherited socket, and ends one whose program has to stop. It is not for people: started by hand, it says that it has no socket.

It compiles and runs programs inside limits of the kernel, without new privileges, without files of the host, and where the kernel has them in a network namespace without interfaces and under a filter of system calls.

# OPTIONS
    %[2]s

# SEE ALSO
%[3]s
`, executor, strings.ReplaceAll(strings.Trim(options, "\n"), "\n", "\n    "), also(executor))
}

// also names the pages of the others.
func also(program string) string {
	names := []string{"**shallot**(1)", "**shallot-up**(1)", "**shallot-doctor**(1)"}
	for _, p := range processes {
		if p := "shallot-" + p; p != program {
			names = append(names, "**"+p+"**(8)")
		}
	}
	if program != executor {
		names = append(names, "**"+executor+"**(8)")
	}
	return strings.Join(names, ", ")
}

// escaped are the signs that Markdown has a use for.
var escaped = strings.NewReplacer(`\`, `\\`, "`", "\\`", "*", `\*`, "_", `\_`, "<", `\<`, ">", `\>`, "[", `\[`, "]", `\]`, "~", `\~`, "|", `\|`)

// plain keeps signs of a text from being taken for Markdown's.
func plain(s string) string { return escaped.Replace(s) }
