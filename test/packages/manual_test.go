package packages

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/shallot-net/shallot/test/internal/dev"
	"github.com/shallot-net/shallot/test/internal/release"
)

// TestManualPagesOfPrograms: each program of a release has one, out of what it says of itself, and man has nothing to say against any.
func TestManualPagesOfPrograms(t *testing.T) {
	man, err := exec.LookPath("man")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("man is missing: apt-get install man-db")
		}
		t.Skip("left out: manual pages, because man is missing (apt-get install man-db)")
	}
	bin, err := dev.Bin()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := exec.CommandContext(t.Context(), "go", "run", "./internal/reference", "-man", dir, "-programs", bin, "-version", "v1.2.3")
	write.Dir = filepath.Join(release.Top(t), "cli")
	write.Env = append(os.Environ(), "GOWORK=off", "SOURCE_DATE_EPOCH="+epoch)
	if out, err := write.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	pages, err := filepath.Glob(filepath.Join(dir, "*.[18]"))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range programs {
		if !slices.Contains(pages, filepath.Join(dir, manual(p))) {
			t.Errorf("%s has no page", p)
		}
	}
	for _, page := range pages {
		cmd := exec.CommandContext(t.Context(), man, "--warnings", "--encoding=UTF-8", "--local-file", page)
		cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "MANWIDTH=80", "MANPAGER=cat", "PAGER=cat", "MANOPT=", "MANROFFOPT=")
		var said, wrong strings.Builder
		cmd.Stdout, cmd.Stderr = &said, &wrong
		if err := cmd.Run(); err != nil || wrong.Len() > 0 {
			t.Errorf("%s: %v, %s", filepath.Base(page), err, wrong.String())
		}
		if !strings.Contains(said.String(), "SYNOPSIS") || !strings.Contains(said.String(), "v1.2.3") {
			t.Errorf("%s is set as\n%s", filepath.Base(page), said.String())
		}
	}
}
