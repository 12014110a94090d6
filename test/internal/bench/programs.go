package bench

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// programs builds the programs that are measured, from the sources of this module.
type programs struct{ dir string }

// wasm returns the module of test/programs/NAME for WASI.
func (p *programs) wasm(name string) ([]byte, error) {
	path, err := p.build(name, name+".wasm", "GOOS=wasip1", "GOARCH=wasm")
	if err != nil {
		return nil, err
	}
	return os.ReadFile(path)
}

// native returns the path of the program for this machine.
func (p *programs) native(name string) (string, error) { return p.build(name, name) }

func (p *programs) build(name, file string, env ...string) (string, error) {
	path := filepath.Join(p.dir, file)
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", path, "github.com/shallot-net/shallot/test/programs/"+name)
	cmd.Env = append(os.Environ(), append([]string{"CGO_ENABLED=0"}, env...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the program %s: %w\n%s", name, err, out)
	}
	return path, nil
}

// neverSeen is the module with a custom section of random bytes at its end, which changes its hash and nothing else.
func neverSeen(module []byte) []byte {
	const name = "nonce"
	body := append([]byte{byte(len(name))}, name...)
	body = append(body, make([]byte, 16)...)
	_, _ = rand.Read(body[1+len(name):])
	out := append([]byte(nil), module...)
	out = append(out, 0) // a custom section
	out = binary.AppendUvarint(out, uint64(len(body)))
	return append(out, body...)
}
