package command

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

func allCommands(c *cobra.Command) []*cobra.Command {
	all := []*cobra.Command{c}
	for _, sub := range c.Commands() {
		all = append(all, allCommands(sub)...)
	}
	return all
}

func TestEveryCommandHasHelpWithAnExampleAndOutput(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := &app{output: choice{value: "table", of: []string{"table", "json"}}}
	a.Stdout, a.Stderr = &lockedBuffer{}, &lockedBuffer{}
	for _, c := range allCommands(a.root()) {
		path := strings.Fields(c.CommandPath())[1:]
		r := w.bare(append(path, "--help")...)
		if !c.Runnable() { // a topic of help
			if topic := w.bare(append([]string{"help"}, path...)...); topic.code != 0 || !slices.Equal(strings.Fields(topic.stdout), strings.Fields(c.Long)) {
				t.Errorf("the topic %q: %+v", c.CommandPath(), topic)
			}
			continue
		}
		output := []string{"--output table|json"}
		if c.Name() == "wasm" && c.Parent().Name() == "map" { // there it is a folder
			output = []string{"--output DIR", "--json"}
		}
		for _, flag := range output {
			if !strings.Contains(r.stdout, flag) {
				t.Errorf("the help of %q has no %s", c.CommandPath(), flag)
			}
		}
		if r.code != 0 || r.stderr != "" || !strings.Contains(r.stdout, "Example") || !strings.Contains(r.stdout, "shallot "+strings.Join(path, " ")) {
			t.Errorf("the help of %q: exit code %d, %s%s", c.CommandPath(), r.code, r.stdout, r.stderr)
		}
		if c.Short == "" || strings.HasSuffix(c.Short, ".") {
			t.Errorf("%q is explained as %q", c.CommandPath(), c.Short)
		}
	}
}

func TestCommandsOfTheDesignAreThere(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, c := range []string{
		"dev", "up", "run sum", "run wasm", "map wasm", "job ls", "job show", "job watch", "job pause", "job resume", "job cancel", "task ls", "task show", "task why", "task watch", "task logs", "task cancel", "task result", "peers", "metrics", "node", "dashboard", "settings", "network create", "network invite", "network join",
		"backup", "restore", "pki run", "pki check", "client add", "client revoke", "client ls", "token add", "token revoke", "token ls",
		"content put", "content get", "content stat", "content pin", "content unpin", "content ls", "content gc", "content verify", "doctor", "completion", "version",
	} {
		if r := w.bare(append(strings.Fields(c), "--help")...); r.code != 0 || !strings.Contains(r.stdout, "shallot "+c) {
			t.Errorf("shallot %s --help: exit code %d", c, r.code)
		}
	}
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		if r := w.bare("completion", shell); r.code != 0 || !strings.Contains(r.stdout, "shallot") {
			t.Errorf("completion %s: exit code %d", shell, r.code)
		}
	}
	if v := w.bare("version", "--output", "json").json(t); v["version"] != "dev" {
		t.Errorf("version is %v", v)
	}
}

func TestNearMisses(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, c := range []struct {
		args string
		says string
		code int
	}{
		{"rum", `shallot has no command "rum"; did you mean "run"?`, exitUsage},
		{"task shwo x", `shallot task has no command "shwo"; did you mean "show"?`, exitUsage},
		{"run wsam x", `did you mean "wasm"?`, exitRun},
		{"run sum --tmieout 1s 1", `unknown flag --tmieout; did you mean "--timeout"?`, exitRun},
		{"run sum --replicas 9 1", "from 1 (only the provider that runs the task) to 8", exitRun},
		{"task ls --outptu json", `did you mean "--output"?`, exitUsage},
		{"task ls --output jso", `did you mean "json"?`, exitUsage},
		{"completion bahs", `did you mean "bash"?`, exitUsage},
		{"help tsak", `did you mean "task"?`, exitUsage},
		{"node conect x", `did you mean "connect"?`, exitUsage},
		{"up --role provide", `did you mean "provider"?`, exitUsage},
		{"up --bootstrap host:1", "not a multiaddr", exitUsage},
		{"frobnicate", `shallot has no command "frobnicate"` + "\n", exitUsage},
		{"peers -x", "unknown flag -x", exitUsage},
		{"dev --providers 0", "at least 1 provider", exitUsage},
		{"dev extra", `unexpected argument "extra"`, exitUsage},
		{"--home /nowhere --endpoint unix:/x peers", "both say which node", exitUsage},
		{"--home /nowhere peers", "no node in /nowhere", exitNotFound},
		{"--endpoint nonsense peers", "nonsense", exitUsage},
	} {
		w.bare(strings.Fields(c.args)...).want(t, c.code, "", c.says)
	}
	if r := w.bare("task"); r.code != 0 || !strings.Contains(r.stdout, "cancel") {
		t.Errorf("a group alone: %+v", r)
	}
}

