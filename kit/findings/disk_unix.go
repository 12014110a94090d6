//go:build unix

package findings

import "golang.org/x/sys/unix"

// FreeSpace is what this user may still write to the file system of a folder, in bytes.
func FreeSpace(dir string) (uint64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, err
	}
	return st.Bavail * uint64(st.Bsize), nil //nolint:gosec // a block size is positive
}
