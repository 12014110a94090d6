package executor

import (
	"context"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/engine/enginetest"
)

func TestPrograms(t *testing.T) {
	w := newWasm(t, nil)
	tests := map[string]struct {
		run     app.Run
		limits  func(*app.Limits)
		code    int32
		reason  string
		message string // contained
		stdout  string
		stderr  string
	}{
		"hello":               {run: taskOf(enginetest.Program("hello")), stdout: "hello\n"},
		"from a file":         {run: app.Run{TaskID: "t", Parts: []app.Part{atPath(t, "module", enginetest.Program("hello"))}, Limits: testLimits}, stdout: "hello\n"},
		"exits 3":             {run: taskOf(enginetest.Program("exit3")), code: 3, stdout: "out\n", stderr: "err\n"},
		"traps":               {run: taskOf(enginetest.Program("trap")), reason: app.ReasonTrap, message: "integer divide by zero"},
		"recurses":            {run: taskOf(enginetest.Program("recurse")), reason: app.ReasonTrap, message: "stack"},
		"runs forever":        {run: taskOf(enginetest.Program("loop")), limits: func(l *app.Limits) { l.Time = 200 * time.Millisecond }, reason: app.ReasonTimeLimit, message: "200ms", stdout: "on\n"},
		"takes all memory":    {run: taskOf(enginetest.Program("hog")), reason: app.ReasonMemoryLimit, message: "memory"},
		"asks for 3 GiB":      {run: taskOf(enginetest.Program("grab")), stdout: "refused\n"},
		"copies stdin":        {run: taskOf(enginetest.Program("cat"), inline("stdin", []byte("some text"))), stdout: "some text"},
		"copies a file":       {run: taskOf(enginetest.Program("cat"), atPath(t, "stdin", []byte(strings.Repeat("0123456789", 50_000)))), stdout: strings.Repeat("0123456789", 50_000)},
		"has no stdin":        {run: taskOf(enginetest.Program("cat"))},
		"keeps nothing":       {run: taskOf(enginetest.Program("count")), stdout: "1\n"},
		"keeps nothing again": {run: taskOf(enginetest.Program("count")), stdout: "1\n"},
		"tries sockets":       {run: taskOf(enginetest.Program("probe")), stdout: "........0\n"},
		"does not compile":    {run: taskOf(enginetest.Broken()), reason: app.ReasonCompile, message: "does not compile"},
		"is no wasm":          {run: taskOf([]byte("#!/bin/sh\necho hello")), reason: app.ReasonPayloadInvalid, message: "no WebAssembly module"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if test.limits != nil {
				test.limits(&test.run.Limits)
			}
			out, s := execute(t, w, test.run)
			if out.ExitCode != test.code || out.Reason != test.reason || !strings.Contains(out.Message, test.message) {
				t.Errorf("outcome %+v, want exit code %d, reason %q, a message with %q", out, test.code, test.reason, test.message)
			}
			if got := s.text("stdout"); got != test.stdout {
				t.Errorf("stdout has %d bytes, %.40q, want %d, %.40q", len(got), got, len(test.stdout), test.stdout)
			}
			if got := s.text("stderr"); got != test.stderr {
				t.Errorf("stderr %.40q, want %q", got, test.stderr)
			}
			if s.largest > 64<<10 {
				t.Errorf("a piece of output has %d bytes", s.largest)
			}
		})
	}
}

func TestArguments(t *testing.T) {
	w := newWasm(t, nil)
	run := taskOf(enginetest.Program("args"))
	run.Options = wasmOptions(t, []string{"-x", "ü"}, "A=1")
	if out, s := execute(t, w, run); s.text("stdout") != "program\x00-x\x00ü\x00A=1\x00" {
		t.Errorf("%+v, %q", out, s.text("stdout"))
	}
	run.Options = wasmOptions(t, []string{"a\x00b"})
	if out, _ := execute(t, w, run); out.Reason != app.ReasonPayloadInvalid || !strings.Contains(out.Message, "NUL") {
		t.Errorf("%+v", out)
	}
}

func TestWrongHash(t *testing.T) {
	w := newWasm(t, nil)
	part := atPath(t, "module", enginetest.Program("hello"))
	part.SHA256[0] ^= 1
	if out, _ := execute(t, w, app.Run{TaskID: "t", Parts: []app.Part{part}, Limits: testLimits}); out.Reason != app.ReasonPayloadInvalid {
		t.Errorf("%+v", out)
	}
}

func TestOutputLimit(t *testing.T) {
	w := newWasm(t, nil)
	run := taskOf(enginetest.Program("print"))
	run.Limits.Output = 100_000
	out, s := execute(t, w, run)
	if out.Reason != app.ReasonOutputLimit || len(s.text("stdout")) != 100_000 {
		t.Errorf("%+v, %d bytes", out, len(s.text("stdout")))
	}
	if out, s = execute(t, w, taskOf(enginetest.Program("hello"))); s.text("stdout") != "hello\n" {
		t.Errorf("the next run: %+v", out)
	}
}

func TestCancel(t *testing.T) {
	w := newWasm(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	s := newSink()
	done := make(chan app.Outcome)
	go func() {
		out, err := w.Execute(ctx, taskOf(enginetest.Program("loop")), s)
		if err != nil {
			t.Error(err)
		}
		done <- out
	}()
	<-s.wrote
	cancel()
	began := time.Now()
	if out := <-done; out.Reason != app.ReasonCancelled {
		t.Errorf("%+v", out)
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("the program was stopped after %v", took)
	}
}

func TestKilledChildIsTheProvidersFault(t *testing.T) {
	w := newWasm(t, nil)
	s := newSink()
	pid := w.pool.idle[0].cmd.Process.Pid
	done := make(chan error)
	go func() {
		_, err := w.Execute(t.Context(), taskOf(enginetest.Program("loop")), s)
		done <- err
	}()
	<-s.wrote
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err == nil {
		t.Error("a killed child is no error")
	}
	if out, s := execute(t, w, taskOf(enginetest.Program("hello"))); s.text("stdout") != "hello\n" {
		t.Errorf("the next run: %+v", out)
	}
}
