// Package dev runs a whole network of real processes on this machine, as `shallot dev` starts it, for tests and measurements:
// every service is a process of its own that can be looked at, killed and stopped.
package dev

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"

	"github.com/shallot-net/shallot/kit/home"
	"github.com/shallot-net/shallot/kit/rpc"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
	telemetryv1 "github.com/shallot-net/shallot/proto/shallot/telemetry/v1"
)

// startTimeout bounds the start of a network until it says ready, where Config does not.
const startTimeout = 3 * time.Minute

// Config says what to start. Bin is the folder of the binaries, Dir the folder of the network (made if missing).
type Config struct {
	Bin, Dir             string
	Providers, Consumers int
	// Args are further arguments of `shallot dev`.
	Args []string
	// Timeout bounds the start; 3 minutes when 0.
	Timeout time.Duration
	// Log gets what the processes say on stderr, line by line.
	Log func(line string)
	// Command changes the supervisor's command before it starts; nil: it is as it is.
	Command func(*exec.Cmd)
}

// Network is a running `shallot dev`.
type Network struct {
	Config
	cmd   *exec.Cmd
	exit  chan struct{}
	err   error
	mu    sync.Mutex
	tail  []string
	conns map[string]*grpc.ClientConn
	// ReadyAfter is the time from start to the line "ready".
	ReadyAfter time.Duration
}

// Bin returns the folder of the binaries: $SHALLOT_BIN, else bin/ of the repository that the working directory is in.
func Bin() (string, error) {
	dir := os.Getenv("SHALLOT_BIN")
	_ = os.Getenv("SHALLOT_BIN_SUM") // go test repeats what has passed when what it has read changed; programs that a test starts are not among that
	if dir == "" {
		wd, err := os.Getwd()
		if err != nil {
			return "", err
		}
		for dir = wd; dir != "/"; dir = filepath.Dir(dir) {
			if _, err := os.Stat(filepath.Join(dir, "go.work")); err == nil {
				break
			}
		}
		dir = filepath.Join(dir, "bin")
	}
	if _, err := os.Stat(filepath.Join(dir, "shallot")); err != nil {
		return "", fmt.Errorf("no shallot in %s: run make build first, or set SHALLOT_BIN: %w", dir, err)
	}
	return dir, nil
}

// Start starts a network and returns when it is ready.
func Start(ctx context.Context, c Config) (*Network, error) {
	args := append([]string{"dev", "--home", c.Dir, "--providers", strconv.Itoa(c.Providers), "--consumers", strconv.Itoa(c.Consumers)}, c.Args...)
	n := &Network{Config: c, exit: make(chan struct{}), conns: map[string]*grpc.ClientConn{}}
	n.cmd = exec.Command(filepath.Join(c.Bin, "shallot"), args...)
	n.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if c.Command != nil {
		c.Command(n.cmd)
	}
	stderr, err := n.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	begin := time.Now()
	if err := n.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start shallot dev: %w", err)
	}
	ready := make(chan struct{})
	go n.read(stderr, ready)
	if c.Timeout <= 0 {
		c.Timeout = startTimeout
	}
	timeout := time.NewTimer(c.Timeout)
	defer timeout.Stop()
	select {
	case <-ready:
		n.ReadyAfter = time.Since(begin)
		return n, nil
	case <-n.exit:
		return nil, fmt.Errorf("shallot dev ended before it was ready: %w\n%s", n.err, n.Tail())
	case <-timeout.C:
		err = fmt.Errorf("shallot dev was not ready after %v\n%s", c.Timeout, n.Tail())
	case <-ctx.Done():
		err = ctx.Err()
	}
	return nil, errors.Join(err, n.Stop())
}

func (n *Network) read(stderr io.Reader, ready chan struct{}) {
	s := bufio.NewScanner(stderr)
	s.Buffer(nil, 1<<20)
	said := false
	for s.Scan() {
		line := s.Text()
		n.mu.Lock()
		if n.tail = append(n.tail, line); len(n.tail) > 200 {
			n.tail = n.tail[1:]
		}
		n.mu.Unlock()
		if n.Log != nil {
			n.Log(line)
		}
		if line == "ready" && !said {
			said = true
			close(ready)
		}
	}
	n.err = n.cmd.Wait()
	close(n.exit)
}

// Tail returns the last lines that shallot dev said.
func (n *Network) Tail() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return strings.Join(n.tail, "\n")
}

