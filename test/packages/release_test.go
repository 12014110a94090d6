package packages

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shallot-net/shallot/test/internal/release"
)

// TestTwoReleasesAreTheSame builds this commit from two copies of it in different folders, the second time without anything that was compiled before. It is `make test-release`.
func TestTwoReleasesAreTheSame(t *testing.T) {
	if os.Getenv("SHALLOT_RELEASE") == "" {
		t.Skip("it builds everything twice, which takes a quarter of an hour or more: make test-release")
	}
	needDpkg(t)
	top := release.Top(t)
	out := map[string]map[string]string{}
	for _, at := range []string{"first", "second/in/another/folder"} {
		dir := filepath.Join(t.TempDir(), at)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if msg, err := exec.CommandContext(t.Context(), "bash", "-c", `set -o pipefail; git -C "$1" archive --format=tar HEAD | tar -x -C "$2"`, "bash", top, dir).CombinedOutput(); err != nil {
			t.Fatalf("copy the commit: %v\n%s", err, msg)
		}
		cmd := exec.CommandContext(t.Context(), filepath.Join(dir, "deploy", "release", "release.sh"), filepath.Join(dir, "dist"), "v0.0.0-test")
		cmd.Env = append(os.Environ(), "SOURCE_DATE_EPOCH="+epoch, "MAKEFLAGS=", "MAKELEVEL=")
		if len(out) > 0 {
			cmd.Env = append(cmd.Env, "GOCACHE="+t.TempDir(), "CHECKED=")
		} else {
			cmd.Env = append(cmd.Env, "CHECKED=")
		}
		begin := time.Now()
		if msg, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", at, err, msg)
		}
		t.Logf("%s: made in %v", at, time.Since(begin).Round(time.Second))
		out[at] = sums(t, filepath.Join(dir, "dist"))
		check := exec.CommandContext(t.Context(), "sha256sum", "--check", "--strict", "SHA256SUMS")
		check.Dir = filepath.Join(dir, "dist")
		if msg, err := check.CombinedOutput(); err != nil {
			t.Errorf("the checksums of the %s release are not those of its files: %v\n%s", at, err, msg)
		}
	}
	first := out["first"]
	if len(first) < 4 {
		t.Errorf("a release has only %d files", len(first))
	}
	for name, sum := range first {
		if other := out["second/in/another/folder"][name]; other != sum {
			t.Errorf("%s is %s the first time and %s the second", name, sum, other)
		}
		t.Log(strings.TrimSpace(sum + "  " + name))
	}
}
