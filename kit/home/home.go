package home

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/google/renameio/v2"
	"github.com/shallot-net/shallot/kit/fault"
)

// MaxSocketPath is how long the path of a Unix socket may be on Linux, without its terminating zero.
const MaxSocketPath = 107

// nameRoom is what a socket's file name may take: "/" + process + ".sock". The choice of directory must not
// depend on the process, or two processes of one node would look in two places.
const nameRoom = 32

// Home is the directory of one node. The zero value is not usable: call Open or Find.
type Home struct {
	Dir string // absolute
	run string
}

// Open makes the directory (0700) and what is in it where missing.
func Open(dir string) (Home, error) {
	abs, err := absolute(dir)
	if err != nil {
		return Home{}, err
	}
	if err := whole(abs); err != nil {
		return Home{}, err
	}
	for _, d := range []string{abs, filepath.Join(abs, "state")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return Home{}, unusable("make the home directory", d, err)
		}
	}
	run, err := openRun(abs)
	return Home{Dir: abs, run: run}, err
}

// RestoringFile is in a home while what a backup holds is written into it. It is there after a restore that was broken off, too.
func RestoringFile(dir string) string { return filepath.Join(dir, "state", "restoring.json") }

// whole refuses a home of which a part may be missing: a node would begin without its tasks, or with another identity.
func whole(abs string) error {
	if _, err := os.Lstat(RestoringFile(abs)); err == nil {
		return fault.FailedPrecondition("HOME_RESTORING", "%s is being restored, or a restore was broken off, as %s says: wait for it, or give 'shallot restore' again, which begins anew", abs, RestoringFile(abs))
	}
	return nil
}

// Find is Open for those who only look: it makes nothing, and a directory that is not there is NOT_FOUND.
func Find(dir string) (Home, error) {
	abs, err := absolute(dir)
	if err != nil {
		return Home{}, err
	}
	if info, err := os.Stat(abs); err != nil || !info.IsDir() {
		return Home{}, fault.NotFound("HOME_NOT_FOUND", "there is no node in %s: no such directory", abs)
	}
	if target, err := os.Readlink(filepath.Join(abs, "run")); err == nil {
		return Home{Dir: abs, run: target}, nil
	}
	return Home{Dir: abs, run: runDir(abs)}, nil
}

func absolute(dir string) (string, error) {
	if dir == "" {
		return "", fault.InvalidArgument("HOME_MISSING", "no home directory given: say which node with --home DIR")
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", fault.InvalidArgument("HOME_UNUSABLE", "cannot resolve the home directory %q", dir).Because(err)
	}
	return abs, nil
}

// runDir is where sockets go: in the home where their paths fit, else in a short directory of this user's,
// named after the home.
func runDir(abs string) string {
	own := filepath.Join(abs, "run")
	if len(own)+nameRoom <= MaxSocketPath {
		return own
	}
	base := os.Getenv("XDG_RUNTIME_DIR")
	if base == "" || !filepath.IsAbs(base) || len(base) > 40 {
		base = os.TempDir()
	}
	sum := sha256.Sum256([]byte(abs))
	return filepath.Join(base, "shallot-"+strconv.Itoa(os.Getuid()), hex.EncodeToString(sum[:6]))
}

// openRun makes the socket directory. A short one is remembered as the symbolic link run, because another
// process of the same node may have another XDG_RUNTIME_DIR.
func openRun(abs string) (string, error) {
	own, want := filepath.Join(abs, "run"), runDir(abs)
	if want == own {
		return own, private(own)
	}
	if target, err := os.Readlink(own); err == nil {
		if private(filepath.Dir(target)) == nil && private(target) == nil {
			return target, nil
		}
	}
	for _, d := range []string{filepath.Dir(want), want} {
		if err := private(d); err != nil {
			return "", err
		}
	}
	if err := renameio.Symlink(want, own); err != nil {
		return "", fault.FailedPrecondition("HOME_UNUSABLE", "cannot make the link %s", own).Because(err)
	}
	return want, nil
}

// private makes a directory that only this user can enter, or checks that it is one: whoever owns the
// directory could put his own socket there.
func private(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return unusable("make the directory for sockets", dir, err)
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return fault.FailedPrecondition("HOME_UNUSABLE", "cannot look at %s", dir).Because(err)
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !info.IsDir() || !ok || int(st.Uid) != os.Geteuid() || info.Mode().Perm()&0o022 != 0 {
		return fault.FailedPrecondition("HOME_UNSAFE", "%s is not a directory that only this user can write to: remove it or use another home", dir)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return os.Chmod(dir, 0o700)
	}
	return nil
}

// State is the directory of one process's own files; it is made (0700) where missing. A failure to make it
// shows when a file is opened in it.
func (h Home) State(process string) string {
	dir := filepath.Join(h.Dir, "state", process)
	_ = os.MkdirAll(dir, 0o700)
	return dir
}

// Socket is the path of a process's Unix socket: the same for every process that opens this home.
func (h Home) Socket(process string) string { return filepath.Join(h.run, process+".sock") }

// Endpoint is Socket in the form that kit/rpc takes.
func (h Home) Endpoint(process string) string { return "unix:" + h.Socket(process) }

// leftoverAfter is from which age on a half-written file is nobody's any more.
const leftoverAfter = time.Hour

// WriteFile replaces a file at once and durably: after a crash it has either the old or the new bytes. Until then they are in a file beside it, never in the
// machine's directory for temporary files: who is killed meanwhile would leave keys and addresses where nobody looks for them. What was left so is removed later.
func WriteFile(path string, data []byte, perm fs.FileMode) error {
	removeLeftovers(path)
	if err := renameio.WriteFile(path, data, perm, renameio.WithTempDir(filepath.Dir(path))); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("sync the directory of %s: %w", path, err)
	}
	defer dir.Close()
	if err := dir.Sync(); err != nil { // without it the rename itself may be lost
		return fmt.Errorf("sync the directory of %s: %w", path, err)
	}
	return nil
}

// removeLeftovers removes half-written files of path, of processes that were killed: a dot, its name and a number.
func removeLeftovers(path string) {
	dir, name := filepath.Split(path)
	entries, err := os.ReadDir(filepath.Clean(dir))
	if err != nil {
		return // writing will say why
	}
	for _, e := range entries {
		number, ok := strings.CutPrefix(e.Name(), "."+name)
		if _, err := strconv.ParseUint(number, 10, 64); !ok || err != nil || !e.Type().IsRegular() {
			continue
		}
		if info, err := e.Info(); err == nil && time.Since(info.ModTime()) > leftoverAfter {
			_ = os.Remove(filepath.Join(dir, e.Name()))
		}
	}
}
