//go:build unix

package findings

import "golang.org/x/sys/unix"

// FreeSpace is what this user may still write to the file system of a folder, in bytes.
func FreeSpace(dir string) (uint64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, err
	}
	// On FreeBSD the count is signed: it is below zero where root has written into what is kept for it.
	return uint64(max(int64(st.Bavail), 0)) * uint64(st.Bsize), nil //nolint:gosec // a block size is positive, and no disk has 2^63 blocks
}
