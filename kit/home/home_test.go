package home_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/home"
)

func open(t *testing.T, dir string) home.Home {
	t.Helper()
	h, err := home.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func mode(t *testing.T, path string) os.FileMode {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Mode().Perm()
}

func TestShortHomeKeepsItsSockets(t *testing.T) {
	dir, err := os.MkdirTemp("", "h")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	h := open(t, filepath.Join(dir, "node"))
	if got := h.Endpoint("task"); got != "unix:"+filepath.Join(dir, "node", "run", "task.sock") {
		t.Error(got)
	}
	if mode(t, h.State("task")) != 0o700 || mode(t, filepath.Dir(h.Socket("task"))) != 0o700 || mode(t, h.Dir) != 0o700 {
		t.Error("others can look in")
	}
}

func TestLongHomeHasShortSocketsThatAllFind(t *testing.T) {
	runtime := t.TempDir()
	if len(runtime) > 40 {
		runtime = "/tmp"
	}
	t.Setenv("XDG_RUNTIME_DIR", runtime)
	dir := filepath.Join(t.TempDir(), strings.Repeat("long", 30))
	h := open(t, dir)
	socket := h.Socket("discovery-of-a-long-name")
	if len(socket) > home.MaxSocketPath || strings.HasPrefix(socket, dir) || mode(t, filepath.Dir(socket)) != 0o700 {
		t.Fatal(socket)
	}
	t.Cleanup(func() { _ = os.RemoveAll(filepath.Dir(socket)) })
	t.Setenv("XDG_RUNTIME_DIR", "") // a process started otherwise
	found, err := home.Find(dir)
	if err != nil || found.Socket("task") != h.Socket("task") || open(t, dir).Socket("task") != h.Socket("task") {
		t.Errorf("%v %v: another process looks elsewhere", found, err)
	}
	// After a reboot the short directory is gone.
	if err := os.Remove(filepath.Dir(socket)); err != nil {
		t.Fatal(err)
	}
	if mode(t, filepath.Dir(open(t, dir).Socket("task"))) != 0o700 {
		t.Error("not made again")
	}
	if other := open(t, dir+"2"); other.Socket("task") == h.Socket("task") {
		t.Error("two homes share a socket")
	}
}

func TestUnsafeSocketDirectoryIsRefused(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink(t.TempDir(), filepath.Join(dir, "run")); err != nil {
		t.Fatal(err)
	}
	if _, err := home.Open(dir); fault.From(err) == nil || fault.From(err).Reason != "HOME_UNSAFE" {
		t.Errorf("got %v", err)
	}
}

func TestFindMakesNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "missing")
	if _, err := home.Find(dir); fault.From(err) == nil || fault.From(err).Code != codes.NotFound {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("made it")
	}
	if _, err := home.Open(""); err == nil {
		t.Error("an empty home was accepted")
	}
}

func TestLockNamesItsHolder(t *testing.T) {
	h := open(t, t.TempDir())
	release, err := h.Lock("task")
	if err != nil {
		t.Fatal(err)
	}
	// flock is per open file, so this process can play the second one too.
	_, err = h.Lock("task")
	f := fault.From(err)
	if f == nil || f.Reason != "HOME_IN_USE" || f.Meta["file"] != filepath.Join(h.State("task"), "lock") || f.Meta["pid"] == "unknown" {
		t.Fatalf("got %+v", f)
	}
	if other, err := h.Lock("node"); err != nil {
		t.Error(err)
	} else {
		other()
	}
	release()
	release, err = h.Lock("task")
	if err != nil {
		t.Fatal(err)
	}
	release()
}

func TestReplicasHavePlacesOfTheirOwn(t *testing.T) {
	h := open(t, t.TempDir())
	dirs := make([]string, 3)
	releases := make([]func(), 3)
	for i := range dirs {
		var err error
		if dirs[i], releases[i], err = h.LockReplica("task"); err != nil {
			t.Fatal(err)
		}
	}
	if dirs[0] == dirs[1] || dirs[1] == dirs[2] || filepath.Dir(dirs[0]) != h.State("task") {
		t.Fatal(dirs)
	}
	releases[1]()
	again, release, err := h.LockReplica("task") // finds what the one had that has gone
	if err != nil || again != dirs[1] {
		t.Fatalf("%s, %v", again, err)
	}
	release()
	releases[0]()
	releases[2]()
}

