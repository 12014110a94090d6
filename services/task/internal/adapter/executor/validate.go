package executor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/treepath"
	executorv1 "github.com/shallot-net/shallot/proto/shallot/executor/v1"
	"github.com/shallot-net/shallot/services/task/internal/adapter/executor/wire"
	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/engine"
	"github.com/shallot-net/shallot/services/task/internal/wasmcheck"
)

// Bounds on a wasm payload.
const (
	maxArgs     = 4096
	maxArgBytes = 1 << 20 // arguments and environment together
)

// Reasons of validation, beside wasmcheck's own.
const (
	reasonOptions = "WASM_OPTIONS"
	reasonParts   = "WASM_PARTS"
)

// ValidateWasm checks a payload of the type wasm without compiling it: the module's header, imports and exports, the
// options, the names of the parts. It needs no executor, so that a consumer can refuse before anything is sent. An
// error is a *fault.Error with INVALID_ARGUMENT, or says that a part's file cannot be read.
func ValidateWasm(_ context.Context, options []byte, parts []app.Part) error {
	if err := validateRest(options, parts); err != nil {
		return err
	}
	return validateModule(moduleOf(parts))
}

// Validator is ValidateWasm for one who sees the same modules again and again: it remembers those that were good, by their hashes,
// which must be right. It is safe for concurrent use.
type Validator struct{ good goodModules }

// Validate checks a payload.
func (v *Validator) Validate(_ context.Context, options []byte, parts []app.Part) error {
	if err := validateRest(options, parts); err != nil {
		return err
	}
	module := moduleOf(parts)
	if v.good.has(module.SHA256) {
		return nil
	}
	if err := validateModule(module); err != nil {
		return err
	}
	v.good.add(module.SHA256)
	return nil
}

// validateRest checks everything but the module.
func validateRest(options []byte, parts []app.Part) error {
	if err := validateOptions(options); err != nil {
		return err
	}
	return validateParts(parts)
}

func validateOptions(b []byte) error {
	var o executorv1.WasmOptions
	if err := proto.Unmarshal(b, &o); err != nil {
		return fault.InvalidArgument(reasonOptions, "the options of the task are no WasmOptions: %v", err)
	}
	if n := len(o.GetArgs()) + len(o.GetEnv()); n > maxArgs {
		return fault.InvalidArgument(reasonOptions, "the program gets %d arguments and variables, and may get %d", n, maxArgs)
	}
	size := 0
	for i, a := range o.GetArgs() {
		if err := validateText(fmt.Sprintf("argument %d", i+1), a); err != nil {
			return err
		}
		size += len(a)
	}
	for _, e := range o.GetEnv() {
		if e.GetName() == "" || strings.Contains(e.GetName(), "=") {
			return fault.InvalidArgument(reasonOptions, "%q is no name of an environment variable: it must not be empty or contain =", e.GetName())
		}
		if err := validateText("the name of an environment variable", e.GetName()); err != nil {
			return err
		}
		if err := validateText("environment variable "+e.GetName(), e.GetValue()); err != nil {
			return err
		}
		size += len(e.GetName()) + len(e.GetValue())
	}
	if size > maxArgBytes {
		return fault.InvalidArgument(reasonOptions, "arguments and environment have %d bytes, and may have %d: use stdin or an input file", size, maxArgBytes)
	}
	return nil
}

func validateText(what, s string) error {
	switch {
	case strings.ContainsRune(s, 0):
		return fault.InvalidArgument(reasonOptions, "%s contains a NUL byte", what)
	case !utf8.ValidString(s):
		return fault.InvalidArgument(reasonOptions, "%s is not valid UTF-8", what)
	}
	return nil
}

func validateParts(parts []app.Part) error {
	seen := make(map[string]bool, len(parts))
	var inputs []string
	for _, p := range parts {
		if seen[p.Name] {
			return fault.InvalidArgument(reasonParts, "the payload has %q twice", p.Name)
		}
		seen[p.Name] = true
		name, input := strings.CutPrefix(p.Name, wire.PrefixInput)
		switch {
		case input:
			inputs = append(inputs, name)
		case p.Name != wire.PartModule && p.Name != wire.PartStdin:
			return fault.InvalidArgument(reasonParts, "the payload has a part %q: a wasm task has module, stdin and input:NAME", p.Name)
		}
		if p.Size < 0 || p.Path == "" && p.Size != int64(len(p.Inline)) {
			return fault.InvalidArgument(reasonParts, "part %q has %d bytes and says that it has %d", p.Name, len(p.Inline), p.Size)
		}
	}
	if len(inputs) > treepath.MaxFiles {
		return fault.InvalidArgument(reasonParts, "the task has %d input files, and may have %d: pack them into one", len(inputs), treepath.MaxFiles)
	}
	if err := treepath.CheckAll(inputs); err != nil {
		return fault.InvalidArgument(reasonParts, "the input files cannot be placed in /in: %v", err)
	}
	if !seen[wire.PartModule] {
		return fault.InvalidArgument(reasonParts, "the task has no module")
	}
	return nil
}

func moduleOf(parts []app.Part) app.Part {
	for _, p := range parts {
		if p.Name == wire.PartModule {
			return p
		}
	}
	return app.Part{}
}

func validateModule(p app.Part) error {
	var r io.ReaderAt = bytes.NewReader(p.Inline)
	if p.Path != "" {
		f, err := os.Open(p.Path)
		if err != nil {
			return fmt.Errorf("cannot open the module: %w", err)
		}
		defer f.Close()
		r = f
	}
	_, err := wasmcheck.Check(r, p.Size, wasmcheck.Limits{Memory: engine.MaxMemory})
	var bad *wasmcheck.Error
	if errors.As(err, &bad) {
		return fault.InvalidArgument(bad.Reason, "%s", bad.Message)
	}
	return err
}

// publicMessage is what the task's owner may read of an error.
func publicMessage(err error) string { return fault.From(err).Message }
