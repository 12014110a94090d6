// Package clients runs the examples of clients in other languages, and in Go, as their readers would: against a node.
package clients

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shallot-net/shallot/test/internal/dev"
)

const (
	consumer = "consumer-1"
	// python is Debian's: another one in the path has not its packages.
	python = "/usr/bin/python3"
)

// missing leaves a test out, with one line that says what would be needed; in CI it is there.
func missing(t *testing.T, what, mend string) {
	t.Helper()
	line := "left out: " + what + "; to get it: " + mend
	if os.Getenv("CI") == "true" {
		t.Fatal(line)
	}
	t.Skip(line)
}

// ran is what a client did.
type ran struct {
	stdout, stderr string
	code           int
}

func run(t *testing.T, dir string, args ...string) ran {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOWORK=off", "NO_COLOR=1", "npm_config_update_notifier=false")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if cmd.ProcessState == nil {
		t.Fatalf("%v: %v", args, err)
	}
	return ran{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

func must(t *testing.T, dir string, args ...string) {
	t.Helper()
	if r := run(t, dir, args...); r.code != 0 {
		t.Fatalf("%v ended with %d:\n%s%s", args, r.code, r.stdout, r.stderr)
	}
}

// example copies one, so that nothing is written into the sources.
func example(t *testing.T, name string, into string) string {
	t.Helper()
	dir := filepath.Join(into, "examples", name)
	if err := os.CopyFS(dir, os.DirFS(filepath.Join("..", "..", "examples", name))); err != nil {
		t.Fatal(err)
	}
	return dir
}

// check has a client add numbers, and sees what it says of a mistake.
func check(t *testing.T, dir string, command ...string) {
	t.Helper()
	r := run(t, dir, append(command, "0.1", "0.2")...)
	lines := strings.Fields(r.stderr)
	if r.code != 0 || r.stdout != "0.3\n" || len(lines) == 0 || lines[len(lines)-1] != "COMPLETED" {
		t.Errorf("ended with %d: %q, %q", r.code, r.stdout, r.stderr)
	}
	r = run(t, dir, append(command, "one")...)
	if r.code != 1 || r.stdout != "" || !strings.Contains(r.stderr, `addend 1, "one", is no decimal number`) {
		t.Errorf("a mistake ended with %d: %q, %q", r.code, r.stdout, r.stderr)
	}
	if r = run(t, dir, command[:len(command)-1]...); r.code == 0 || !strings.Contains(r.stderr, "usage: ") {
		t.Errorf("without its arguments it ended with %d: %q, %q", r.code, r.stdout, r.stderr)
	}
}

func TestClients(t *testing.T) {
	bin, err := dev.Bin()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "clients") // short: sockets have short paths
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	n, err := dev.Start(t.Context(), dev.Config{Bin: bin, Dir: filepath.Join(dir, "n"), Providers: 1, Consumers: 1, Log: func(line string) { t.Log(line) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Stop(); err != nil {
			t.Error(err)
		}
	})
	socket := "unix:" + filepath.Join(n.Home(consumer), "run", "node.sock")

	t.Run("go", func(t *testing.T) {
		program := filepath.Join(dir, "client-go")
		must(t, filepath.Join("..", "..", "examples", "client-go"), "go", "build", "-o", program, ".")
		check(t, dir, program, socket)
	})
	t.Run("python", func(t *testing.T) {
		if exec.Command(python, "-c", "import grpc").Run() != nil {
			missing(t, "the client in Python, because "+python+" cannot import grpc", "apt-get install python3-grpcio")
		}
		check(t, example(t, "client-python", dir), python, "sum.py", socket)
	})
	t.Run("typescript", func(t *testing.T) {
		if _, err := exec.LookPath("npm"); err != nil {
			missing(t, "the client in TypeScript, because npm is missing", "apt-get install nodejs npm")
		}
		if err := usual(t); err != nil {
			missing(t, "the client in TypeScript, because "+err.Error(), "install Node.js 18 or later")
		}
		// It reads the document where the repository has it.
		document := filepath.Join("gateway", "internal", "openapi", "openapi.json")
		data, err := os.ReadFile(filepath.Join("..", "..", document))
		if err == nil {
			err = os.MkdirAll(filepath.Dir(filepath.Join(dir, document)), 0o700)
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, document), data, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		at := example(t, "client-typescript", dir)
		if r := run(t, at, "npm", "ci", "--no-audit", "--no-fund", "--prefer-offline"); r.code != 0 {
			missing(t, "the client in TypeScript, because npm cannot fetch its packages: "+r.stderr, "check the network, or npm's registry")
		}
		must(t, at, "npm", "run", "build")
		var node struct {
			GatewayURL string `json:"gateway_url"`
			TokenFile  string `json:"token_file"`
		}
		out, talk, code, err := n.CLI(t.Context(), consumer, nil, "node", "--output", "json")
		if err == nil {
			err = json.Unmarshal(out, &node)
		}
		if err != nil || code != 0 {
			t.Fatalf("%v, %d: %s%s", err, code, out, talk)
		}
		check(t, at, "node", "dist/sum.js", node.GatewayURL, node.TokenFile)
	})
}

// usual tells whether Node.js is one that the example is for.
func usual(t *testing.T) error {
	out, err := exec.CommandContext(t.Context(), "node", "--version").Output()
	if err != nil {
		return fmt.Errorf("node is missing: %w", err)
	}
	var major int
	if _, err := fmt.Sscanf(string(out), "v%d.", &major); err != nil || major < 18 {
		return fmt.Errorf("node is %s and must be 18 or later", strings.TrimSpace(string(out)))
	}
	return nil
}