// Help fits the terminal; only a line of an example is as long as it is.
func TestHelpFitsTheTerminal(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := &app{output: choice{value: "table", of: []string{"table", "json"}}}
	a.Stdout, a.Stderr = &lockedBuffer{}, &lockedBuffer{}
	for _, c := range allCommands(a.root()) {
		page := w.bare(append([]string{"help"}, strings.Fields(c.CommandPath())[1:]...)...).stdout
		for line := range strings.Lines(page) {
			if line = strings.TrimSuffix(line, "\n"); len(line) > usualWidth && !strings.Contains(c.Example, line) && !strings.HasSuffix(line, c.UseLine()) {
				t.Errorf("%s: %d columns: %q", c.CommandPath(), len(line), line)
			}
			if strings.HasSuffix(line, " ") {
				t.Errorf("%s: %q ends with a space", c.CommandPath(), line)
			}
		}
	}
}

func TestFitKeepsWhatIsIndented(t *testing.T) {
	t.Parallel()
	const long = "  0  a line of a table that is longer than it should be"
	if got, want := fit("one two three\nfour five\n\nsix\n"+long+"\n", 12), "one two\nthree four\nfive\n\nsix\n"+long; got != want {
		t.Errorf("fit = %q, want %q", got, want)
	}
}

// The page of exit codes is what users build on: it names every code that the program knows, and no other.
func TestExitCodesAreDocumented(t *testing.T) {
	t.Parallel()
	page := newWorld(t).bare("help", "exit-codes").stdout
	source, err := os.ReadFile("exit.go")
	if err != nil {
		t.Fatal(err)
	}
	codes := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^\texit\w+\s+= (\d+)$`).FindAllStringSubmatch(string(source), -1) {
		codes[m[1]] = true
	}
	if len(codes) < 10 {
		t.Fatalf("only %d codes found in the source", len(codes))
	}
	for c := range codes {
		n, _ := strconv.Atoi(c)
		if !strings.Contains(page, fmt.Sprintf("\n%5d  ", n)) {
			t.Errorf("code %s is not on the page", c)
		}
	}
	for _, m := range regexp.MustCompile(`(?m)^ +(\d+)  `).FindAllStringSubmatch(page, -1) {
		if !codes[m[1]] {
			t.Errorf("the page has code %s, which does not exist", m[1])
		}
	}
}

func TestNegativeNumbersAreNoFlags(t *testing.T) {
	t.Parallel()
	a := &app{output: choice{of: []string{"table"}}}
	a.Stdout, a.Stderr = &lockedBuffer{}, &lockedBuffer{}
	root := a.root()
	for in, want := range map[string]string{
		"run sum -1 2":                            "run sum -- -1 2",
		"run sum 1 --timeout 2s -2 --detach -.5":  "run sum --timeout 2s --detach -- 1 -2 -.5",
		"--home /x run sum --output=json -3 -- 4": "run sum --home /x --output=json -- -3 4",
		"run sum --help":                          "run sum --help --",
		"run wasm x -1":                           "run wasm x -1",
		"task ls":                                 "task ls",
		"bogus":                                   "bogus",
	} {
		if got := strings.Join(negativeNumbers(root, strings.Fields(in)), " "); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
}

func TestShellQuote(t *testing.T) {
	for in, want := range map[string]string{"/a/b-c_1": "/a/b-c_1", "/a b": "'/a b'", "it's": `'it'\''s'`} {
		if got := shellQuote(in); got != want {
			t.Errorf("%q became %s", in, got)
		}
	}
}
