package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/shallot-net/shallot/test/internal/module"
)

// A module that nobody has seen is another one to a cache, and the same program to an engine.
func TestNeverSeen(t *testing.T) {
	small := module.Small()
	a, b := neverSeen(small), neverSeen(small)
	if bytes.Equal(a, b) || bytes.Equal(a, small) {
		t.Fatal("two modules are the same")
	}
	ctx := context.Background()
	rt := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter())
	defer rt.Close(ctx)
	wasi_snapshot_preview1.MustInstantiate(ctx, rt)
	for _, m := range [][]byte{small, a} {
		var out bytes.Buffer
		if _, err := rt.InstantiateWithConfig(ctx, m, wazero.NewModuleConfig().WithName("").WithStdout(&out)); err != nil || out.String() != "done\n" {
			t.Errorf("printed %q, error %v", &out, err)
		}
	}
	if len(small) >= 1<<10 {
		t.Errorf("the small module has %d bytes", len(small))
	}
}

// The bare engine prints what the program prints natively, for each workload.
func TestWorkloadsAgree(t *testing.T) {
	p := &programs{dir: t.TempDir()}
	native, err := p.native("work")
	if err != nil {
		t.Fatal(err)
	}
	module, err := p.wasm("work")
	if err != nil {
		t.Fatal(err)
	}
	engine, err := newBareEngine()
	if errors.Is(err, errNoEngine) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	program, took, err := engine.compile(module)
	if err != nil || took <= 0 {
		t.Fatal(took, err)
	}
	defer program.close()
	for _, args := range [][]string{{"matmul", "30"}, {"sieve", "1000"}, {"hash", "1"}, {"sort", "1000"}} {
		want := output(t, native, args...)
		out := filepath.Join(t.TempDir(), "out")
		if _, err := program.run(args, os.DevNull, out); err != nil {
			t.Fatal(args, err)
		}
		if got, err := os.ReadFile(out); err != nil || string(got) != want || want == "" {
			t.Errorf("%v: %q natively, %q as wasm, %v", args, want, got, err)
		}
	}
	if got := output(t, native, "sieve", "1000"); got != "168\n" {
		t.Errorf("there are 168 primes below 1000, not %q", got)
	}
	if _, err := program.run([]string{"nothing", "1"}, os.DevNull, filepath.Join(t.TempDir(), "out")); err == nil {
		t.Error("a program that fails is no error")
	}
}

func TestReport(t *testing.T) {
	slow := Figure{Row: "latency", Name: "sum", Unit: "ms", Ours: 12}.beside(6, "express")
	slow = slow.atMost(1.5*slow.Floor, "≤ 1.5 × express")
	fast := Figure{Row: "throughput", Name: "tasks", Unit: "/s", Ours: 500}.beside(600, "lean")
	fast = fast.atLeast(0.7*fast.Floor, "≥ 0.7 × lean")
	r := Report{Figures: []Figure{slow, fast, {Row: "compute", Name: "four", Note: errNoEngine.Error()}}}
	if slow.Ratio != 2 || *slow.Met || !*fast.Met {
		t.Errorf("judged wrongly: %+v %+v", slow, fast)
	}
	var out strings.Builder
	if err := r.Print(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"sum", "12 ms", "6.00 ms", "2.00", "≤ 1.5 × express = 9.00 ms", "no", "500 /s", "yes", errNoEngine.Error()} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out.String())
		}
	}
	path := filepath.Join(t.TempDir(), "bench.json")
	if err := r.Write(path); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var back Report
	if err := json.Unmarshal(b, &back); err != nil || len(back.Figures) != 3 || back.Figures[0].Limit != 9 {
		t.Errorf("%v in %s", err, b)
	}
}

func output(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).Output()
	if err != nil {
		t.Fatal(name, args, err)
	}
	return string(out)
}
