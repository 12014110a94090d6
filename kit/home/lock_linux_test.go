package home_test

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// A process that is just being started has every descriptor of its parent until its program begins.
func TestLockThatIsReleasedIsFreeThoughAnotherHasItsDescriptor(t *testing.T) {
	h := open(t, t.TempDir())
	release, err := h.Lock("task")
	if err != nil {
		t.Fatal(err)
	}
	links, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	copied := -1
	for _, l := range links {
		if target, err := os.Readlink(l); err == nil && target == filepath.Join(h.State("task"), "lock") {
			fd, err := strconv.Atoi(filepath.Base(l))
			if err != nil {
				t.Fatal(err)
			}
			if copied, err = unix.Dup(fd); err != nil {
				t.Fatal(err)
			}
		}
	}
	if copied < 0 {
		t.Fatal("the lock's descriptor was not found")
	}
	defer unix.Close(copied)
	release()
	again, err := h.Lock("task")
	if err != nil {
		t.Fatal(err)
	}
	again()
}
