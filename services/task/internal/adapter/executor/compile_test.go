package executor

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/engine/enginetest"
)

func leb(n int) []byte { return binary.AppendUvarint(nil, uint64(n)) } //nolint:gosec // never negative

func section(id byte, body ...byte) []byte {
	return append(append([]byte{id}, leb(len(body))...), body...)
}

// heavy is a module which does nothing and takes a compiler long: functions of many dependent steps, none of them run.
func heavy(functions, steps int) []byte {
	var body []byte
	body = append(body, 1, 1, 0x7f, 0x20, 0) // one i32, on the stack
	for i := range steps {
		body = append(body, 0x20, 0, 0x41, byte(i&0x3f), 0x6c, 0x73, 0x22, 0) // ^= it * constant, kept
	}
	body = append(body, 0x1a, 0x0b)
	body = append(leb(len(body)), body...)
	types, code := leb(functions+1), leb(functions+1)
	code = append(code, 2, 0, 0x0b) // function 0, which is _start
	for range functions + 1 {
		types = append(types, 0)
	}
	for range functions {
		code = append(code, body...)
	}
	m := append([]byte("\x00asm\x01\x00\x00\x00"), section(1, 1, 0x60, 0, 0)...)
	m = append(m, section(3, types...)...)
	m = append(m, section(5, 1, 0, 1)...)
	m = append(m, section(7, append([]byte("\x02\x06memory\x02\x00\x06_start"), 0, 0)...)...)
	return append(m, section(10, code...)...)
}

func TestCompileLimits(t *testing.T) {
	tests := map[string]struct {
		bomb    []byte
		change  func(*Config)
		message string
	}{
		"CPU time": {heavy(200, 4000), func(c *Config) { c.CompileTime = 50 * time.Millisecond }, "50ms of CPU time"},
		"memory":   {heavy(1, 100_000), func(c *Config) { c.CompileMemory = 32 << 20 }, "bytes of memory"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWasm(t, test.change)
			out, s := execute(t, w, taskOf(test.bomb))
			if out.Reason != app.ReasonCompile || !strings.Contains(out.Message, test.message) || s.started {
				t.Errorf("%+v", out)
			}
			if again, _ := execute(t, w, taskOf(test.bomb)); again.Reason != app.ReasonCompile || again.CPU != 0 {
				t.Errorf("again: %+v", again)
			}
			if out, s := execute(t, w, taskOf(enginetest.Program("hello"))); s.text("stdout") != "hello\n" {
				t.Errorf("the next run: %+v", out)
			}
		})
	}
}

func TestSlowMachineIsTheProvidersFault(t *testing.T) {
	w := newWasm(t, func(c *Config) { c.CompileTime, c.CompileWall = time.Hour, time.Millisecond })
	run := taskOf(heavy(800, 4000)) // compiles for longer than it takes until somebody looks, on a fast machine, too
	if out, err := w.Execute(t.Context(), run, newSink()); err == nil || !strings.Contains(err.Error(), "too busy") {
		t.Fatalf("%+v, %v", out, err)
	}
	if message, ok := w.bad.get(run.Parts[0].SHA256); ok {
		t.Errorf("it is remembered: %s", message)
	}
}

func TestOneCompilationAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c compiling
		key, there := moduleKey{1}, false
		needless := func() bool { return there }
		over, err := c.begin(t.Context(), key, needless)
		if err != nil {
			t.Fatal(err)
		}
		other, err := c.begin(t.Context(), moduleKey{2}, needless)
		if err != nil {
			t.Fatal(err)
		}
		other()
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		passed := make(chan struct{}, 3)
		for range 3 {
			all.Go(func() {
				over, err := c.begin(t.Context(), key, needless)
				if err != nil {
					t.Error(err)
					return
				}
				over()
				passed <- struct{}{}
			})
		}
		gone := make(chan error, 1)
		go func() {
			_, err := c.begin(ctx, key, needless)
			gone <- err
		}()
		synctest.Wait()
		cancel()
		if err := <-gone; !errors.Is(err, context.Canceled) || len(passed) != 0 {
			t.Errorf("%v, %d did not wait", err, len(passed))
		}
		there = true
		over()
		over()
		all.Wait()
		if len(c.now) != 0 {
			t.Errorf("%d are left", len(c.now))
		}
	})
}

// artefacts are the files of the module cache.
func artefacts(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, dirModules, "*-*.*"))
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestModuleCache(t *testing.T) {
	dir := t.TempDir()
	here := func(c *Config) { c.Dir = dir }
	run := taskOf(heavy(20, 400))
	w := newWasm(t, here)
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			if out, err := w.Execute(t.Context(), run, newSink()); err != nil || out.Reason != "" {
				t.Errorf("%+v, %v", out, err)
			}
		})
	}
	all.Wait()
	w.Close()
	files := artefacts(t, dir)
	if len(files) != 1 {
		t.Fatalf("%d compiled modules are kept", len(files))
	}
	good, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func([]byte) []byte{
		"a bit":   func(b []byte) []byte { b[len(b)/2] ^= 1; return b },
		"cut off": func(b []byte) []byte { return b[:len(b)/2] },
		"empty":   func([]byte) []byte { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			file := artefacts(t, dir)[0]
			changed := change(append([]byte(nil), good...))
			if err := errors.Join(os.Chmod(file, 0o600), os.WriteFile(file, changed, 0o600)); err != nil {
				t.Fatal(err)
			}
			w := newWasm(t, here)
			if out, _ := execute(t, w, run); out.Reason != "" {
				t.Errorf("%+v", out)
			}
			w.Close()
			files := artefacts(t, dir)
			if len(files) != 1 {
				t.Fatalf("%d compiled modules are kept", len(files))
			}
			if b, err := os.ReadFile(files[0]); err != nil || len(b) < len(good)/2 || string(b) == string(changed) {
				t.Errorf("%d bytes are kept, %v", len(b), err)
			}
		})
	}
}
