package executor

import (
	"fmt"
	"os"
	"testing"

	"github.com/shallot-net/shallot/services/task/internal/engine/enginetest"
)

func dumpSmaps(t *testing.T, pid int, file string) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps", pid))
	if err != nil {
		t.Fatal(err)
	}
	os.WriteFile(file, b, 0o600)
}

func TestIdleMemory(t *testing.T) {
	w := newWasm(t, nil)
	pid := w.pool.idle[0].cmd.Process.Pid
	dumpSmaps(t, pid, "/tmp/smaps0")
	execute(t, w, taskOf(enginetest.Program("hello")))
	dumpSmaps(t, pid, "/tmp/smaps1")
	m, _ := os.ReadFile("/tmp/wc.wasm")
	for range 20 {
		execute(t, w, taskOf(m, inline("stdin", []byte("a b c"))))
	}
	dumpSmaps(t, w.pool.idle[len(w.pool.idle)-1].cmd.Process.Pid, "/tmp/smaps2")
}
