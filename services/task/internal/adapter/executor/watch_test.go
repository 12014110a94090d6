package executor

import (
	"os/exec"
	"testing"
	"time"

	"github.com/shallot-net/shallot/services/task/internal/app"
)

// A module that takes long to compile is watched meanwhile; its program has a time limit all the same.
func TestTimeLimitAfterALongCompilation(t *testing.T) {
	t.Parallel()
	cfg := &Config{CompileTime: 40 * time.Second, CompileWall: time.Minute}
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	t.Cleanup(func() { _ = cmd.Process.Kill(); <-ended })
	r := &run{w: &Wasm{cfg: *cfg}, p: &process{cmd: cmd}, run: app.Run{Limits: app.Limits{Time: 300 * time.Millisecond}}}
	w := newWatch(cfg)
	w.begin(r)
	defer w.end()
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for watched := false; !watched; {
		<-look.C
		w.mu.Lock()
		watched = w.compiled != nil
		w.mu.Unlock()
	}
	w.started(0, r.run.Limits.Time)
	select {
	case <-ended:
	case <-time.After(time.Minute):
		t.Fatal("it still runs, long after its limit")
	}
	if e := r.over.Load(); e == nil || e.out.Reason != app.ReasonTimeLimit {
		t.Fatalf("it ended as %+v", e)
	}
}
