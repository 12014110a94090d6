//go:build linux || darwin

package run

import "syscall"

// freeSpace is what this user may still write to the file system of a folder; 0: not known.
func freeSpace(dir string) uint64 {
	var st syscall.Statfs_t
	if syscall.Statfs(dir, &st) != nil {
		return 0
	}
	return st.Bavail * uint64(st.Bsize) //nolint:gosec // a block size is positive
}
