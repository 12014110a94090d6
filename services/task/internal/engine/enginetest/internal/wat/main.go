//go:build cgo

// Command wat assembles the .wat files of a directory beside themselves.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/bytecodealliance/wasmtime-go/v44"
)

func main() {
	files, err := filepath.Glob(filepath.Join(os.Args[1], "*.wat"))
	for _, f := range files {
		if err == nil {
			err = assemble(f)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func assemble(file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	b, err := wasmtime.Wat2Wasm(string(text))
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return os.WriteFile(strings.TrimSuffix(file, ".wat")+".wasm", b, 0o600)
}
