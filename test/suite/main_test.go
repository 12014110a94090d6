// Package suite tests the whole of Shallot: networks of real processes on this machine, driven by the command and the APIs
// that users have, and hurt as machines hurt them.
package suite

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shallot-net/shallot/test/internal/dev"
)

var (
	bin      string
	programs string
	// shared is a network that tests use side by side and do not hurt.
	shared = sync.OnceValues(func() (*dev.Network, error) {
		dir, err := os.MkdirTemp("", "shallot-suite")
		if err != nil {
			return nil, err
		}
		return dev.Start(context.Background(), dev.Config{Bin: bin, Dir: dir, Providers: 3, Consumers: 1})
	})
	sharedUsed bool
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	var err error
	if bin, err = dev.Bin(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if programs, err = os.MkdirTemp("", "shallot-programs"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(programs)
	build := exec.Command("go", "build", "-trimpath", "-o", filepath.Join(programs, "probe.wasm"), "../programs/probe")
	build.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build the probe: %v\n%s", err, out)
		return 1
	}
	// A module that does nothing but trap: _start is `unreachable`.
	trap := []byte("\x00asm\x01\x00\x00\x00\x01\x04\x01\x60\x00\x00\x03\x02\x01\x00\x07\x0a\x01\x06_start\x00\x00\x0a\x05\x01\x03\x00\x00\x0b")
	if err := os.WriteFile(program("trap.wasm"), trap, 0o600); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := m.Run()
	if sharedUsed {
		if n, err := shared(); err == nil {
			if err := n.Stop(); err != nil {
				fmt.Fprintln(os.Stderr, "stop the shared network:", err)
				code = 1
			}
			if left, _ := n.Leftovers(); len(left) > 0 {
				fmt.Fprintln(os.Stderr, "processes outlived their supervisor:", left)
				code = 1
			}
			os.RemoveAll(n.Dir)
		}
	}
	return code
}

func program(name string) string { return filepath.Join(programs, name) }

// sharedNetwork returns the network of 3 providers and 1 consumer that nobody hurts.
func sharedNetwork(t *testing.T) *dev.Network {
	t.Helper()
	sharedUsed = true
	n, err := shared()
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// ownNetwork starts a network for this test alone; it is stopped at the end, and must leave nothing running. Tests that mostly wait on one, for a lease or a peer, run two at
// a time after all others; those that judge how long something takes do not.
func ownNetwork(t *testing.T, providers, consumers int, args ...string) *dev.Network {
	t.Helper()
	return networkIn(t, t.TempDir(), providers, consumers, args...)
}

// networkIn is ownNetwork in a folder that holds something already: a node's configuration.
func networkIn(t *testing.T, dir string, providers, consumers int, args ...string) *dev.Network {
	t.Helper()
	n, err := dev.Start(t.Context(), dev.Config{Bin: bin, Dir: dir, Providers: providers, Consumers: consumers, Args: args})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Stop(); err != nil {
			t.Errorf("stop: %v\n%s", err, n.Tail())
		}
		left, err := n.Leftovers()
		if err != nil || len(left) > 0 {
			t.Errorf("after the stop: processes %v, error %v", left, err)
		}
		if t.Failed() {
			t.Log("supervisor said:\n" + n.Tail())
			for _, node := range n.Nodes() {
				logTail(t, n.Home(node))
			}
		}
	})
	return n
}

func logTail(t *testing.T, home string) {
	files, _ := filepath.Glob(filepath.Join(home, "logs", "*.log"))
	for _, f := range files {
		b, _ := os.ReadFile(f)
		if len(b) > 3000 {
			b = b[len(b)-3000:]
		}
		if len(b) > 0 {
			t.Logf("%s:\n%s", f, b)
		}
	}
}

type outcome struct {
	stdout, stderr string
	code           int
	took           time.Duration
}

// shallot runs the command against a node.
func shallot(t *testing.T, n *dev.Network, node, stdin string, args ...string) outcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var in io.Reader
	if stdin != "" {
		in = bytes.NewReader([]byte(stdin))
	}
	begin := time.Now()
	out, talk, code, err := n.CLI(ctx, node, in, args...)
	if err != nil {
		t.Fatalf("shallot %s: %v", strings.Join(args, " "), err)
	}
	return outcome{string(out), string(talk), code, time.Since(begin)}
}

// eventually waits until f says true, looking at each tick, and fails the test after the timeout.
func eventually(t *testing.T, timeout time.Duration, what string, f func() bool) {
	t.Helper()
	deadline := time.NewTimer(timeout)
	defer deadline.Stop()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !f() {
		select {
		case <-deadline.C:
			t.Fatalf("not within %v: %s", timeout, what)
		case <-tick.C:
		}
	}
}
