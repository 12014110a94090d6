package fence

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// outside names the variable with what a child of these tests is to try to reach.
const outside = "SHALLOT_FENCE_TEST"

// targets are what the parent has opened.
type targets struct {
	TCP, Unix, Abstract string
	Hang                bool // afterwards, until it is killed
}

func TestMain(m *testing.M) {
	if s := os.Getenv(outside); s != "" {
		var t targets
		if err := json.Unmarshal([]byte(s), &t); err != nil {
			panic(err)
		}
		reach(t)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// reach prints the name of every attempt that got out.
func reach(t targets) {
	dial := func(network, address string) func() error {
		return func() error {
			c, err := net.DialTimeout(network, address, 2*time.Second)
			if err == nil {
				_ = c.Close()
			}
			return err
		}
	}
	send := func(domain int, to syscall.Sockaddr) func() error {
		return func() error {
			fd, err := syscall.Socket(domain, syscall.SOCK_DGRAM, 0)
			if err != nil {
				return err
			}
			defer syscall.Close(fd)
			return syscall.Sendto(fd, []byte("x"), 0, to)
		}
	}
	for name, try := range map[string]func() error{
		"tcp to the parent":      dial("tcp", t.TCP),
		"unix socket":            dial("unix", t.Unix),
		"abstract unix socket":   dial("unix", t.Abstract),
		"connect to IPv4":        dial("udp4", "192.0.2.1:9"),
		"connect to IPv6":        dial("udp6", "[2001:db8::1]:9"),
		"send to a name server":  send(syscall.AF_INET, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 53}, Port: 53}),
		"send to IPv4":           send(syscall.AF_INET, &syscall.SockaddrInet4{Addr: [4]byte{192, 0, 2, 1}, Port: 9}),
		"send to IPv6 multicast": send(syscall.AF_INET6, &syscall.SockaddrInet6{Addr: [16]byte{0xff, 2, 15: 0xfb}, Port: 5353}),
		"send to IPv4 multicast": send(syscall.AF_INET, &syscall.SockaddrInet4{Addr: [4]byte{224, 0, 0, 251}, Port: 5353}),
		"look up a name": func() error {
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
			defer cancel()
			_, err := net.DefaultResolver.LookupHost(ctx, "canary.example.org")
			return err
		},
		"enter the parent's network": func() error {
			runtime.LockOSThread()
			f, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", os.Getppid()))
			if err != nil {
				return err
			}
			defer f.Close()
			return unix.Setns(int(f.Fd()), unix.CLONE_NEWNET)
		},
	} {
		if try() == nil {
			fmt.Println(name)
		}
	}
	f, err := Observe()
	fmt.Println("observed", f.Enclosed, err)
	fmt.Println("ids", os.Getuid(), os.Getgid())
	fmt.Println("end")
	if t.Hang {
		select {}
	}
}

func way(t *testing.T) Way {
	t.Helper()
	w, err := Available(t.Context())
	if err != nil {
		t.Skipf("no fence here: %v", err)
	}
	return w
}

