// Package kubo runs a real Kubo beside Shallot's nodes: the IPFS that others use, for tests and measurements. It talks to nobody but
// those that it is told to connect to.
package kubo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// Version is of Kubo's release.
const Version = "v0.43.1"

// A replacement inside Kubo's own go.mod is not inherited by who requires it, so the libp2p that it is released with is named, too.
const manifest = `module kubo

go 1.26.0

require (
	github.com/ipfs/kubo ` + Version + `
	github.com/libp2p/go-libp2p v0.51.0
)
`

// ErrUnavailable says that Kubo cannot be built here: without the module proxy, for example.
var ErrUnavailable = errors.New("there is no Kubo here")

// Build returns the path of the program, which is built the first time and kept in the folder .cache of the repository: it takes
// minutes. Whoever else builds it meanwhile is waited for.
func Build(ctx context.Context) (string, error) {
	cache, err := cacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "kubo-"+Version)
	program := filepath.Join(dir, "ipfs")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	if _, err := os.Stat(program); err == nil {
		return program, nil
	}
	if err := build(ctx, dir, program); err != nil {
		return "", fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return program, nil
}

func build(ctx context.Context, dir, program string) error {
	work, err := os.MkdirTemp(dir, "build")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	if err := os.WriteFile(filepath.Join(work, "go.mod"), []byte(manifest), 0o644); err != nil {
		return err
	}
	made := filepath.Join(work, "ipfs")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", made, "github.com/ipfs/kubo/cmd/ipfs")
	cmd.Dir = work
	cmd.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOWORK=off", "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build Kubo %s: %w\n%s", Version, err, tail(out))
	}
	return os.Rename(made, program)
}

// cacheDir is the repository's, from wherever inside of it.
func cacheDir() (string, error) {
	wd, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for dir := wd; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.work")); err == nil {
			return filepath.Join(dir, ".cache"), nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("%s is not inside of the repository: no go.work above it", wd)
		}
	}
}

func tail(b []byte) string {
	const most = 4000
	s := strings.TrimSpace(string(b))
	if len(s) > most {
		s = "…" + s[len(s)-most:]
	}
	return s
}
