package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/shallot-net/shallot/test/internal/bench"
	"github.com/shallot-net/shallot/test/internal/floor"
)

// TestMain plays a server of the floor when it is started as one.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == floor.ChildArg {
		main()
		return
	}
	os.Exit(m.Run())
}

// A quick run measures every row. How fast anything is, is not for a test to judge.
func TestBenchQuick(t *testing.T) {
	out := filepath.Join(t.TempDir(), "bench.json")
	if err := run(t.Context(), []string{"-quick", "-out", out}); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	var r bench.Report
	if err := json.Unmarshal(b, &r); err != nil {
		t.Fatal(err)
	}
	figures := map[string]int{}
	for _, f := range r.Figures {
		figures[f.Row]++
		if f.Name == "" || (f.Ours <= 0 && f.Note == "" && f.Limit != 0) {
			t.Errorf("a figure without a value: %+v", f)
		}
		if f.Aim != "" && f.Met == nil {
			t.Errorf("%s has an aim, and nothing says whether it is met", f.Name)
		}
	}
	for row, want := range map[string]int{"footprint": 3, "latency": 4, "throughput": 3, "map": 2, "program": 3, "compute": 5, "content": 2, "events": 2, "lost": 3, "scale": 6, "traffic": 1} {
		if figures[row] != want {
			t.Errorf("the row %s has %d figures, want %d", row, figures[row], want)
		}
	}
	if r.Machine.Cores < 1 || r.Machine.Kernel == "" || r.Machine.MemoryGiB <= 0 || r.Versions["go"] == "" || r.Seconds <= 0 {
		t.Errorf("machine %+v, versions %v", r.Machine, r.Versions)
	}
}

func TestFlags(t *testing.T) {
	for _, args := range [][]string{{"-rows", "latency,speed"}, {"surplus"}, {"-nothing"}} {
		if err := run(t.Context(), args); err == nil {
			t.Errorf("%v is no error", args)
		}
	}
}
