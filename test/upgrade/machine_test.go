package upgrade

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/shallot-net/shallot/kit/home"
	"github.com/shallot-net/shallot/kit/rpc"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
	"github.com/shallot-net/shallot/test/internal/dev"
)

// machine is one node with a supervisor, and a folder of programs of its own, in which single ones are exchanged as a package manager does.
type machine struct {
	t          *testing.T
	role       string
	home, bin  string
	args       []string
	cmd        *exec.Cmd
	ended      chan struct{}
	said       *talk
	peer, addr string
	conn       *grpc.ClientConn
	client     nodev1.NodeServiceClient
}

// talk is what a process says, to be read while it does.
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

func newMachine(t *testing.T, programs, role string, args ...string) *machine {
	t.Helper()
	dir := t.TempDir()
	m := &machine{t: t, role: role, home: filepath.Join(dir, "h"), bin: filepath.Join(dir, "bin")}
	m.args = append([]string{"--role", role, "--listen", "/ip4/127.0.0.1/tcp/" + freePort(t)}, args...)
	if err := os.Mkdir(m.bin, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range append([]string{"shallot", "shallot-executor-wasm"}, programNames(role)...) {
		m.install(programs, name)
	}
	m.start()
	t.Cleanup(func() {
		m.stop()
		if t.Failed() {
			m.tail()
		}
	})
	var n struct {
		PeerID    string   `json:"peer_id"`
		Addresses []string `json:"addresses"`
	}
	if err := json.Unmarshal([]byte(m.cli("node", "--output", "json")), &n); err != nil || n.PeerID == "" {
		t.Fatalf("the node says %+v: %v", n, err)
	}
	m.peer = n.PeerID
	for _, a := range n.Addresses {
		if strings.HasPrefix(a, "/ip4/127.0.0.1/") {
			m.addr = a
		}
	}
	return m
}

// services of a role, in the order in which they start.
func services(role string) []string {
	if role == "provider" {
		return []string{"broker", "discovery", "metric", "task", "node", "gateway"}
	}
	return []string{"broker", "task", "node", "gateway"}
}

func programNames(role string) (names []string) {
	for _, s := range services(role) {
		names = append(names, "shallot-"+s)
	}
	return names
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return fmt.Sprint(l.Addr().(*net.TCPAddr).Port)
}

// install puts a program into its place at once.
func (m *machine) install(programs, name string) {
	m.t.Helper()
	next := filepath.Join(m.bin, "."+name)
	if err := os.Link(filepath.Join(programs, name), next); err != nil { // another file system
		if err := copyFile(filepath.Join(programs, name), next); err != nil {
			m.t.Fatal(err)
		}
	}
	if err := os.Rename(next, filepath.Join(m.bin, name)); err != nil {
		m.t.Fatal(err)
	}
	_ = os.Remove(next) // a rename of a file onto itself leaves it
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o700)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if e := out.Close(); err == nil {
		err = e
	}
	return err
}

func (m *machine) start() {
	m.t.Helper()
	m.said, m.ended = &talk{}, make(chan struct{})
	m.cmd = exec.Command(filepath.Join(m.bin, "shallot"), append([]string{"--home", m.home, "up"}, m.args...)...)
	m.cmd.Stderr = m.said
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := m.cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	go func(c *exec.Cmd, ended chan struct{}) {
		_ = c.Wait()
		close(ended)
	}(m.cmd, m.ended)
	eventually(m.t, time.Minute, "the "+m.role+" is ready", func() bool { return strings.Contains(m.said.String(), "\nready\n") })
	if m.conn == nil {
		h, err := home.Find(m.home)
		if err == nil {
			m.conn, err = rpc.Dial(h.Endpoint("node"), rpc.ClientConfig{})
		}
		if err != nil {
			m.t.Fatal(err)
		}
		m.client = nodev1.NewNodeServiceClient(m.conn)
		m.t.Cleanup(func() { m.conn.Close() })
	}
}

func (m *machine) stop() {
	_ = m.cmd.Process.Signal(os.Interrupt)
	select {
	case <-m.ended:
	case <-time.After(time.Minute):
		m.t.Errorf("the %s does not stop", m.role)
		_ = m.cmd.Process.Kill()
		<-m.ended
	}
}

