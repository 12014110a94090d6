package executor

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/shallot-net/shallot/services/task/internal/adapter/executor/wire"
	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/engine/enginetest"
)

// The child of a build without a C compiler.
func TestChildOnWazero(t *testing.T) {
	if testing.Short() {
		t.Skip("builds a program")
	}
	binary := filepath.Join(t.TempDir(), "shallot-executor-wasm")
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", binary, "github.com/shallot-net/shallot/services/task/cmd/shallot-executor-wasm")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	w := newWasm(t, func(c *Config) { c.Binary = binary })
	if about := w.Describe(); about.Attributes[wire.AttrEngine] != "wazero" {
		t.Errorf("%+v", about)
	}
	hello(t, w)
	if out, _ := execute(t, w, taskOf(enginetest.Program("exit200"))); out.ExitCode != 200 || out.Reason != "" {
		t.Errorf("%+v", out)
	}
	if out, _ := execute(t, w, taskOf(enginetest.Program("hog"))); out.Reason != app.ReasonMemoryLimit {
		t.Errorf("%+v", out)
	}
	for range 2 { // compiled, and from the cache
		if out, _ := execute(t, w, taskOf(heavy(20, 400))); out.Reason != "" {
			t.Errorf("%+v", out)
		}
	}
	if files := artefacts(t, w.cfg.Dir); len(files) != 1 {
		t.Errorf("%d compiled modules are kept", len(files))
	}
	loop := taskOf(enginetest.Program("loop"))
	loop.Limits.Time = 100_000_000
	if out, _ := execute(t, w, loop); out.Reason != app.ReasonTimeLimit {
		t.Errorf("%+v", out)
	}
	hello(t, w)
}