// Stop interrupts the network as Ctrl-C does and waits until it has ended, 15 seconds at most.
func (n *Network) Stop() error {
	for _, c := range n.conns {
		c.Close()
	}
	n.conns = map[string]*grpc.ClientConn{}
	select {
	case <-n.exit:
		return n.err
	default:
	}
	if err := n.cmd.Process.Signal(os.Interrupt); err != nil {
		return err
	}
	timeout := time.NewTimer(15 * time.Second)
	defer timeout.Stop()
	select {
	case <-n.exit:
		return nil
	case <-timeout.C:
		_ = n.cmd.Process.Kill()
		<-n.exit
		return errors.New("shallot dev did not stop within 15 s of an interrupt")
	}
}

// Pid returns the supervisor's process id.
func (n *Network) Pid() int { return n.cmd.Process.Pid }

// Exited is closed when the supervisor has ended.
func (n *Network) Exited() <-chan struct{} { return n.exit }

// Home returns the folder of a node, for example consumer-1.
func (n *Network) Home(node string) string { return filepath.Join(n.Dir, node) }

// Providers and consumers by name.
func (n *Network) Nodes() (names []string) {
	for i := range n.Config.Providers {
		names = append(names, fmt.Sprintf("provider-%d", i+1))
	}
	for i := range n.Config.Consumers {
		names = append(names, fmt.Sprintf("consumer-%d", i+1))
	}
	return names
}

// Node returns a client of a node's NodeService.
func (n *Network) Node(name string) (nodev1.NodeServiceClient, error) {
	c, err := n.conn(name)
	if err != nil {
		return nil, err
	}
	return nodev1.NewNodeServiceClient(c), nil
}

// Jobs returns a client of a node's JobService.
func (n *Network) Jobs(name string) (nodev1.JobServiceClient, error) {
	c, err := n.conn(name)
	if err != nil {
		return nil, err
	}
	return nodev1.NewJobServiceClient(c), nil
}

func (n *Network) conn(name string) (*grpc.ClientConn, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if c, ok := n.conns[name]; ok {
		return c, nil
	}
	h, err := home.Open(n.Home(name))
	if err != nil {
		return nil, err
	}
	c, err := rpc.Dial(h.Endpoint("node"), rpc.ClientConfig{})
	if err == nil {
		n.conns[name] = c
	}
	return c, err
}

// Telemetry returns the metrics of a node's processes.
func (n *Network) Telemetry(ctx context.Context, name string) ([]*telemetryv1.ProcessMetrics, error) {
	c, err := n.conn(name)
	if err != nil {
		return nil, err
	}
	r, err := telemetryv1.NewTelemetryServiceClient(c).Gather(ctx, &telemetryv1.GatherRequest{})
	return r.GetProcesses(), err
}

// CLI runs the shallot command against a node and returns what it wrote and its exit code.
func (n *Network) CLI(ctx context.Context, node string, stdin io.Reader, args ...string) (stdout, stderr []byte, code int, err error) {
	var out, talk bytes.Buffer
	cmd := exec.CommandContext(ctx, filepath.Join(n.Bin, "shallot"), append([]string{"--home", n.Home(node)}, args...)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &out, &talk
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		code, err = exit.ExitCode(), nil
	}
	return out.Bytes(), talk.Bytes(), code, err
}

// Process is one running process of a node.
type Process struct {
	Name string
	Pid  int
}

// Processes finds a node's processes by the home on their command line.
func (n *Network) Processes(node string) ([]Process, error) { return processes(n.Home(node)) }

// Leftovers returns the processes of any node of the network that are still there.
func (n *Network) Leftovers() ([]Process, error) { return processes(n.Dir) }

func processes(under string) (found []Process, err error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		// A process that has just ended has no command line any more.
		raw, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		if err != nil || len(raw) == 0 {
			continue
		}
		argv := strings.Split(strings.TrimRight(string(raw), "\x00"), "\x00")
		name, ok := strings.CutPrefix(filepath.Base(argv[0]), "shallot-")
		if !ok || !slices.ContainsFunc(argv[1:], func(a string) bool {
			a = strings.TrimPrefix(a, "--home=")
			return a == under || strings.HasPrefix(a, under+"/")
		}) {
			continue
		}
		found = append(found, Process{name, pid})
	}
	return found, nil
}

// Signal sends a signal to a node's process of that name. It is an error when none runs.
func (n *Network) Signal(node, process string, sig syscall.Signal) error {
	all, err := n.Processes(node)
	if err != nil {
		return err
	}
	for _, p := range all {
		if p.Name == process {
			return syscall.Kill(p.Pid, sig)
		}
	}
	return fmt.Errorf("%s has no process %s", node, process)
}