// cli runs the command of this machine, whatever version it is of.
func (m *machine) cli(args ...string) string {
	m.t.Helper()
	var out, said bytes.Buffer
	c := exec.CommandContext(m.t.Context(), filepath.Join(m.bin, "shallot"), append([]string{"--home", m.home}, args...)...)
	c.Stdout, c.Stderr = &out, &said
	if err := c.Run(); err != nil {
		m.t.Fatalf("shallot %s: %v: %s", strings.Join(args, " "), err, &said)
	}
	return out.String()
}

// pid is that of a process which runs the program that is in its place now; 0 while none does.
func (m *machine) pid(service string) int {
	want, err := os.Stat(filepath.Join(m.bin, "shallot-"+service))
	if err != nil {
		m.t.Fatal(err)
	}
	for _, p := range m.processes() {
		if is, err := os.Stat(fmt.Sprintf("/proc/%d/exe", p.Pid)); p.Name == service && err == nil && os.SameFile(is, want) {
			return p.Pid
		}
	}
	return 0
}

func (m *machine) processes() []dev.Process {
	all, err := (&dev.Network{Config: dev.Config{Dir: filepath.Dir(m.home)}}).Processes(filepath.Base(m.home))
	if err != nil {
		m.t.Fatal(err)
	}
	return all
}

// upgrade exchanges one service's program and ends its process; the supervisor starts the new one. It returns once that is healthy, as whoever goes on to the next service would wait.
func (m *machine) upgrade(programs, service string, sig syscall.Signal) {
	m.t.Helper()
	old := m.pid(service)
	if old == 0 {
		m.t.Fatalf("%s of the %s does not run", service, m.role)
	}
	if service == "task" {
		m.install(programs, "shallot-executor-wasm")
	}
	m.install(programs, "shallot-"+service)
	if err := syscall.Kill(old, sig); err != nil {
		m.t.Fatal(err)
	}
	eventually(m.t, time.Minute, "the new "+service+" of the "+m.role+" runs", func() bool { return m.pid(service) != 0 })
	eventually(m.t, time.Minute, "the new "+service+" of the "+m.role+" is healthy", func() bool {
		c := exec.CommandContext(m.t.Context(), filepath.Join(m.bin, "shallot-"+service), "--home", m.home, "--health")
		return c.Run() == nil
	})
}

// upgradeSupervisor exchanges the command and starts the node again, which is how a supervisor is upgraded. What it starts must be the programs that are in place.
func (m *machine) upgradeSupervisor(programs string) {
	m.t.Helper()
	m.install(programs, "shallot")
	m.stop()
	m.start()
	for _, s := range services(m.role) {
		if m.pid(s) == 0 {
			m.t.Errorf("%s of the %s is not the new one", s, m.role)
		}
	}
}

func (m *machine) tail() {
	m.t.Logf("the supervisor of the %s said:\n%s", m.role, m.said)
	files, _ := filepath.Glob(filepath.Join(m.home, "logs", "*.log"))
	for _, f := range files {
		b, _ := os.ReadFile(f)
		if b = b[max(0, len(b)-3000):]; len(b) > 0 {
			m.t.Logf("%s %s:\n%s", m.role, filepath.Base(f), b)
		}
	}
}

// eventually waits until f says true, and fails the test after the timeout.
func eventually(t *testing.T, timeout time.Duration, what string, f func() bool) {
	t.Helper()
	deadline := time.NewTimer(timeout)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !f() {
		select {
		case <-deadline.C:
			t.Fatalf("not within %v: %s", timeout, what)
		case <-tick.C:
		}
	}
}

// permutations are all orders of a list.
func permutations(list []string) (all [][]string) {
	if len(list) <= 1 {
		return [][]string{slices.Clone(list)}
	}
	for i := range list {
		rest := slices.Concat(list[:i], list[i+1:])
		for _, p := range permutations(rest) {
			all = append(all, append([]string{list[i]}, p...))
		}
	}
	return all
}
