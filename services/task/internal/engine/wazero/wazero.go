// Package wazero is the engine port on wazero: pure Go, so that it builds everywhere. Programs run slower than on
// wasmtime, and loading a compiled module costs milliseconds.
package wazero

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
	"github.com/tetratelabs/wazero/sys"

	"github.com/shallot-net/shallot/services/task/internal/engine"
)

// Name is what Describe reports.
const Name = "wazero"

// Engine implements engine.Engine.
type Engine struct {
	runtime wazero.Runtime
	cache   wazero.CompilationCache
	scratch string
}

var _ engine.Engine = (*Engine)(nil)

// New sets the engine up. scratch is an empty directory of its own: wazero hands compiled code out and takes it in as
// files only.
func New(scratch string) (*Engine, error) {
	ctx := context.Background()
	cache, err := wazero.NewCompilationCacheWithDir(scratch)
	if err != nil {
		return nil, fmt.Errorf("cannot use %s for compiled code: %w", scratch, err)
	}
	r := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfig().WithCompilationCache(cache).WithCoreFeatures(api.CoreFeaturesV2))
	if _, err := wasi_snapshot_preview1.Instantiate(ctx, r); err != nil {
		return nil, fmt.Errorf("cannot define WASI: %w", err)
	}
	return &Engine{runtime: r, cache: cache, scratch: scratch}, nil
}

// Name implements engine.Engine.
func (*Engine) Name() string { return Name }

// Version implements engine.Engine. The number after the dash changes when New's settings do.
func (*Engine) Version() string { return "1.12.0-1-" + runtime.GOARCH }

// Compile implements engine.Engine.
func (e *Engine) Compile(module []byte) (engine.Program, error) {
	m, err := e.runtime.CompileModule(context.Background(), module)
	if err != nil {
		return nil, &engine.CompileError{Err: oneLine(err)}
	}
	return &program{e, m}, nil
}

// files are what wazero keeps in its directory. There is at most one: each is removed once it was read.
func (e *Engine) files() ([]string, error) {
	return filepath.Glob(filepath.Join(e.scratch, "*", "*"))
}

func (e *Engine) clear() {
	files, _ := e.files()
	for _, f := range files {
		_ = os.Remove(f)
	}
}

// Load implements engine.Engine. It reads the module again, which takes most of the time.
func (e *Engine) Load(path string, module func() ([]byte, error)) (engine.Program, error) {
	defer e.clear()
	if err := e.admit(path); err != nil {
		return nil, err
	}
	b, err := module()
	if err != nil {
		return nil, err
	}
	return e.Compile(b)
}

// admit puts the artefact where wazero looks for it, under the name on its first line.
func (e *Engine) admit(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("cannot open the compiled module: %w", err)
	}
	defer f.Close()
	r := bufio.NewReaderSize(f, 64<<10)
	name, err := r.ReadString('\n')
	name = strings.TrimSuffix(name, "\n")
	if err != nil || len(name) != 64 || strings.Trim(name, "0123456789abcdef") != "" {
		return engine.ErrArtefact
	}
	dirs, err := filepath.Glob(filepath.Join(e.scratch, "*"))
	if err != nil || len(dirs) != 1 {
		return fmt.Errorf("cannot find wazero's directory in %s", e.scratch)
	}
	out, err := os.OpenFile(filepath.Join(dirs[0], name), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("cannot place the compiled module: %w", err)
	}
	_, err = io.Copy(out, r)
	return errors.Join(err, out.Close())
}

// Close implements engine.Engine.
func (e *Engine) Close() error {
	ctx := context.Background()
	return errors.Join(e.runtime.Close(ctx), e.cache.Close(ctx))
}

type program struct {
	e *Engine
	m wazero.CompiledModule
}

func (p *program) Files() bool {
	return slices.ContainsFunc(p.m.ImportedFunctions(), func(f api.FunctionDefinition) bool {
		_, name, _ := f.Import()
		return engine.ReachesFiles(name)
	})
}

