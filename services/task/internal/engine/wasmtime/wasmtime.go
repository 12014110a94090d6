//go:build cgo

// Package wasmtime is the engine port on wasmtime: the fast one, which needs a C compiler at build time.
package wasmtime

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"

	"github.com/bytecodealliance/wasmtime-go/v44"

	"github.com/shallot-net/shallot/services/task/internal/engine"
)

// Name is what Describe reports.
const Name = "wasmtime"

// Engine implements engine.Engine.
type Engine struct {
	engine *wasmtime.Engine
	linker *wasmtime.Linker
	pipes  *pipes
	exit   *exit
}

// exit takes the code of the program that runs. The library's own proc_exit takes codes below 126 only, and programs do
// exit with others.
type exit struct {
	code int32
	done bool
}

func (x *exit) exit(code int32) *wasmtime.Trap {
	x.code, x.done = code, true
	return wasmtime.NewTrap("exit")
}

var _ engine.Engine = (*Engine)(nil)

// New sets the engine up, with pipes for output in scratch: no stop checks, and none of the proposals by which a module could have more than one
// linear memory, or one that the limiter does not bound.
func New(scratch string) (*Engine, error) {
	keepMemory()
	cfg := wasmtime.NewConfig()
	cfg.SetMaxWasmStack(engine.WasmStack)
	cfg.SetWasmMultiMemory(false)
	cfg.SetWasmMemory64(false)
	cfg.SetWasmThreads(false)
	if err := pool(cfg); err != nil {
		return nil, err
	}
	e := wasmtime.NewEngineWithConfig(cfg)
	l := wasmtime.NewLinker(e)
	if err := l.DefineWasi(); err != nil {
		return nil, fmt.Errorf("cannot define WASI: %w", err)
	}
	x := &exit{}
	l.AllowShadowing(true)
	if err := l.FuncWrap("wasi_snapshot_preview1", "proc_exit", x.exit); err != nil {
		return nil, fmt.Errorf("cannot define proc_exit: %w", err)
	}
	p, err := newPipes(scratch)
	if err != nil {
		return nil, err
	}
	return &Engine{engine: e, linker: l, pipes: p, exit: x}, nil
}

// Name implements engine.Engine.
func (*Engine) Name() string { return Name }

// Version implements engine.Engine. The number after the dash changes when New's settings do.
func (*Engine) Version() string { return "44.0.0-1-" + runtime.GOARCH }

// Compile implements engine.Engine.
func (e *Engine) Compile(module []byte) (engine.Program, error) {
	defer FreeMemory()
	m, err := wasmtime.NewModule(e.engine, module)
	if err != nil {
		return nil, &engine.CompileError{Err: oneLine(err)}
	}
	return newProgram(e, m), nil
}

// Load implements engine.Engine. It maps the file, which is why loading takes no time and the file may not change.
func (e *Engine) Load(path string, _ func() ([]byte, error)) (engine.Program, error) {
	m, err := wasmtime.NewModuleDeserializeFile(e.engine, path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", engine.ErrArtefact, oneLine(err))
	}
	return newProgram(e, m), nil
}

// Close implements engine.Engine.
func (e *Engine) Close() error {
	e.linker.Close()
	e.engine.Close()
	e.pipes.close()
	return nil
}

type program struct {
	e     *Engine
	m     *wasmtime.Module
	files bool
}

func newProgram(e *Engine, m *wasmtime.Module) *program {
	p := &program{e: e, m: m}
	for _, i := range m.Imports() {
		p.files = p.files || i.Name() == nil || engine.ReachesFiles(*i.Name())
	}
	return p
}

func (p *program) Files() bool { return p.files }

func (p *program) Artefact(w io.Writer) error {
	b, err := p.m.Serialize()
	if err != nil {
		return fmt.Errorf("cannot serialise the compiled module: %w", err)
	}
	_, err = w.Write(b)
	return err
}

func (p *program) Close() error { p.m.Close(); return nil }

