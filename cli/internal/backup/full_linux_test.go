package backup_test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shallot-net/shallot/cli/internal/backup"
	"github.com/shallot-net/shallot/kit/home"
)

// small is a file system of its own, of so many KiB.
func small(t *testing.T, kib string) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "mode=0700,size="+kib+"k"); err != nil {
		t.Skipf("left out: a small file system cannot be mounted (%v); to have it, run the tests as root", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// A disk without room is said with the path, for files, for a store that SQLite writes, and for a home; and nothing is left that could be taken for whole.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	h := node(t)
	db := openDB(t, filepath.Join(h.Dir, "state/task/task.db"))
	if _, err := db.Exec("INSERT INTO tasks VALUES (?)", strings.Repeat("x", 1<<20)); err != nil {
		t.Fatal(err)
	}
	for kib, want := range map[string]string{"100": "BACKUP_FULL", "1000": "STORE_FULL"} {
		dir := small(t, kib)
		_, err := backup.Create(t.Context(), backup.Source{Home: h, Now: time.Now}, dir)
		if got := reasonOf(err); got != want || !strings.Contains(err.Error(), dir) {
			t.Errorf("with %s KiB: %s: %v", kib, got, err)
		}
		if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
			t.Errorf("with %s KiB: %v is left, %v", kib, entries, err)
		}
	}
	if _, err := db.Exec("DELETE FROM tasks WHERE id != 'waiting'"); err != nil {
		t.Fatal(err)
	}
	dir, to := filepath.Join(t.TempDir(), "b"), small(t, "200")
	create(t, h, dir)
	if err := restore(t, to, dir); reasonOf(err) != "HOME_FULL" || !strings.Contains(err.Error(), to) {
		t.Errorf("a home without room: %v", err)
	}
	if _, err := os.Lstat(home.RestoringFile(to)); err == nil {
		t.Error("the home is left as one that is being restored")
	}
	if _, err := os.Lstat(filepath.Join(to, "state/broker/identity.pem")); err == nil {
		t.Error("a part of the node is left")
	}
	if err := syscall.Mount("tmpfs", to, "tmpfs", syscall.MS_REMOUNT, "mode=0700,size=16m"); err != nil {
		t.Fatal(err)
	}
	if err := restore(t, to, dir); err != nil {
		t.Fatal(err)
	}
	same(t, to)
}
