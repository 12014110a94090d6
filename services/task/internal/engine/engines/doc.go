// Package engines chooses the WebAssembly engine at build time: wasmtime with a C compiler, wazero without.
package engines
