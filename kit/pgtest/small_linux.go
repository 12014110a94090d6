package pgtest

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// SmallDatabase moves a database to a file system of its own of so many MiB, about 8 of which it takes when empty. It needs root: the test is left out where there is none.
func (s *Server) SmallDatabase(t testing.TB, name string, mib int) {
	t.Helper()
	dir := filepath.Join(s.Dir, "small-"+name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%dm,mode=0700", mib)); err != nil {
		t.Skipf("left out: a small file system cannot be mounted (%v); to have it, run the tests as root", err)
	}
	t.Cleanup(func() {
		s.Exec(t, `DROP DATABASE `+name+` WITH (FORCE)`, `DROP TABLESPACE small_`+name)
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	if s.as != nil {
		if err := os.Chown(dir, int(s.as.Uid), int(s.as.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	s.Exec(t, `CREATE TABLESPACE small_`+name+` LOCATION '`+dir+`'`, `ALTER DATABASE `+name+` SET TABLESPACE small_`+name)
}
