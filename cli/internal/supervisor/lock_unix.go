//go:build unix

package supervisor

import (
	"os"

	"golang.org/x/sys/unix"
)

// Held tells whether a process holds the lock file of kit/home. A free lock is taken for a moment, shared.
func Held(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	return unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB) != nil
}
