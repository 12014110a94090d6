package anonymous

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
)

// patience is how long anything may take on a machine that is busy with other tests.
const patience = 2 * time.Minute

// Outcome is how a command ended.
type Outcome struct {
	Stdout, Stderr string
	Code           int
}

// Shallot runs the command against a node.
func (n *Network) Shallot(t testing.TB, node, stdin string, args ...string) Outcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var in io.Reader
	if stdin != "" {
		in = strings.NewReader(stdin)
	}
	out, talk, code, err := n.CLI(ctx, node, in, args...)
	if err != nil {
		t.Fatalf("shallot %s: %v", strings.Join(args, " "), err)
	}
	return Outcome{string(out), string(talk), code}
}

// Want runs a command that must succeed and print this.
func (n *Network) Want(t testing.TB, node, stdout string, args ...string) {
	t.Helper()
	if r := n.Shallot(t, node, "", args...); r.Code != 0 || r.Stdout != stdout {
		t.Errorf("shallot %s: exit code %d, stdout %.200q, want %.200q, stderr %s", strings.Join(args, " "), r.Code, r.Stdout, stdout, r.Stderr)
	}
}

// Status is what a node says of itself.
func (n *Network) Status(t testing.TB, node string) *nodev1.Node {
	t.Helper()
	c, err := n.Node(node)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	r, err := c.GetNode(ctx, &nodev1.GetNodeRequest{})
	if err != nil {
		t.Fatalf("GetNode of %s: %v", node, err)
	}
	return r.GetNode()
}

// Addresses of all providers.
func (n *Network) Addresses(t testing.TB) (all []string) {
	t.Helper()
	for _, node := range n.Nodes() {
		all = append(all, n.Status(t, node).GetAddresses()...)
	}
	return all
}

// Knows tells whether a node lists a peer as available.
func (n *Network) Knows(t testing.TB, node, peer string) bool {
	t.Helper()
	r := n.Shallot(t, node, "", "peers", "--output", "json")
	var list struct {
		Peers []struct {
			PeerID string `json:"peer_id"`
			State  string
		}
	}
	if err := json.Unmarshal([]byte(r.Stdout), &list); err != nil {
		t.Fatalf("%v in %s%s", err, r.Stdout, r.Stderr)
	}
	for _, p := range list.Peers {
		if p.PeerID == peer && p.State == "available" {
			return true
		}
	}
	return false
}

// Eventually waits until f says true, and fails the test after the timeout.
func Eventually(t testing.TB, timeout time.Duration, what string, f func() bool) {
	t.Helper()
	deadline := time.NewTimer(timeout)
	defer deadline.Stop()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for !f() {
		select {
		case <-deadline.C:
			t.Fatalf("not within %v: %s", timeout, what)
		case <-tick.C:
		}
	}
}

// Logs are the ends of the nodes' logs, for a test that has failed.
func (n *Network) Logs() string {
	files, _ := filepath.Glob(filepath.Join(n.Dir, "*", "logs", "*.log"))
	var out strings.Builder
	for _, f := range files {
		b, _ := os.ReadFile(f)
		fmt.Fprintf(&out, "%s:\n%s\n", f, b[max(0, len(b)-2000):])
	}
	return out.String()
}

// Probe compiles the WASI program for tests and returns its path in a folder.
func Probe(dir string) (string, error) {
	path := filepath.Join(dir, "probe.wasm")
	build := exec.Command("go", "build", "-trimpath", "-o", path, "github.com/shallot-net/shallot/test/programs/probe")
	build.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the probe: %w: %s", err, out)
	}
	return path, nil
}

// Tasks gives a consumer one task of every type, each with its known result: a sum, a program, one with a result of some MiB, one whose input goes by reference, and a job.
func (n *Network) Tasks(t testing.TB, consumer, probe string) {
	t.Helper()
	dir := t.TempDir()
	large := bytes.Repeat([]byte("by reference "), 64<<10)
	input := filepath.Join(dir, "large")
	if err := os.WriteFile(input, large, 0o600); err != nil {
		t.Fatal(err)
	}
	n.Want(t, consumer, "6\n", "run", "sum", "1", "2", "3")
	n.Want(t, consumer, "hello\n", "run", "wasm", probe, "--", "echo", "hello")
	n.Want(t, consumer, string(large), "run", "wasm", probe, "--input", input, "--", "read", "large")
	if r := n.Shallot(t, consumer, "", "run", "wasm", probe, "--", "print", fmt.Sprint(largeResult)); r.Code != 0 || len(r.Stdout) != largeResult {
		t.Errorf("a large result: exit code %d, %d bytes of %d, stderr %s", r.Code, len(r.Stdout), largeResult, r.Stderr)
	}
	shards, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
	if err := os.Mkdir(shards, 0o700); err != nil {
		t.Fatal(err)
	}
	for i := range 4 {
		if err := os.WriteFile(filepath.Join(shards, fmt.Sprintf("%d.txt", i)), fmt.Appendf(nil, "shard %d\n", i), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if r := n.Shallot(t, consumer, "", "map", "wasm", probe, "--inputs", filepath.Join(shards, "*.txt"), "--output", out, "--", "cat"); r.Code != 0 {
		t.Errorf("the job: exit code %d, %s%s", r.Code, r.Stdout, r.Stderr)
	}
	for i := range 4 {
		got, err := filepath.Glob(filepath.Join(out, fmt.Sprintf("%d.txt*", i)))
		if err != nil || len(got) != 1 {
			t.Errorf("shard %d has %v, %v", i, got, err)
		}
	}
}

const largeResult = 4 << 20
