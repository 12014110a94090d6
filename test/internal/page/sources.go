package page

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Sources makes dir a copy of this repository as git would give it, with what is changed and not committed; top is the repository's folder. Others may read it.
func Sources(top, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // a container's user looks in
		return err
	}
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // the same
		return err
	}
	cmd := exec.Command("bash", "-euo", "pipefail", "-c",
		`git ls-files -z --cached --others --exclude-standard | xargs -0 sh -c 'for f; do [ ! -e "$f" ] || printf "%s\0" "$f"; done' sh | tar --null -T - -c | tar -x -C "$0"`, dir)
	cmd.Dir = top
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("copy the sources: %w, %s", err, out)
	}
	return nil
}

// Repository makes dir a git repository of one commit with the sources, to clone from.
func Repository(top, dir string) error {
	if err := Sources(top, dir); err != nil {
		return err
	}
	cmd := exec.Command("bash", "-euo", "pipefail", "-c", "git init -q -b main && git add -A -f && git -c user.name=test -c user.email=test@localhost -c commit.gpgsign=false commit -q -m sources")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("make a repository of the sources: %w, %s", err, out)
	}
	return nil
}

// Built makes links in dir/bin to the programs in bin, so that a page can begin where `make build` ended.
func Built(bin, dir string) error {
	return os.Symlink(bin, filepath.Join(dir, "bin"))
}