func TestLockEndsWithItsProcess(t *testing.T) {
	if dir := os.Getenv("HOLD_HOME"); dir != "" {
		if _, err := open(t, dir).Lock("task"); err != nil {
			t.Fatal(err)
		}
		_, _ = os.Stdout.WriteString("held\n")
		select {}
	}
	h := open(t, t.TempDir())
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^TestLockEndsWithItsProcess$")
	cmd.Env = append(os.Environ(), "HOLD_HOME="+h.Dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for line, buf := []byte{}, make([]byte, 64); !bytes.Contains(line, []byte("held")); {
		n, err := out.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		line = append(line, buf[:n]...)
	}
	if _, err := h.Lock("task"); err == nil {
		t.Error("two processes hold it")
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	release, err := h.Lock("task")
	if err != nil {
		t.Fatal(err)
	}
	release()
}

func TestWriteFileReplaces(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	for _, text := range []string{"old and longer", "new"} {
		if err := home.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != "new" || mode(t, path) != 0o600 {
		t.Errorf("%q, %v", got, err)
	}
	if err := home.WriteFile(filepath.Join(path, "x"), nil, 0o600); err == nil {
		t.Error("no error")
	}
}

// Whoever is killed while it writes leaves what it wrote in the home, and not where the machine has temporary files; there it goes with a later write.
func TestWriteFileStaysInItsDirectory(t *testing.T) {
	tmp, dir := t.TempDir(), t.TempDir()
	t.Setenv("TMPDIR", tmp)
	long := time.Now().Add(-24 * time.Hour).Truncate(time.Second)
	old := map[string]bool{".keys123": false, ".keys": true, ".keys12x": true, ".other123": true, "keys123": true} // whether it stays
	for name := range old {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(filepath.Join(dir, name), long, long); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, ".keys456"), nil, 0o600); err != nil { // of somebody who writes just now
		t.Fatal(err)
	}
	old[".keys456"] = true
	if err := os.Chtimes(tmp, long, long); err != nil {
		t.Fatal(err)
	}
	if err := home.WriteFile(filepath.Join(dir, "keys"), []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(tmp); err != nil || !info.ModTime().Equal(long) { // a file that comes and goes changes it
		t.Errorf("something was made in the directory for temporary files at %v: %v", info.ModTime(), err)
	}
	for name, stays := range old {
		if _, err := os.Stat(filepath.Join(dir, name)); (err == nil) != stays {
			t.Errorf("%s stays: %v, want %v", name, err == nil, stays)
		}
	}
}

// No process begins on a home of which a part may be missing.
func TestAHomeThatIsBeingRestoredIsRefused(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "h")
	h, err := home.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(home.RestoringFile(h.Dir), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := home.Open(dir); !errors.Is(err, fault.FailedPrecondition("HOME_RESTORING", "")) {
		t.Fatalf("it is opened: %v", err)
	}
	if err := os.Remove(home.RestoringFile(h.Dir)); err != nil {
		t.Fatal(err)
	}
	if _, err := home.Open(dir); err != nil {
		t.Fatal(err)
	}
}

// What a later version writes in another way is not misread, whatever process it is of.
func TestFilesOfANewerVersionAreRefused(t *testing.T) {
	t.Parallel()
	h := open(t, filepath.Join(t.TempDir(), "h"))
	path := filepath.Join(h.State("metric"), "format")
	lock := func() error {
		release, err := h.Lock("metric")
		if err == nil {
			release()
			var again func()
			if _, again, err = h.LockReplica("metric"); err == nil {
				again()
			}
		}
		return err
	}
	for text, reason := range map[string]string{"1\n": "", "2\n": "STORE_NEWER", "": "STORE_CORRUPT", "many": "STORE_CORRUPT", "-1": "STORE_CORRUPT"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		err := lock()
		if reason == "" && err != nil || reason != "" && (!errors.Is(err, fault.FailedPrecondition(reason, "")) || !strings.Contains(err.Error(), h.State("metric"))) {
			t.Errorf("%q: %v, want %s", text, err, reason)
		}
	}
}
