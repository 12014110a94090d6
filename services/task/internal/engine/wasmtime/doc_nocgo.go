//go:build !cgo

// Package wasmtime is the engine port on wasmtime. It is empty here: it needs a C compiler at build time.
package wasmtime
