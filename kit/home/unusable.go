package home

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/shallot-net/shallot/kit/fault"
)

// unusable says what a process could not do with a file of the home, and what mends it: somebody else's volume, a full one and one that cannot be written are what
// whoever sets a node up meets first.
func unusable(what, path string, err error) *fault.Error {
	return fault.FailedPrecondition("HOME_UNUSABLE", "cannot %s %s: %s", what, path, mend(path, err)).Because(err)
}

func mend(path string, err error) string {
	switch {
	case errors.Is(err, syscall.EROFS):
		return "its file system is read-only, so mount it in a way that it can be written"
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return "there is no space left, so free some on its file system"
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		dir, owner := foreign(path)
		if dir == "" {
			return "this process may not, so look at the modes and the owners of the directories above it"
		}
		return fmt.Sprintf("%s belongs to user %d and this process is user %d, so give it away (chown -R %d %s) or start this as the other", dir, owner, os.Geteuid(), os.Geteuid(), dir)
	}
	return "see that its directory is there and can be written"
}

// foreign is the uppermost of a path's directories from which on this user owns nothing, and whose it is: "" when there is none that can be seen.
func foreign(path string) (dir string, owner uint32) {
	for p := path; ; p = filepath.Dir(p) {
		if info, err := os.Stat(p); err == nil {
			st, ok := info.Sys().(*syscall.Stat_t)
			if !ok || int(st.Uid) == os.Geteuid() || p == filepath.Dir(p) || info.Mode().Perm()&0o001 != 0 && dir != "" {
				return dir, owner
			}
			dir, owner = p, st.Uid
		}
		if p == filepath.Dir(p) {
			return dir, owner
		}
	}
}
