package supervisor

import (
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// A node that has more callers than it can take now is there all the same; a socket that a dead one left is not.
func TestBusyNodeAnswers(t *testing.T) {
	dir, err := os.MkdirTemp("", "shallot") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "s")
	if answers(path) {
		t.Error("where no socket is nobody answers")
	}
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Bind(fd, &syscall.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
	if answers(path) {
		t.Error("where nobody listens nobody answers")
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	for range 4 { // more than may wait
		if c, err := net.Dial("unix", path); err == nil {
			defer c.Close()
		}
	}
	if _, err := net.Dial("unix", path); err == nil {
		t.Fatal("there is room for more callers: the test shows nothing")
	}
	if !answers(path) {
		t.Error("a busy node is taken for one that is down")
	}
	if err := syscall.Close(fd); err != nil {
		t.Fatal(err)
	}
	if answers(path) {
		t.Error("what a dead node left answers")
	}
}
