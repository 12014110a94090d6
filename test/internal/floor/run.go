package floor

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"google.golang.org/grpc"

	"github.com/shallot-net/shallot/test/internal/module"
)

// Network is one variant of the floor at work: six servers, each a child of this program (see Child), and a client.
type Network struct {
	dir    string
	pids   map[string]int
	stops  []func()
	client *grpc.ClientConn
}

// Start starts a variant, with its files in a folder of its own under dir. Stop it.
func Start(dir string, express bool) (n *Network, err error) {
	n = &Network{pids: map[string]int{}}
	defer func() {
		if r := recover(); r != nil {
			n.Stop()
			n, err = nil, fmt.Errorf("the floor did not start: %v", r)
		}
	}()
	if n.dir, err = os.MkdirTemp(dir, "floor"); err != nil {
		return nil, err
	}
	n.start("broker_c", n.start("broker_p", "", express), express)
	recipient := n.start("task_p", "", express)
	n.start("node_p", "", express)
	n.start("task_c", "", express)
	n.start("node_c", recipient, express)
	n.client = connect(n.dir, "node_c")
	return n, nil
}

// start returns the line that the child prints when it is ready.
func (n *Network) start(role, arg string, express bool) string {
	cmd := exec.Command("/proc/self/exe", ChildArg, role, n.dir, arg, fmt.Sprint(express))
	cmd.Env = append(os.Environ(), "GOGC=400")
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	must(err)
	stdout, err := cmd.StdoutPipe()
	must(err)
	must(cmd.Start())
	n.pids[role] = cmd.Process.Pid
	n.stops = append(n.stops, func() {
		_ = stdin.Close()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	must(err)
	return strings.TrimSpace(line)
}

// PIDs are the six servers, by role.
func (n *Network) PIDs() map[string]int { return n.pids }

// Sum runs one task that adds three numbers, and Wasm one that runs SmallModule; both check the result.
func (n *Network) Sum() error  { return n.task([]byte("1 2 39"), "42\n") }
func (n *Network) Wasm() error { return n.task(wasm, "done\n") }

var wasm = append([]byte{0}, module.Small()...)

func (n *Network) task(payload []byte, want string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s, err := n.client.NewStream(ctx, streamDesc, method)
	if err != nil {
		return err
	}
	if err := s.SendMsg(&payload); err != nil {
		return err
	}
	if err := s.CloseSend(); err != nil {
		return err
	}
	var result []byte
	if err := s.RecvMsg(&result); err != nil {
		return fmt.Errorf("floor: %w", err)
	}
	if string(result) != want {
		return fmt.Errorf("floor: the result is %q, want %q", result, want)
	}
	_ = s.RecvMsg(&result) // the end of the stream
	return nil
}

// Stop ends the servers and removes their files.
func (n *Network) Stop() {
	if n.client != nil {
		_ = n.client.Close()
	}
	for _, stop := range n.stops {
		stop()
	}
	_ = os.RemoveAll(n.dir)
}
