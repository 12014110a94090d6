package command

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shallot-net/shallot/cli/internal/clitest"
	"github.com/shallot-net/shallot/cli/internal/supervisor"
)

var update = flag.Bool("update", false, "write what the commands print into testdata")

func TestMain(m *testing.M) {
	time.Local = time.UTC
	code := m.Run()
	clitest.Clean()
	os.Exit(code)
}

var noon = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)

// world is a node and a user at a terminal that is none.
type world struct {
	t          *testing.T
	node       *clitest.Node
	home       string
	stop       func()
	stdin      io.Reader
	env        map[string]string
	interrupts chan os.Signal
	browse     func(string) error
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, node: clitest.NewNode(), home: t.TempDir(), env: map[string]string{}, interrupts: make(chan os.Signal, 2)}
	_, w.stop = clitest.Serve(t, w.node, w.home)
	return w
}

// outcome of a command.
type result struct {
	stdout, stderr string
	code           int
}

// lockedBuffer can be read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// bare runs the command as it is given.
func (w *world) bare(args ...string) result {
	w.t.Helper()
	var stdout, stderr lockedBuffer
	stdin := w.stdin
	if stdin == nil {
		stdin = strings.NewReader("")
	}
	ctx, cancel := context.WithTimeout(w.t.Context(), 30*time.Second)
	defer cancel()
	code := Run(ctx, System{Stdin: stdin, Stdout: &stdout, Stderr: &stderr, Getenv: func(k string) string { return w.env[k] },
		Interrupts: w.interrupts, Now: func() time.Time { return noon }, Finder: supervisor.Finder{Dirs: []string{"/nowhere"}},
		Outlive: func() <-chan os.Signal { return nil }, Browse: w.browse}, args)
	return result{stdout.String(), stderr.String(), code}
}

// run runs the command against the node.
func (w *world) run(args ...string) result {
	w.t.Helper()
	return w.bare(append([]string{"--home", w.home}, args...)...)
}

func (w *world) file(name, content string) string {
	w.t.Helper()
	path := filepath.Join(w.t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		w.t.Fatal(err)
	}
	return path
}

// script is a file with a program that the stand-in node understands.
func (w *world) script(lines ...string) string {
	w.t.Helper()
	return w.file("app.wasm", "script\n"+strings.Join(lines, "\n")+"\n")
}

func (r result) want(t *testing.T, code int, stdout, inStderr string) {
	t.Helper()
	if r.code != code || r.stdout != stdout || !strings.Contains(r.stderr, inStderr) {
		t.Errorf("exit code %d, stdout %.200q, stderr %q; want %d, %.200q, and %q in stderr", r.code, r.stdout, r.stderr, code, stdout, inStderr)
	}
}

func (r result) json(t *testing.T) map[string]any {
	t.Helper()
	var v map[string]any
	dec := json.NewDecoder(strings.NewReader(r.stdout))
	if err := dec.Decode(&v); err != nil {
		t.Fatalf("%v in %q (stderr %q)", err, r.stdout, r.stderr)
	}
	if dec.More() {
		t.Errorf("more than one document in %q", r.stdout)
	}
	return v
}

// golden compares with a file; -update writes it.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs; got\n%s\nwant\n%s", name, got, want)
	}
}
