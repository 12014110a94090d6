package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/shallot-net/shallot/test/internal/measure"
)

// program is a Go program of some megabytes: one that the provider has compiled before, and one that it has never seen. Like the
// first row it begins with the submission: the module is on the user's own node by then.
func (s *session) program(ctx context.Context) ([]Figure, error) {
	if err := s.network(ctx); err != nil {
		return nil, err
	}
	first, err := s.firstRow(ctx)
	if err != nil {
		return nil, err
	}
	module, err := s.tools.wasm("table")
	if err != nil {
		return nil, err
	}
	bare, err := newBareEngine()
	if err != nil && !errors.Is(err, errNoEngine) {
		return nil, err
	}
	var program bareProgram
	if bare != nil {
		if program, _, err = bare.compile(module); err != nil {
			return nil, err
		}
		defer program.close()
	}
	size := fmt.Sprintf("%.1f MB Go program", float64(len(module))/1e6)
	var figures []Figure
	for _, c := range []struct {
		name  string
		input []byte
		runs  int
	}{
		{"3 lines", []byte("a,1\nb,2.5\na,39\n"), s.or(50, 2)},
		{"3.6 MB of CSV", csv(s.or(3_600_000, 300_000)), s.or(15, 1)},
	} {
		f, err := s.cached(ctx, program, module, c.input, c.runs, first)
		if err != nil {
			return nil, err
		}
		f.Name = size + ", compiled before, " + c.name
		figures = append(figures, f)
	}
	f, err := s.unseen(ctx, bare, module, first)
	f.Name = size + ", never seen before"
	return append(figures, f), err
}

// cached compares runs of a module that both sides have compiled.
func (s *session) cached(ctx context.Context, program bareProgram, module, input []byte, runs int, first time.Duration) (f Figure, err error) {
	f.Unit = "ms"
	files, err := s.files(input)
	if err != nil {
		return f, err
	}
	m, err := s.blob(ctx, module)
	if err != nil {
		return f, err
	}
	in, err := s.blob(ctx, input)
	if err != nil {
		return f, err
	}
	spec := wasmSpec(m, in)
	want, _, err := s.runTask(ctx, spec, nil) // compiles, where it has not been
	if err != nil {
		return f, err
	}
	var ours, floored []time.Duration
	for range runs {
		begin := time.Now()
		if _, _, err := s.runTask(ctx, spec, want); err != nil {
			return f, err
		}
		ours = append(ours, time.Since(begin))
		if program != nil {
			took, err := program.run(nil, files.stdin, files.stdout)
			if err != nil {
				return f, err
			}
			floored = append(floored, took)
		}
	}
	f.Ours = milliseconds(measure.Quantile(ours, 0.5))
	if program == nil {
		f.Note = errNoEngine.Error()
		return f, nil
	}
	if got, err := os.ReadFile(files.stdout); err != nil || !bytes.Equal(got, want) {
		return f, fmt.Errorf("the bare engine's run printed %.100q, the task %.100q: %w", got, want, err)
	}
	f = f.beside(milliseconds(measure.Quantile(floored, 0.5)), "wasmtime's run")
	return f.atMost(1.5*f.Floor+milliseconds(first), "≤ 1.5 × run + small wasm p50"), nil
}

// unseen compares a task whose module nobody has compiled with its compilation by the bare engine.
func (s *session) unseen(ctx context.Context, bare bareEngine, module []byte, first time.Duration) (f Figure, err error) {
	f.Unit = "ms"
	var ours, floored, uploads []time.Duration
	for range s.or(5, 1) {
		fresh := neverSeen(module)
		begin := time.Now()
		m, err := s.blob(ctx, fresh)
		if err != nil {
			return f, err
		}
		uploads = append(uploads, time.Since(begin))
		begin = time.Now()
		if _, _, err := s.runTask(ctx, wasmSpec(m, inline([]byte("a,1\n"))), []byte("a 1 1.00\n")); err != nil {
			return f, err
		}
		ours = append(ours, time.Since(begin))
		if bare != nil {
			program, took, err := bare.compile(fresh)
			if err != nil {
				return f, err
			}
			program.close()
			floored = append(floored, took)
		}
	}
	f.Ours = milliseconds(measure.Quantile(ours, 0.5))
	f.Detail = map[string]float64{"its upload to the own node before, ms": milliseconds(measure.Quantile(uploads, 0.5))}
	if bare == nil {
		f.Note = errNoEngine.Error()
		return f, nil
	}
	f = f.beside(milliseconds(measure.Quantile(floored, 0.5)), "wasmtime's compilation")
	return f.atMost(1.2*f.Floor+milliseconds(first), "≤ 1.2 × compilation + small wasm p50"), nil
}

type ioFiles struct{ stdin, stdout string }

func (s *session) files(stdin []byte) (ioFiles, error) {
	f := ioFiles{filepath.Join(s.dir, "stdin"), filepath.Join(s.dir, "stdout")}
	return f, os.WriteFile(f.stdin, stdin, 0o600)
}

// csv makes lines of about so many bytes in all.
func csv(size int) []byte {
	var b bytes.Buffer
	for i := 0; b.Len() < size; i++ {
		fmt.Fprintf(&b, "name-%d,%d.%02d,some text that nobody reads\n", i%97, i%1000, i%100)
	}
	return b.Bytes()
}
