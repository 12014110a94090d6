package compose

import (
	"bufio"
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/shallot-net/shallot/test/internal/deployment"
	"github.com/shallot-net/shallot/test/internal/dev"
)

// block is a piece of a page: commands, and lines that what they print must have in it.
type block struct {
	line     int
	section  string
	commands string
	prints   []string
}

// blocks are the ```sh blocks of a page, each with the ```text block right behind it.
func blocks(t *testing.T, page string) (out []block) {
	t.Helper()
	f, err := os.Open(page)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	kind, section := "", ""
	var b strings.Builder
	start, number := 0, 0
	for lines := bufio.NewScanner(f); lines.Scan(); {
		line := lines.Text()
		number++
		switch {
		case kind == "" && strings.HasPrefix(line, "```"):
			kind, start = strings.TrimPrefix(line, "```"), number
			b.Reset()
		case kind == "":
			if name, ok := strings.CutPrefix(line, "## "); ok {
				section = name
			}
		case line == "```":
			switch kind {
			case "sh":
				out = append(out, block{line: start, section: section, commands: b.String()})
			case "text":
				for line := range strings.Lines(b.String()) {
					out[len(out)-1].prints = append(out[len(out)-1].prints, strings.TrimSpace(line))
				}
			default:
				t.Fatalf("%s:%d: a block of %q: commands are sh, what they print is text", page, start, kind)
			}
			kind = ""
		default:
			b.WriteString(line + "\n")
		}
	}
	return out
}

// spaces of a table depend on what else is in it.
var spaces = regexp.MustCompile(`[ \t]+`)

// TestOperations runs docs/operations.md from the first command to the last, in a copy of the sources, as an operator who has just got them.
func TestOperations(t *testing.T) {
	needEngine(t)
	page := blocks(t, "../../docs/operations.md")
	if len(page) < 10 {
		t.Fatalf("the page has %d blocks of commands", len(page))
	}
	dir := copyOfSources(t)
	state := filepath.Join(t.TempDir(), "exports")
	env := append(deployment.Environment(), "COMPOSE_PROJECT_NAME=shallot-test-operations", "HOME="+t.TempDir())
	if err := os.WriteFile(state, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(within time.Duration, commands string) (string, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), within)
		defer cancel()
		// What is exported is there in the next block, as in one terminal.
		cmd := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", ". "+state+"\n"+commands+"\ndeclare -px >"+state)
		cmd.Dir, cmd.Env = dir, env
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		cmd.WaitDelay = 5 * time.Second
		err := cmd.Run()
		return out.String(), err
	}
	t.Cleanup(func() {
		if t.Failed() {
			out, _ := run(time.Minute, "docker compose ps -a; docker compose logs --no-color --tail 20")
			t.Log(deployment.Tail(out, 20000))
		}
		if out, err := run(2*time.Minute, "export SHALLOT_NETWORK_KEY=./network.key; docker compose --profile consumer --profile cli down --volumes --remove-orphans"); err != nil {
			t.Errorf("%v, %s", err, out)
		}
	})
	for _, b := range page {
		begin := time.Now()
		// The one port on this page that a node of the machine's owner may have.
		out, err := run(10*time.Minute, strings.ReplaceAll(b.commands, "/tcp/4001", "/tcp/"+deployment.SwarmPort))
		if err != nil {
			t.Fatalf("docs/operations.md:%d (%s): %v\n%s\n%s", b.line, b.section, err, b.commands, deployment.Tail(out, 6000))
		}
		for _, want := range b.prints {
			if !strings.Contains(spaces.ReplaceAllString(out, " "), spaces.ReplaceAllString(want, " ")) {
				t.Fatalf("docs/operations.md:%d (%s) does not print %q, but\n%s", b.line, b.section, want, deployment.Tail(out, 6000))
			}
		}
		t.Logf("line %d, %s: %v", b.line, b.section, time.Since(begin).Round(100*time.Millisecond))
	}
	out, err := run(time.Minute, "docker ps -aq --filter label=com.docker.compose.project=shallot-test-operations; docker volume ls -q --filter label=com.docker.compose.project=shallot-test-operations")
	if err != nil || strings.TrimSpace(out) != "" {
		t.Errorf("after the last command there are left: %q, %v", out, err)
	}
}

// copyOfSources has what git would give, and the built programs.
func copyOfSources(t *testing.T) string {
	t.Helper()
	bin, err := dev.Bin()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // the containers' user looks in
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c",
		`git ls-files -z --cached --others --exclude-standard | xargs -0 sh -c 'for f; do [ ! -e "$f" ] || printf "%s\0" "$f"; done' sh | tar --null -T - -c | tar -x -C "$0" && ln -s "$1" "$0/bin"`, dir, bin)
	cmd.Dir = "../.."
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v, %s", err, out)
	}
	return dir
}