func (p *program) Run(cfg engine.Config) (engine.Result, error) {
	stderr := &engine.Tail{W: cfg.Stderr}
	*p.e.exit = exit{}
	end := p.e.pipes.begin(cfg.Stdout, stderr)
	r, err := p.run(cfg)
	end()
	if p.e.exit.done {
		r.Trap, r.ExitCode = "", p.e.exit.code
	}
	if err == nil && (r.Trap != "" || r.ExitCode != 0) {
		r.OutOfMemory = r.OutOfMemory || engine.Exhausted(r.PeakMemory, cfg.Memory) || stderr.SaysOutOfMemory()
	}
	return r, err
}

func (p *program) run(cfg engine.Config) (engine.Result, error) {
	store := wasmtime.NewStore(p.e.engine)
	defer store.Close()
	// One instance with one memory; tables cost memory of the host, so they are bounded with it.
	store.Limiter(cfg.Memory, min(engine.MaxTableElements, cfg.Memory/8), 1, 16, 1)
	if err := setWASI(store, p.e.pipes, cfg); err != nil {
		return engine.Result{}, err
	}
	instance, err := p.e.linker.Instantiate(store, p.m)
	if err != nil { // a start function can trap and exit like _start
		return ended(nil, store, err)
	}
	start := instance.GetFunc(store, "_start")
	if start == nil {
		return engine.Result{}, errors.New("the module exports no function _start")
	}
	_, err = start.Call(store)
	return ended(instance, store, err)
}

func ended(instance *wasmtime.Instance, store *wasmtime.Store, err error) (engine.Result, error) {
	var r engine.Result
	if instance != nil {
		if x := instance.GetExport(store, "memory"); x != nil && x.Memory() != nil {
			r.PeakMemory = int64(x.Memory().DataSize(store))
		}
	}
	var trap *wasmtime.Trap
	var other *wasmtime.Error
	switch {
	case err == nil:
	case errors.As(err, &trap):
		r.Trap = describe(trap)
		trap.Close()
	case errors.As(err, &other):
		r.Trap = oneLine(other).Error()
		// What the limiter refuses at instantiation comes as an error of that text.
		r.OutOfMemory = strings.Contains(r.Trap, "exceeds memory limits") || strings.Contains(r.Trap, "exceeds table limits")
		other.Close()
	default:
		return r, err
	}
	return r, nil
}

const maxFrames = 4

// describe is the trap's reason and where it happened, on one line.
func describe(t *wasmtime.Trap) string {
	text, _, _ := strings.Cut(t.Message(), "\n")
	if code := t.Code(); code != nil {
		if s, ok := codes[*code]; ok {
			text = s
		}
	}
	var in []string
	for _, f := range t.Frames() {
		name := fmt.Sprintf("function %d", f.FuncIndex())
		if n := f.FuncName(); n != nil {
			name = *n
		}
		if in = append(in, name); len(in) == maxFrames {
			break
		}
	}
	if len(in) == 0 {
		return text
	}
	return text + " in " + strings.Join(in, " < ")
}

var codes = map[wasmtime.TrapCode]string{
	wasmtime.StackOverflow:          "call stack exhausted",
	wasmtime.MemoryOutOfBounds:      "out of bounds memory access",
	wasmtime.HeapMisaligned:         "misaligned memory access",
	wasmtime.TableOutOfBounds:       "out of bounds table access",
	wasmtime.IndirectCallToNull:     "call of a null function reference",
	wasmtime.BadSignature:           "indirect call type mismatch",
	wasmtime.IntegerOverflow:        "integer overflow",
	wasmtime.IntegerDivisionByZero:  "integer divide by zero",
	wasmtime.BadConversionToInteger: "invalid conversion to integer",
	wasmtime.UnreachableCodeReached: "unreachable code",
}

func oneLine(err error) error {
	s := strings.TrimSpace(err.Error())
	lines := strings.FieldsFunc(s, func(r rune) bool { return r == '\n' || r == '\r' })
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	return errors.New(strings.Join(lines, " "))
}
