//go:build unix

package backup

import (
	"io/fs"
	"os"
	"syscall"
)

// ownedBy tells whose a file is, and whether it is this user's.
func ownedBy(info fs.FileInfo) (uid uint32, own bool) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return st.Uid, int(st.Uid) == os.Geteuid()
}
