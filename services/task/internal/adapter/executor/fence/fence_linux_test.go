package fence

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// asChild names the variable with the root of a process that is to try its own fences.
const asChild = "SHALLOT_FENCE_TEST_ROOT"

func TestMain(m *testing.M) {
	if root := os.Getenv(asChild); root != "" {
		if err := try(root); err != nil {
			fmt.Println("failed:", err)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// try raises the fences and prints a line for each thing that could be done behind them.
func try(root string) error {
	if err := os.Chdir(root); err != nil {
		return err
	}
	held, err := Raise(Config{Root: root, ReadOnly: []string{"run"}, Writable: []string{"out"}, Files: 64, FileSize: 1 << 10, CPUSeconds: 60})
	if err != nil {
		return err
	}
	fmt.Println("held:", strings.Join(held, " "))
	for name, f := range attempts(root) {
		if err := f(); err == nil {
			fmt.Println("did:", name)
		}
	}
	return nil
}

func attempts(root string) map[string]func() error {
	opens := func(path string, flags int) func() error {
		return func() error {
			f, err := os.OpenFile(path, flags, 0o600)
			if err == nil {
				_ = f.Close()
			}
			return err
		}
	}
	socket := func(family, kind int) func() error {
		return func() error { _, err := unix.Socket(family, kind, 0); return err }
	}
	return map[string]func() error{
		"read in run":        opens("run/part", os.O_RDONLY),
		"write in out":       opens("out/new", os.O_WRONLY|os.O_CREATE),
		"write in run":       opens("run/new", os.O_WRONLY|os.O_CREATE),
		"change in run":      opens("run/part", os.O_WRONLY),
		"read beside":        opens("secret", os.O_RDONLY),
		"read by full path":  opens(filepath.Join(root, "secret"), os.O_RDONLY),
		"read by a link":     opens("out/link", os.O_RDONLY),
		"read of the host":   opens("/etc/passwd", os.O_RDONLY),
		"read upwards":       opens("run/../../../../../../etc/passwd", os.O_RDONLY),
		"read of processes":  opens("/proc/1/environ", os.O_RDONLY),
		"make a TCP socket":  socket(unix.AF_INET, unix.SOCK_STREAM),
		"make a UDP socket":  socket(unix.AF_INET6, unix.SOCK_DGRAM),
		"make a unix socket": socket(unix.AF_UNIX, unix.SOCK_STREAM),
		"make a raw socket":  socket(unix.AF_PACKET, unix.SOCK_RAW),
		"dial":               func() error { _, err := net.Dial("tcp", "127.0.0.1:1"); return err },
		"start a program":    func() error { return exec.Command(os.Args[0], "-test.list", "^$").Run() }, //nolint:noctx // it must not start
		"signal the parent":  func() error { return unix.Kill(unix.Getppid(), 0) },
		"trace the parent":   func() error { return unix.PtraceAttach(unix.Getppid()) },
		"write a large file": func() error { return os.WriteFile("out/large", make([]byte, 2<<10), 0o600) },
		"mount":              func() error { return unix.Mount("none", "out", "tmpfs", 0, "") },
		"unshare":            func() error { return unix.Unshare(unix.CLONE_NEWUSER) },
		"change a mode":      func() error { return os.Chmod("out", 0o777) },
	}
}

func TestFences(t *testing.T) {
	root := t.TempDir()
	for _, d := range []string{"run", "out"} {
		if err := os.Mkdir(filepath.Join(root, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{"run/part", "secret"} {
		if err := os.WriteFile(filepath.Join(root, f), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(root, "out/link")); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = []string{asChild + "=" + root}
	b, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, b)
	}
	var held, did []string
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSpace(line)
		if rest, ok := strings.CutPrefix(line, "held: "); ok {
			held = strings.Fields(rest)
		} else if rest, ok := strings.CutPrefix(line, "did: "); ok {
			did = append(did, rest)
		} else {
			t.Errorf("the process says %q", line)
		}
	}
	if !slices.Contains(held, Landlock) && !slices.Contains(held, Chroot) || !slices.Contains(held, Seccomp) {
		t.Skipf("this kernel gives only %v", held)
	}
	want := []string{"read in run", "write in out"}
	if !slices.Contains(held, Landlock) { // what a child without it gets in run are copies
		want = append(want, "change in run", "read beside", "write in run")
	}
	slices.Sort(did)
	slices.Sort(want)
	if !slices.Equal(did, want) {
		t.Errorf("behind %v a process could %q, want %q", held, did, want)
	}
}
