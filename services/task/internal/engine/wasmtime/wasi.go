//go:build cgo

package wasmtime

/*
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

// The part of wasmtime's C API (wasi.h, store.h) by which a program gets its files. Its Go package leaves out stdin as
// bytes, without which every run with one would need a file. The library itself comes with the Go package.
typedef struct wasi_config_t wasi_config_t;
typedef struct { size_t size; char *data; } shallot_bytes;

extern wasi_config_t *wasi_config_new(void);
extern void wasi_config_delete(wasi_config_t *);
extern bool wasi_config_set_argv(wasi_config_t *, size_t, const char **);
extern bool wasi_config_set_env(wasi_config_t *, size_t, const char **, const char **);
extern bool wasi_config_set_stdin_file(wasi_config_t *, const char *);
extern void wasi_config_set_stdin_bytes(wasi_config_t *, shallot_bytes *);
extern bool wasi_config_set_stdout_file(wasi_config_t *, const char *);
extern bool wasi_config_set_stderr_file(wasi_config_t *, const char *);
extern bool wasi_config_preopen_dir(wasi_config_t *, const char *, const char *, size_t, size_t);
extern void wasm_byte_vec_new(shallot_bytes *, size_t, const char *);
extern void *wasmtime_context_set_wasi(void *, wasi_config_t *);

static void shallot_set_stdin(wasi_config_t *c, const char *p, size_t n) {
	shallot_bytes b;
	wasm_byte_vec_new(&b, n, p);
	wasi_config_set_stdin_bytes(c, &b);
}
*/
import "C"

import (
	"errors"
	"fmt"
	"strings"
	"unsafe"

	"github.com/bytecodealliance/wasmtime-go/v44"

	"github.com/shallot-net/shallot/services/task/internal/engine"
)

const (
	permsRead  = 1
	permsWrite = 2
)

// setWASI gives the store what the program may see.
func setWASI(store *wasmtime.Store, out *pipes, cfg engine.Config) error {
	w := C.wasi_config_new()
	given := false
	defer func() {
		if !given {
			C.wasi_config_delete(w)
		}
	}()
	var free cStrings
	defer free.free()
	if len(cfg.Args) > 0 && !bool(C.wasi_config_set_argv(w, C.size_t(len(cfg.Args)), array(&free, cfg.Args, func(s string) string { return s }))) {
		return errors.New("an argument is not valid UTF-8")
	}
	if len(cfg.Env) > 0 {
		names := array(&free, cfg.Env, func(e engine.EnvVar) string { return e.Name })
		values := array(&free, cfg.Env, func(e engine.EnvVar) string { return e.Value })
		if !bool(C.wasi_config_set_env(w, C.size_t(len(cfg.Env)), names, values)) {
			return errors.New("an environment variable is not valid UTF-8")
		}
	}
	switch {
	case cfg.StdinPath != "":
		if !bool(C.wasi_config_set_stdin_file(w, free.one(cfg.StdinPath))) {
			return fmt.Errorf("cannot open stdin, %s", cfg.StdinPath)
		}
	case len(cfg.Stdin) > 0:
		C.shallot_set_stdin(w, (*C.char)(unsafe.Pointer(unsafe.SliceData(cfg.Stdin))), C.size_t(len(cfg.Stdin)))
	}
	if !bool(C.wasi_config_set_stdout_file(w, free.one(out.out.path))) || !bool(C.wasi_config_set_stderr_file(w, free.one(out.err.path))) {
		return errors.New("cannot open the pipes for stdout and stderr")
	}
	if cfg.In != "" && !bool(C.wasi_config_preopen_dir(w, free.one(cfg.In), free.one("/in"), permsRead, permsRead)) {
		return fmt.Errorf("cannot open the input directory %s", cfg.In)
	}
	if cfg.Out != "" && !bool(C.wasi_config_preopen_dir(w, free.one(cfg.Out), free.one("/out"), permsRead|permsWrite, permsRead|permsWrite)) {
		return fmt.Errorf("cannot open the output directory %s", cfg.Out)
	}
	given = true
	if C.wasmtime_context_set_wasi(unsafe.Pointer(store.Context()), w) != nil {
		return errors.New("the sandbox's files could not be set up")
	}
	return nil
}

// cStrings are C copies that live until free.
type cStrings []unsafe.Pointer

func (c *cStrings) one(s string) *C.char {
	// C strings end at a NUL; the caller has refused those, and this keeps a miss from cutting one silently.
	p := C.CString(strings.ReplaceAll(s, "\x00", "\uFFFD"))
	*c = append(*c, unsafe.Pointer(p))
	return p
}

// array is made in C memory, which may hold C pointers without ado.
func array[T any](c *cStrings, in []T, text func(T) string) **C.char {
	p := C.malloc(C.size_t(len(in)) * C.size_t(unsafe.Sizeof((*C.char)(nil))))
	*c = append(*c, p)
	out := unsafe.Slice((**C.char)(p), len(in))
	for i, v := range in {
		out[i] = c.one(text(v))
	}
	return (**C.char)(p)
}

func (c *cStrings) free() {
	for _, p := range *c {
		C.free(p)
	}
}
