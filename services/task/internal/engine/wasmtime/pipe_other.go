//go:build cgo && !linux

package wasmtime

func widen(int) {}
