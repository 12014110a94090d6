package executor

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/engine/enginetest"
)

// idle are the process numbers of the children that wait for work, once there are n of them and no others.
func idle(t *testing.T, w *Wasm, n int) []int {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	p := w.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.idle) != n || p.live != n || p.starting > 0 {
		changed := p.changed
		live, starting := p.live, p.starting
		p.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatalf("%d live and %d starting, want %d idle", live, starting, n)
		}
		p.mu.Lock()
	}
	pids := make([]int, 0, n)
	for _, c := range p.idle {
		pids = append(pids, c.cmd.Process.Pid)
	}
	return pids
}

func hello(t *testing.T, w *Wasm) {
	t.Helper()
	if out, s := execute(t, w, taskOf(enginetest.Program("hello"))); s.text("stdout") != "hello\n" {
		t.Fatalf("%+v", out)
	}
}

func TestPoolStartsOneAndComesBackToOne(t *testing.T) {
	w := newWasm(t, func(c *Config) { c.IdleTime, c.RefreshTime = 50*time.Millisecond, 100*time.Millisecond })
	first := idle(t, w, 1)
	hello(t, w)
	// The one that was started meanwhile ends, and then the one that ran something, for a fresh one.
	for idle(t, w, 1)[0] == first[0] {
		p := w.pool
		p.mu.Lock()
		changed := p.changed
		p.mu.Unlock()
		<-changed
	}
	hello(t, w)
}

func TestPoolReplacesChildrenThatRanEnough(t *testing.T) {
	w := newWasm(t, func(c *Config) { c.Runs, c.Max = 3, 1 })
	seen := make(map[int]int)
	for range 9 {
		seen[idle(t, w, 1)[0]]++
		hello(t, w)
	}
	if len(seen) != 3 {
		t.Errorf("runs by process: %v", seen)
	}
}

func TestPoolWhoseChildrenDoNotStart(t *testing.T) {
	if _, err := NewWasm(t.Context(), Config{Binary: "/nowhere/shallot-executor-wasm", Dir: t.TempDir()}); err == nil || !strings.Contains(err.Error(), "/nowhere/shallot-executor-wasm") {
		t.Errorf("no file: %v", err)
	}
	if _, err := NewWasm(t.Context(), Config{Binary: os.Args[0], Dir: t.TempDir()}); err == nil { // knows no flag -root
		t.Error("another program: no error")
	}
	b, err := os.ReadFile(childBinary)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "child")
	put := func() {
		if err := os.WriteFile(path, b, 0o700); err != nil { //nolint:gosec // a program
			t.Fatal(err)
		}
	}
	put()
	w := newWasm(t, func(c *Config) { c.Binary, c.Max = path, 1 })
	idle(t, w, 1)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	run := taskOf(enginetest.Program("loop"))
	run.Limits.Time = 50 * time.Millisecond // ends the only child
	if out, _ := execute(t, w, run); out.Reason != app.ReasonTimeLimit {
		t.Fatalf("%+v", out)
	}
	if out, err := w.Execute(t.Context(), taskOf(enginetest.Program("hello")), newSink()); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("%+v, %v", out, err)
	}
	put()
	idle(t, w, 1) // by a later attempt
	hello(t, w)
}

// TestSlowStart: on a busy machine a child takes seconds to begin. To give up its connection would end it.
func TestSlowStart(t *testing.T) {
	t.Parallel()
	slow := filepath.Join(t.TempDir(), "slow")
	if err := os.WriteFile(slow, []byte("#!/bin/sh\nsleep 4\nexec '"+childBinary+"' \"$@\"\n"), 0o700); err != nil { //nolint:gosec // a program
		t.Fatal(err)
	}
	newWasm(t, func(c *Config) { c.Binary = slow })
}

func residentPages(t *testing.T, pid int) (pages int) {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		t.Skip("no /proc here")
	}
	var size int
	if _, err := fmt.Sscan(string(b), &size, &pages); err != nil {
		t.Fatal(err)
	}
	return pages
}

func descriptors(pid int) int {
	fds, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	return len(fds)
}

func TestManyRunsLeaveNothing(t *testing.T) {
	w := newWasm(t, func(c *Config) { c.Max = 1 })
	pid := idle(t, w, 1)[0]
	for range 100 {
		hello(t, w)
	}
	pages, theirs, own := residentPages(t, pid), descriptors(pid), descriptors(os.Getpid())
	for range 500 {
		hello(t, w)
	}
	if now := idle(t, w, 1)[0]; now != pid {
		t.Fatal("the child was replaced")
	}
	if grown := (residentPages(t, pid) - pages) * os.Getpagesize(); grown > 8<<20 {
		t.Errorf("the child grew by %d bytes", grown)
	}
	if now := descriptors(pid); now > theirs {
		t.Errorf("the child has %d descriptors, had %d", now, theirs)
	}
	if now := descriptors(os.Getpid()); now > own+2 {
		t.Errorf("this process has %d descriptors, had %d", now, own)
	}
	if left, _ := filepath.Glob(filepath.Join(w.cfg.Dir, dirChildren, "*", "run", "*")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}
