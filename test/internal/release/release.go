// Package release builds the programs of the previous release, for tests of upgrades.
package release

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// buildTimeout bounds a build, which takes a minute where most of what it needs has been compiled already.
const buildTimeout = 10 * time.Minute

var commitShaped = regexp.MustCompile(`^[0-9a-f]{40}$`)

// Top is the root of the repository that the working directory is in.
func Top(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ; dir != "/"; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.work")); err == nil {
			return dir
		}
	}
	t.Fatal("the working directory is in no repository")
	return ""
}

// Programs returns the folder of the previous release's programs (deploy/PREVIOUS_RELEASE), built once into .cache/releases. Where its commit is not here, as in a shallow clone, the test is left
// out; in CI that is a failure.
func Programs(t testing.TB) string {
	t.Helper()
	top := Top(t)
	b, err := os.ReadFile(filepath.Join(top, "deploy", "PREVIOUS_RELEASE"))
	if err != nil {
		t.Fatal(err)
	}
	commit := strings.TrimSpace(string(b))
	if !commitShaped.MatchString(commit) {
		t.Fatalf("deploy/PREVIOUS_RELEASE has %q and not a commit of 40 hex digits", commit)
	}
	dir := filepath.Join(top, ".cache", "releases", commit)
	if built(dir) {
		return filepath.Join(dir, "bin")
	}
	if err := exec.CommandContext(t.Context(), "git", "-C", top, "cat-file", "-e", commit+"^{commit}").Run(); err != nil {
		missing := "the commit " + commit + " of deploy/PREVIOUS_RELEASE is not here; to get it: git fetch --unshallow, in a clone and not an archive"
		if os.Getenv("CI") == "true" {
			t.Fatal(missing)
		}
		t.Skip("left out: " + missing)
	}
	if err := build(t, top, commit, dir); err != nil {
		t.Fatalf("build the previous release: %v", err)
	}
	return filepath.Join(dir, "bin")
}

func built(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "bin", "shallot"))
	return err == nil
}

// build makes them as that release did, in a folder of its own, and puts them into their place at once. Of several test programs one builds and the others wait.
func build(t testing.TB, top, commit, dir string) error {
	t.Helper()
	cache := filepath.Dir(dir)
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return err
	}
	lock, err := os.OpenFile(filepath.Join(cache, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := flock(lock); err != nil {
		return err
	}
	if built(dir) {
		return nil
	}
	ctx, cancel := context.WithTimeout(t.Context(), buildTimeout)
	defer cancel()
	source, err := os.MkdirTemp(cache, "source-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(source)
	begin := time.Now()
	for _, c := range []*exec.Cmd{
		exec.CommandContext(ctx, "bash", "-c", `set -o pipefail; git -C "$1" archive --format=tar "$2" | tar -x -C "$3"`, "bash", top, commit, source),
		exec.CommandContext(ctx, "make", "-C", source, "build", "VERSION="+commit[:7]),
	} {
		c.Env = append(os.Environ(), "MAKEFLAGS=", "MAKELEVEL=")
		if out, err := c.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w\n%s", filepath.Base(c.Path), err, out)
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	if err := os.Rename(filepath.Join(source, "bin"), filepath.Join(dir, "bin")); err != nil {
		return err
	}
	t.Logf("the programs of the previous release were built in %v", time.Since(begin).Round(time.Second))
	return nil
}

func flock(f *os.File) error {
	for {
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
