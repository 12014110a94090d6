package suite

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/shallot-net/shallot/test/internal/dev"
)

// talk is what a process says, readable while it says it.
type talk struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *talk) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *talk) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// up runs one node beside a network until the test ends, and returns its home when it is ready.
func up(t *testing.T, args ...string) string {
	t.Helper()
	dir := t.TempDir()
	upIn(t, dir, args...)
	return dir
}

func upIn(t *testing.T, dir string, args ...string) {
	t.Helper()
	said := &talk{}
	cmd := exec.Command(filepath.Join(bin, "shallot"), append([]string{"--home", dir, "up"}, args...)...)
	cmd.Stderr = said
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("shallot up in %s said:\n%s", dir, said)
		}
	})
	eventually(t, time.Minute, "the node in "+dir+" is ready", func() bool { return strings.Contains(said.String(), "\nready\n") })
}

// command runs shallot on a home.
func command(t *testing.T, dir, stdin string, args ...string) outcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var out, said bytes.Buffer
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "shallot"), append([]string{"--home", dir}, args...)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &said
	_ = cmd.Run() // the exit code says it
	return outcome{stdout: out.String(), stderr: said.String(), code: cmd.ProcessState.ExitCode()}
}

// freePort is one of loopback that nobody has now.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}

// A private network from its creation to a task of one who was invited; who was not is left outside, and is told so.
func TestPrivateNetwork(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if r := command(t, dir, "", "network", "create"); r.code != 0 {
		t.Fatalf("create: %+v", r)
	}
	n, err := dev.Start(t.Context(), dev.Config{Bin: bin, Dir: dir, Providers: 2, Consumers: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Stop(); err != nil {
			t.Errorf("stop: %v\n%s", err, n.Tail())
		}
	})
	if r := shallot(t, n, consumer, "", "run", "sum", "1", "2"); r.stdout != "3\n" {
		t.Errorf("within the network a task printed %+v", r)
	}
	invited := command(t, dir, "", "network", "invite")
	if invited.code != 0 || strings.Count(invited.stdout, "\n") != 1 {
		t.Fatalf("invite: %+v", invited)
	}

	guest := t.TempDir()
	if r := command(t, guest, invited.stdout, "network", "join"); r.code != 0 {
		t.Fatalf("join: %+v", r)
	}
	listen := "/ip4/127.0.0.1/tcp/"
	upIn(t, guest, "--listen", listen+freePort(t))
	if r := command(t, guest, "", "run", "sum", "40", "2"); r.stdout != "42\n" {
		t.Errorf("who was invited got %+v", r)
	}

	stranger := up(t, "--listen", listen+freePort(t))
	shown := shallot(t, n, "provider-1", "", "node", "--output", "json").stdout
	i := strings.Index(shown, "/ip4/127.0.0.1/")
	if i < 0 {
		t.Fatalf("the provider has no address: %s", shown)
	}
	address, _, _ := strings.Cut(shown[i:], `"`)
	if r := command(t, stranger, "", "node", "connect", address); r.code == 0 || !strings.Contains(r.stderr, "of the same network") {
		t.Errorf("who was not invited got %+v", r)
	}
	if r := command(t, stranger, "", "peers"); strings.Contains(r.stdout, "12D3KooW") {
		t.Errorf("who was not invited knows %s", r.stdout)
	}
}

// A node whose network's key is gone does not come up in the open.
func TestALostNetworkKeyIsNoWayOut(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if r := command(t, dir, "", "network", "create"); r.code != 0 {
		t.Fatalf("create: %+v", r)
	}
	start := func() (*dev.Network, error) {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		return dev.Start(ctx, dev.Config{Bin: bin, Dir: dir, Providers: 1, Consumers: 1})
	}
	n, err := start()
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "network.key")); err != nil {
		t.Fatal(err)
	}
	if n, err = start(); err == nil {
		_ = n.Stop()
		t.Fatal("the network came up without its key")
	}
	said, _ := os.ReadFile(filepath.Join(dir, "provider-1", "logs", "broker.log"))
	if !strings.Contains(string(said), "shallot network join") {
		t.Errorf("the broker does not say what would mend it: %s", said)
	}
}
