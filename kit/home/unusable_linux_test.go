package home_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/home"
)

// TestMain lets the test play a process that another user starts.
func TestMain(m *testing.M) {
	if dir := os.Getenv("HOME_TEST_LOCK"); dir != "" {
		h, err := home.Open(dir)
		if err == nil {
			_, err = h.Lock("task")
		}
		if err != nil {
			_, _ = os.Stderr.WriteString(err.Error())
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// Whoever gives a process a volume that it cannot use is told which, and what to do.
func TestVolumesThatCannotBeUsed(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("left out: other users, and file systems of its own, take root")
	}
	dir, err := os.MkdirTemp("", "volumes")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // the other user has to get to it
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		prepare string // in a mount namespace of its own, as root; "$1" is the home
		want    []string
	}{
		"of another user":          {`mkdir -p "$1/run" "$1/state/task"; chown 12345 "$1" "$1/run" "$1/state"; chmod 700 "$1/state/task"`, []string{"/state/task belongs to user 0 and this process is user 12345", "chown -R 12345"}},
		"all of it of another":     {`mkdir -p "$1/run" "$1/state"; chown 12345 "$1" "$1/run"; chmod 700 "$1/state"`, []string{"/state belongs to user 0", "chown -R 12345"}},
		"read-only":                {`mkdir -p "$1/run" "$1/state"; chown -R 12345 "$1"; mount --bind "$1/state" "$1/state"; mount -o remount,ro,bind "$1/state"`, []string{"/state/task: its file system is read-only"}},
		"full":                     {`mkdir -p "$1/run" "$1/state"; chown -R 12345 "$1"; mount -t tmpfs -o size=4k,nr_inodes=1,uid=12345,mode=700 none "$1/state"`, []string{"/state/task: there is no space left"}},
		"a home of another's only": {`mkdir -p "$1"; chmod 700 "$1"`, []string{"belongs to user 0 and this process is user 12345"}},
	} {
		t.Run(name, func(t *testing.T) {
			at := filepath.Join(dir, strings.ReplaceAll(name, " ", "-"))
			program := filepath.Join(dir, "program")
			if err := exec.Command("cp", os.Args[0], program).Run(); err != nil { //nolint:gosec // this very program
				t.Fatal(err)
			}
			script := c.prepare + ` && HOME_TEST_LOCK="$1" setpriv --reuid=12345 --clear-groups "$2"`
			out, err := exec.CommandContext(t.Context(), "unshare", "--mount", "sh", "-c", script, "sh", at, program).CombinedOutput()
			if err == nil || strings.Count(strings.TrimSpace(string(out)), "\n") > 0 {
				t.Fatalf("it went, or said more than a line: %s", out)
			}
			for _, want := range c.want {
				if !strings.Contains(string(out), want) {
					t.Errorf("it says %s, and not %q", out, want)
				}
			}
		})
	}
}

func TestAFileInTheWay(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "state"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := home.Open(dir)
	if f := fault.From(err); f == nil || f.Reason != "HOME_UNUSABLE" || !strings.Contains(err.Error(), filepath.Join(dir, "state")) {
		t.Errorf("got %v", err)
	}
}
