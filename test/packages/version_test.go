package packages

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shallot-net/shallot/test/internal/release"
)

// TestACommitHasAName: of a clone with tags and without, of one with changes, and of an archive that knows nothing of git.
func TestACommitHasAName(t *testing.T) {
	dir := t.TempDir()
	text, err := os.ReadFile(filepath.Join(release.Top(t), "deploy", "release", "version.sh"))
	if err == nil {
		err = os.MkdirAll(filepath.Join(dir, "deploy", "release"), 0o700)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "deploy", "release", "version.sh"), text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	run := func(program string, args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), program, args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GIT_CEILING_DIRECTORIES="+filepath.Dir(dir), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1", "TZ=Asia/Tokyo",
			"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.net", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.net",
			"GIT_AUTHOR_DATE=2023-11-14T22:13:20Z", "GIT_COMMITTER_DATE=2023-11-14T22:13:20Z")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s %v: %v\n%s", program, args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	is := func(want string) {
		t.Helper()
		if got := run("bash", "deploy/release/version.sh"); got != want {
			t.Errorf("it is %q, not %q", got, want)
		}
	}
	is("unknown")
	run("git", "init", "--quiet")
	is("unknown") // there is no commit
	run("git", "add", ".")
	run("git", "commit", "--quiet", "--message", "first")
	first := "v0.0.0-20231114221320-" + run("git", "rev-parse", "HEAD")[:12]
	is(first)
	run("git", "tag", "nightly")
	is(first) // that is no version
	run("git", "tag", "v1.2.3")
	is("v1.2.3")
	run("git", "commit", "--quiet", "--allow-empty", "--message", "second")
	is("v1.2.3-1-g" + run("git", "rev-parse", "HEAD")[:12])
	if err := os.WriteFile(filepath.Join(dir, "deploy", "release", "version.sh"), append(text, "# a change\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	is("v1.2.3-1-g" + run("git", "rev-parse", "HEAD")[:12] + "-dirty")
	run("git", "tag", "--delete", "v1.2.3")
	is("v0.0.0-20231114221320-" + run("git", "rev-parse", "HEAD")[:12] + "-dirty")
}
