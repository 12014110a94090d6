package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"time"
)

// compute is programs that keep one core busy: whole tasks beside the bare engine and the same program compiled natively.
func (s *session) compute(ctx context.Context) ([]Figure, error) {
	if err := s.network(ctx); err != nil {
		return nil, err
	}
	native, err := s.tools.native("work")
	if err != nil {
		return nil, err
	}
	module, err := s.workModule()
	if err != nil {
		return nil, err
	}
	var program bareProgram
	bare, err := newBareEngine()
	switch {
	case err == nil:
		if program, _, err = bare.compile(module); err != nil {
			return nil, err
		}
		defer program.close()
	case !errors.Is(err, errNoEngine):
		return nil, err
	}
	var figures []Figure
	product := 1.0
	for _, w := range []struct{ name, what, size, quick string }{
		{"matmul", "matrix product, %s² doubles", "700", "100"},
		{"sieve", "sieve up to %s", "30000000", "1000000"},
		{"hash", "FNV over %s MiB", "500", "20"},
		{"sort", "sort of %s numbers", "3000000", "100000"},
	} {
		size := w.size
		if s.Quick {
			size = w.quick
		}
		f, err := s.busy(ctx, native, module, program, w.name, size)
		if err != nil {
			return figures, fmt.Errorf("%s %s: %w", w.name, size, err)
		}
		f.Name = fmt.Sprintf(w.what, grouped(size))
		product *= f.Ratio
		figures = append(figures, f)
	}
	mean := Figure{Name: "the four, task / wasmtime, geometric mean"}
	if program == nil {
		mean.Note = errNoEngine.Error()
	} else {
		mean.Unit, mean.Ours = "×", math.Pow(product, 0.25)
		mean = mean.atMost(1.1, "≤ 1.1 ×")
	}
	return append(figures, mean), nil
}

func (s *session) workModule() ([]byte, error) {
	if s.Work != "" {
		return os.ReadFile(s.Work)
	}
	return s.tools.wasm("work")
}

// busy takes the best of some runs on each side: what disturbs a run only makes it longer.
func (s *session) busy(ctx context.Context, native string, module []byte, program bareProgram, work, size string) (f Figure, err error) {
	files, err := s.files(nil)
	if err != nil {
		return f, err
	}
	m, err := s.blob(ctx, module)
	if err != nil {
		return f, err
	}
	spec := wasmSpec(m, nil, work, size)
	want, _, err := s.runTask(ctx, spec, nil) // brings the module to the provider's cache
	if err != nil {
		return f, err
	}
	var natives, bares, tasks, inside []time.Duration
	for range s.or(5, 1) {
		begin := time.Now()
		if out, err := exec.CommandContext(ctx, native, work, size).CombinedOutput(); err != nil {
			return f, fmt.Errorf("native: %w: %s", err, out)
		}
		natives = append(natives, time.Since(begin))
		if program != nil {
			took, err := program.run([]string{work, size}, files.stdin, files.stdout)
			if err != nil {
				return f, fmt.Errorf("wasmtime: %w", err)
			}
			bares = append(bares, took)
		}
		begin = time.Now()
		_, task, err := s.runTask(ctx, spec, want)
		if err != nil {
			return f, err
		}
		tasks = append(tasks, time.Since(begin))
		inside = append(inside, task.GetUsage().GetWall().AsDuration())
	}
	best := slices.Min(natives).Seconds()
	f = Figure{Unit: "s", Ours: slices.Min(tasks).Seconds(), Detail: map[string]float64{"native, s": best, "the provider's own figure, s": slices.Min(inside).Seconds()}}
	f.Note = fmt.Sprintf("native %.2f s", best)
	if program == nil {
		f.Note += "; wasmtime " + errNoEngine.Error()
		return f, nil
	}
	return f.beside(slices.Min(bares).Seconds(), "wasmtime's run"), nil
}

// grouped writes 30000000 as 30 million.
func grouped(size string) string {
	n, _ := strconv.Atoi(size)
	if n >= 1_000_000 && n%1_000_000 == 0 {
		return fmt.Sprintf("%d million", n/1_000_000)
	}
	return size
}
