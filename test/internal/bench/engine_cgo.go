//go:build cgo

package bench

import (
	"errors"
	"fmt"
	"time"

	"github.com/bytecodealliance/wasmtime-go/v44"
)

type wasmtimeEngine struct {
	engine *wasmtime.Engine
	linker *wasmtime.Linker
}

func newBareEngine() (bareEngine, error) {
	e := wasmtime.NewEngineWithConfig(wasmtime.NewConfig())
	l := wasmtime.NewLinker(e)
	if err := l.DefineWasi(); err != nil {
		return nil, fmt.Errorf("define WASI: %w", err)
	}
	return &wasmtimeEngine{e, l}, nil
}

func (e *wasmtimeEngine) compile(module []byte) (bareProgram, time.Duration, error) {
	begin := time.Now()
	m, err := wasmtime.NewModule(e.engine, module)
	if err != nil {
		return nil, 0, fmt.Errorf("compile: %w", err)
	}
	return &wasmtimeProgram{e, m}, time.Since(begin), nil
}

type wasmtimeProgram struct {
	e *wasmtimeEngine
	m *wasmtime.Module
}

func (p *wasmtimeProgram) close() { p.m.Close() }

func (p *wasmtimeProgram) run(args []string, stdin, stdout string) (time.Duration, error) {
	begin := time.Now()
	store := wasmtime.NewStore(p.e.engine)
	defer store.Close()
	wasi := wasmtime.NewWasiConfig()
	wasi.SetArgv(append([]string{"program"}, args...))
	if err := wasi.SetStdinFile(stdin); err != nil {
		return 0, err
	}
	if err := wasi.SetStdoutFile(stdout); err != nil {
		return 0, err
	}
	store.SetWasi(wasi)
	instance, err := p.e.linker.Instantiate(store, p.m)
	if err != nil {
		return 0, fmt.Errorf("instantiate: %w", err)
	}
	_, err = instance.GetFunc(store, "_start").Call(store)
	took := time.Since(begin)
	var exit *wasmtime.Error
	if errors.As(err, &exit) {
		if code, ok := exit.ExitStatus(); ok && code == 0 {
			err = nil
		}
	}
	return took, err
}
