package executor

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	executorv1 "github.com/shallot-net/shallot/proto/shallot/executor/v1"
	"github.com/shallot-net/shallot/services/task/internal/app"
)

// childBinary is the real child, built once, if not by whoever runs the tests.
var childBinary string

func TestMain(m *testing.M) {
	if fakeChild() {
		return
	}
	os.Exit(func() int {
		_ = os.Getenv("SHALLOT_BIN_SUM")                // go test repeats what has passed when what it has read changed; programs that a test starts are not among that
		if bin := os.Getenv("SHALLOT_BIN"); bin != "" { // make test has built it
			childBinary = filepath.Join(bin, "shallot-executor-wasm")
			return m.Run()
		}
		dir, err := os.MkdirTemp("", "executor")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		childBinary = filepath.Join(dir, "shallot-executor-wasm")
		build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", childBinary, "github.com/shallot-net/shallot/services/task/cmd/shallot-executor-wasm")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "cannot build the child: %v\n%s", err, out)
			return 1
		}
		return m.Run()
	}())
}

func newWasm(t testing.TB, change func(*Config)) *Wasm {
	t.Helper()
	cfg := Config{Binary: childBinary, Dir: t.TempDir()}
	if change != nil {
		change(&cfg)
	}
	w, err := NewWasm(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w
}

// sink keeps what a run gives.
type sink struct {
	mu      sync.Mutex
	started bool
	begun   chan struct{} // closed by Started
	wrote   chan struct{} // closed by the first Output
	out     map[string]*strings.Builder
	largest int
	fail    error
}

func newSink() *sink {
	return &sink{begun: make(chan struct{}), wrote: make(chan struct{}), out: make(map[string]*strings.Builder)}
}

func (s *sink) Started() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.started = true
	close(s.begun)
}

func (s *sink) Output(name string, data []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.started {
		return errors.New("output before Started")
	}
	if s.fail != nil {
		return s.fail
	}
	if len(s.out) == 0 {
		close(s.wrote)
	}
	if s.out[name] == nil {
		s.out[name] = &strings.Builder{}
	}
	s.out[name].Write(data)
	s.largest = max(s.largest, len(data))
	return nil
}

func (s *sink) text(name string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b := s.out[name]; b != nil {
		return b.String()
	}
	return ""
}

func inline(name string, b []byte) app.Part {
	return app.Part{Name: name, Size: int64(len(b)), SHA256: sha256.Sum256(b), Inline: b}
}

func atPath(t testing.TB, name string, b []byte) app.Part {
	t.Helper()
	path := filepath.Join(t.TempDir(), "part")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return app.Part{Name: name, Size: int64(len(b)), SHA256: sha256.Sum256(b), Path: path}
}

func wasmOptions(t testing.TB, args []string, env ...string) []byte {
	t.Helper()
	o := &executorv1.WasmOptions{Args: args}
	for _, e := range env {
		name, value, _ := strings.Cut(e, "=")
		o.Env = append(o.Env, &executorv1.EnvVar{Name: name, Value: value})
	}
	b, err := proto.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

var testLimits = app.Limits{Time: 20 * time.Second, Memory: 64 << 20, Output: 1 << 20}

func taskOf(module []byte, parts ...app.Part) app.Run {
	return app.Run{TaskID: "t", Attempt: 1, Parts: append([]app.Part{inline("module", module)}, parts...), Limits: testLimits}
}

// execute runs something that the provider is not at fault for.
func execute(t testing.TB, w app.Executor, r app.Run) (app.Outcome, *sink) {
	t.Helper()
	return executeContext(t, t.Context(), w, r)
}

func executeContext(t testing.TB, ctx context.Context, w app.Executor, r app.Run) (app.Outcome, *sink) { //nolint:revive // t first, as everywhere here
	t.Helper()
	s := newSink()
	out, err := w.Execute(ctx, r, s)
	if err != nil {
		t.Fatalf("the run failed by the provider's fault: %v", err)
	}
	return out, s
}