// open serves what a child may try to reach.
func open(t *testing.T) targets {
	t.Helper()
	dir, err := os.MkdirTemp("", "fence") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	listen := func(network, address string) string {
		l, err := net.Listen(network, address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		return l.Addr().String()
	}
	return targets{
		TCP: listen("tcp4", "127.0.0.1:0"), Unix: listen("unix", filepath.Join(dir, "s")), Abstract: listen("unix", "@"+filepath.Join(dir, "abstract")),
	}
}

func child(ctx context.Context, t *testing.T, w Way, to targets) *exec.Cmd {
	t.Helper()
	data, err := json.Marshal(to)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Env = append(os.Environ(), outside+"="+string(data))
	w.Enclose(cmd)
	return cmd
}

func TestEnclosedProcessHasNoWayOut(t *testing.T) {
	w := way(t)
	if f, err := Observe(); err != nil || f.Enclosed {
		t.Skip("these tests are enclosed themselves: they have no way out to compare with")
	}
	to := open(t)
	lines := func(w Way) []string {
		out, err := child(t.Context(), t, w, to).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return strings.Split(strings.TrimSpace(string(out)), "\n")
	}
	if free := lines(Open); !slices.Contains(free, "tcp to the parent") || !slices.Contains(free, "abstract unix socket") {
		t.Fatalf("a process without a fence reaches only %q: this test shows nothing", free)
	}
	got := lines(w)
	want := []string{"unix socket", "observed true <nil>", fmt.Sprint("ids ", os.Getuid(), " ", os.Getgid()), "end"}
	if w == NetworkNamespace { // root is root everywhere then
		got = slices.DeleteFunc(got, func(s string) bool { return s == "enter the parent's network" })
	}
	if !slices.Equal(got, want) {
		t.Errorf("behind %v a process got %q, want %q", w, got, want)
	}
}

// The kernel's signal for the death of a parent reaches over the fence.
func TestEnclosedProcessDiesWithItsParent(t *testing.T) {
	w := way(t)
	to := open(t)
	to.Hang = true
	middle := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run", "^TestMiddle$")
	data, err := json.Marshal(to)
	if err != nil {
		t.Fatal(err)
	}
	middle.Env = append(os.Environ(), "SHALLOT_FENCE_TEST_MIDDLE="+string(data))
	stdout, err := middle.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := middle.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Fscanln(stdout, &pid); err != nil || pid <= 0 {
		t.Fatalf("no process: %v", err)
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	_ = middle.Process.Kill()
	_ = middle.Wait()
	if n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 20_000); n != 1 { //nolint:gosec // descriptors are small
		t.Errorf("behind %v the process did not end with its parent: %v", w, err)
	}
}

// TestMiddle is the parent that is killed.
func TestMiddle(t *testing.T) {
	s := os.Getenv("SHALLOT_FENCE_TEST_MIDDLE")
	if s == "" {
		t.Skip("it is a part of another test")
	}
	runtime.LockOSThread() // the signal comes when the thread ends
	var to targets
	if err := json.Unmarshal([]byte(s), &to); err != nil {
		t.Fatal(err)
	}
	cmd := child(t.Context(), t, way(t), to)
	cmd.SysProcAttr = attributes(cmd.SysProcAttr)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	fmt.Println(cmd.Process.Pid)
	_ = cmd.Wait()
}

func attributes(a *syscall.SysProcAttr) *syscall.SysProcAttr {
	if a == nil {
		a = &syscall.SysProcAttr{}
	}
	a.Pdeathsig = syscall.SIGKILL
	return a
}

func TestObserved(t *testing.T) {
	lo := net.Interface{Name: "lo", Flags: net.FlagLoopback | net.FlagUp}
	for _, c := range []struct {
		have []net.Interface
		want string
	}{
		{nil, ""},
		{[]net.Interface{lo}, ""},
		{[]net.Interface{{Name: "lo", Flags: net.FlagLoopback}, {Name: "sit0"}, {Name: "tunl0"}}, ""},
		{[]net.Interface{lo, {Name: "sit0", Flags: net.FlagUp}}, "sit0"},
		{[]net.Interface{{Name: "wlan0"}, lo, {Name: "eth0", Flags: net.FlagUp}}, "eth0 wlan0"},
	} {
		f := observed(c.have)
		if got := strings.Join(f.Interfaces, " "); got != c.want || f.Enclosed != (c.want == "") {
			t.Errorf("%v is %+v", c.have, f)
		}
	}
}

func TestWhyThereIsNone(t *testing.T) {
	for _, c := range []struct {
		err  error
		set  map[string]string
		want string
	}{
		{syscall.EPERM, map[string]string{"kernel.unprivileged_userns_clone": "0"}, "'sysctl -w kernel.unprivileged_userns_clone=1'"},
		{syscall.EACCES, map[string]string{"kernel.apparmor_restrict_unprivileged_userns": "1"}, "'sysctl -w kernel.apparmor_restrict_unprivileged_userns=0'"},
		{syscall.ENOSPC, map[string]string{"user.max_user_namespaces": "0"}, "user.max_user_namespaces is 0"},
		{&os.PathError{Err: syscall.EPERM}, map[string]string{"kernel.unprivileged_userns_clone": "1"}, "most containers"},
		{syscall.ENOSPC, nil, "as many namespaces"},
		{syscall.EINVAL, nil, "no user namespaces"},
		{errors.New("odd"), nil, "do not work"},
	} {
		if got := why(c.err, func(name string) string { return c.set[name] }); !strings.Contains(got, c.want) {
			t.Errorf("%v with %v: %s", c.err, c.set, got)
		}
	}
}