// Artefact gives the file that Compile left, under its name: it has to be called before the next Compile.
func (p *program) Artefact(w io.Writer) error {
	defer p.e.clear()
	files, err := p.e.files()
	if err != nil || len(files) != 1 {
		return errors.New("wazero keeps no compiled code on this platform")
	}
	f, err := os.Open(files[0])
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := io.WriteString(w, filepath.Base(files[0])+"\n"); err != nil {
		return err
	}
	_, err = io.Copy(w, f)
	return err
}

func (p *program) Close() error { return p.m.Close(context.Background()) }

func (p *program) Run(cfg engine.Config) (engine.Result, error) {
	p.e.clear()
	stderr := &engine.Tail{W: cfg.Stderr}
	config := wazero.NewModuleConfig().WithName("").WithArgs(cfg.Args...).WithStderr(stderr).
		WithSysWalltime().WithSysNanotime().WithNanosleep(func(ns int64) { time.Sleep(time.Duration(ns)) }).WithOsyield(runtime.Gosched). //nolint:forbidigo // it is the program that sleeps
		WithRandSource(rand.Reader)
	if cfg.Stdout != nil {
		config = config.WithStdout(cfg.Stdout)
	}
	for _, v := range cfg.Env {
		config = config.WithEnv(v.Name, v.Value)
	}
	switch {
	case cfg.StdinPath != "":
		f, err := os.Open(cfg.StdinPath)
		if err != nil {
			return engine.Result{}, fmt.Errorf("cannot open stdin: %w", err)
		}
		defer f.Close()
		config = config.WithStdin(f)
	case len(cfg.Stdin) > 0:
		config = config.WithStdin(bytes.NewReader(cfg.Stdin))
	}
	config, closeDirs, err := withDirs(config, cfg)
	if err != nil {
		return engine.Result{}, err
	}
	defer closeDirs()
	return p.run(config, cfg, stderr)
}

func (p *program) run(config wazero.ModuleConfig, cfg engine.Config, stderr *engine.Tail) (r engine.Result, err error) {
	defer pauseGC(cfg.Memory)()
	mem := &allocator{limit: uint64(cfg.Memory)}
	defer func() {
		if x := recover(); x != nil {
			if x != errRefused { //nolint:errorlint // a panic's own value
				panic(x)
			}
			r, err = engine.Result{Trap: "the module's initial memory is more than its limit", OutOfMemory: true}, nil
		}
	}()
	ctx := experimental.WithMemoryAllocator(context.Background(), mem)
	mod, err := p.e.runtime.InstantiateModule(ctx, p.m, config)
	r.PeakMemory = int64(mem.peak)
	if mod != nil {
		_ = mod.Close(ctx)
	}
	var exit *sys.ExitError
	switch {
	case err == nil:
	case errors.As(err, &exit):
		r.ExitCode = int32(exit.ExitCode())
	default:
		r.Trap = describe(err)
	}
	if r.Trap != "" || r.ExitCode != 0 {
		r.OutOfMemory = mem.refused || engine.Exhausted(r.PeakMemory, cfg.Memory) || stderr.SaysOutOfMemory()
	}
	return r, nil
}

const maxFrames = 4

// describe is the trap's reason and where it happened, on one line.
func describe(err error) string {
	text, stack, _ := strings.Cut(err.Error(), "\nwasm stack trace:\n")
	text = strings.TrimPrefix(oneLine(errors.New(text)).Error(), "wasm error: ")
	text = strings.TrimPrefix(text, "module[] function[_start] failed: wasm error: ")
	var in []string
	for _, f := range strings.Split(stack, "\n") {
		f, _, _ = strings.Cut(strings.TrimSpace(f), "(")
		if f = strings.TrimPrefix(f, "."); f == "" || strings.HasPrefix(f, "0x") {
			continue
		}
		if in = append(in, f); len(in) == maxFrames {
			break
		}
	}
	if len(in) == 0 {
		return text
	}
	return text + " in " + strings.Join(in, " < ")
}

func oneLine(err error) error {
	return errors.New(strings.Join(strings.Fields(err.Error()), " "))
}
