// Package enginetest has what every engine must do, and the programs with which tests ask for it.
package enginetest

import (
	"bytes"
	"embed"
	"fmt"
	"strings"
)

//go:generate go run ./internal/wat testdata

//go:embed testdata/*.wasm
var programs embed.FS

// Program is a test program by the name of its source in testdata. It panics when there is none.
func Program(name string) []byte {
	b, err := programs.ReadFile("testdata/" + name + ".wasm")
	if err != nil {
		panic(fmt.Sprintf("no test program %q: %v", name, err))
	}
	return b
}

// Broken is a module whose header, imports and exports are good and whose code is not: a compiler has to say so.
func Broken() []byte {
	b := bytes.Clone(Program("trap"))
	i := bytes.LastIndexByte(b[:len(b)-1], 0x6e) // i32.div_u
	b[i] = 0xff
	return b
}

// Names are those of all programs.
func Names() []string {
	files, _ := programs.ReadDir("testdata")
	names := make([]string, 0, len(files))
	for _, f := range files {
		names = append(names, strings.TrimSuffix(f.Name(), ".wasm"))
	}
	return names
}
