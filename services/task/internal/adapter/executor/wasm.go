package executor

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"path/filepath"
	"sync"

	"google.golang.org/grpc/codes"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/services/task/internal/adapter/executor/wire"
	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/engine"
)

// TypeWasm is the task type of Wasm.
const TypeWasm = "wasm"

// Wasm is the executor of WASI preview 1 modules. They compile and run in child processes; no module's bytes are ever
// compiled, and none of its code ever runs, in this one.
type Wasm struct {
	cfg   Config
	pool  *pool
	cache *cache
	about app.Capability
	good  goodModules
	bad   badModules
	// compiling keeps runs of one module from compiling it side by side.
	compiling compiling

	ctx  context.Context // of all runs
	stop context.CancelCauseFunc
	runs sync.WaitGroup
}

var _ app.Executor = (*Wasm)(nil)

// NewWasm starts the first children and blocks until one has answered, some 30 ms. An error says that no child can be
// started, or that Config.Dir cannot be used.
func NewWasm(ctx context.Context, cfg Config) (*Wasm, error) {
	cfg = cfg.withDefaults()
	binary, err := filepath.Abs(cfg.Binary)
	if err != nil {
		return nil, fmt.Errorf("cannot find %s: %w", cfg.Binary, err)
	}
	cfg.Binary = binary
	if cfg.Dir, err = filepath.Abs(cfg.Dir); err != nil {
		return nil, fmt.Errorf("cannot find %s: %w", cfg.Dir, err)
	}
	w := &Wasm{cfg: cfg}
	w.ctx, w.stop = context.WithCancelCause(context.Background())
	if w.cache, err = openCache(filepath.Join(cfg.Dir, dirModules), cfg.CacheBytes); err != nil {
		return nil, err
	}
	if w.pool, err = newPool(&w.cfg); err != nil {
		return nil, err
	}
	p, err := w.pool.first(ctx)
	if err != nil {
		w.Close()
		return nil, err
	}
	attributes := p.about.GetAttributes()
	w.cache.version = attributes[wire.AttrEngineVersion]
	w.about = app.Capability{
		Type: TypeWasm, Version: p.about.GetVersion(), MaxLimits: app.Limits{Memory: engine.MaxMemory},
		Attributes: map[string]string{wire.AttrEngine: attributes[wire.AttrEngine], wire.AttrFence: attributes[wire.AttrFence]},
	}
	return w, nil
}

// Describe implements app.Executor.
func (w *Wasm) Describe() app.Capability { return w.about }

// Close ends every run, each with an error, and every child. It blocks until all are gone, which takes milliseconds.
func (w *Wasm) Close() {
	w.stop(errClosed)
	w.runs.Wait()
	w.pool.close()
}

// Validate implements app.Executor.
func (w *Wasm) Validate(ctx context.Context, options []byte, parts []app.Part) error {
	return ValidateWasm(ctx, options, parts)
}

// Execute implements app.Executor.
func (w *Wasm) Execute(ctx context.Context, in app.Run, sink app.Sink) (app.Outcome, error) {
	w.runs.Add(1)
	defer w.runs.Done()
	if err := w.ctx.Err(); err != nil {
		return app.Outcome{}, errClosed
	}
	if err := validateRest(in.Options, in.Parts); err != nil {
		return refused(err)
	}
	if in.Limits.Time <= 0 || in.Limits.Memory <= 0 || in.Limits.Output <= 0 {
		return app.Outcome{}, fmt.Errorf("a run must have limits on time, memory and output, not %+v", in.Limits)
	}
	in.Limits.Memory = min(in.Limits.Memory, engine.MaxMemory)
	module := moduleOf(in.Parts)
	key := moduleKey(module.SHA256)
	if module.Path == "" {
		key = sha256.Sum256(module.Inline)
	}
	if message, ok := w.bad.get(key); ok {
		return app.Outcome{Reason: app.ReasonCompile, Message: message}, nil
	}
	if !w.good.has(key) {
		if err := validateModule(module); err != nil {
			return refused(err)
		}
		w.good.add(key)
	}
	out, err := w.execute(ctx, in, key, module, sink)
	if err != nil && w.ctx.Err() != nil {
		err = errClosed
	}
	return out, err
}

// refused is the outcome for a payload that is not good, unless it could not be read.
func refused(err error) (app.Outcome, error) {
	if f := fault.From(err); f.Code == codes.InvalidArgument {
		return app.Outcome{Reason: app.ReasonPayloadInvalid, Message: f.Message}, nil
	}
	return app.Outcome{}, err
}

func (w *Wasm) execute(ctx context.Context, in app.Run, key moduleKey, module app.Part, sink app.Sink) (app.Outcome, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(w.ctx, func() { cancel(errClosed) })()
	compiled, err := w.compiling.begin(ctx, key, func() bool { return w.cache.has(key) || w.pool.has(key) })
	if err != nil {
		return noChild(ctx, err)
	}
	defer compiled()
	if message, ok := w.bad.get(key); ok { // by the one that was waited for
		return app.Outcome{Reason: app.ReasonCompile, Message: message}, nil
	}
	n := need{key: key}
	// What a child that ran something else compiles cannot be kept: it might be that program's work.
	n.clean = module.Size >= worthCaching && !w.cache.has(key)
	p, err := w.pool.acquire(ctx, n)
	if err != nil {
		return noChild(ctx, err)
	}
	if module.Path != "" && !p.resident.has(key) {
		if same, err := sameHash(module); err != nil || !same {
			w.pool.release(p, true)
			return app.Outcome{Reason: app.ReasonPayloadInvalid, Message: "the module is not the one that its hash names"}, err
		}
	}
	r := &run{w: w, p: p, run: in, key: key, sink: sink, stage: stage{p: p}, compiled: compiled}
	out, reuse, err := r.do(ctx)
	w.pool.release(p, reuse)
	if err == nil && out.Reason == app.ReasonCompile {
		w.bad.put(key, out.Message)
	}
	if out.Reason == app.ReasonCancelled && w.ctx.Err() != nil {
		return app.Outcome{}, errClosed
	}
	return out, err
}

// noChild is how a run ends that got none.
func noChild(ctx context.Context, err error) (app.Outcome, error) {
	if ctx.Err() != nil && !errors.Is(context.Cause(ctx), errClosed) {
		return app.Outcome{Reason: app.ReasonCancelled, Message: "the task was cancelled"}, nil
	}
	return app.Outcome{}, err
}
