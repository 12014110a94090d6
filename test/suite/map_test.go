package suite

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
	"github.com/shallot-net/shallot/test/internal/dev"
)

// mapped is a map command that runs.
type mapped struct {
	cmd  *exec.Cmd
	out  locked
	done chan error
}

// locked is what a command has said so far.
type locked struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *locked) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func startMap(t *testing.T, n *dev.Network, args ...string) *mapped {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	m := &mapped{cmd: exec.CommandContext(ctx, filepath.Join(bin, "shallot"), append([]string{"--home", n.Home(consumer), "map", "wasm"}, args...)...), done: make(chan error, 1)}
	m.cmd.Stdout, m.cmd.Stderr = &m.out, &m.out
	if err := m.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { defer cancel(); m.done <- m.cmd.Wait() }()
	t.Cleanup(func() { _ = m.cmd.Process.Kill() })
	return m
}

func (m *mapped) wait(t *testing.T, code int) {
	t.Helper()
	select {
	case <-m.done:
	case <-time.After(4 * time.Minute):
		t.Fatalf("the command does not end; it says\n%s", &m.out)
	}
	if got := m.cmd.ProcessState.ExitCode(); got != code {
		t.Fatalf("exit code %d, want %d; it says\n%s", got, code, &m.out)
	}
}

// results are the files that are whole.
func results(dir string) int {
	n := 0
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") {
			n++
		}
	}
	return n
}

// TestMapSurvives: the user stops a job in the middle and goes on; the consumer's task service and a provider are killed. Every result is
// right in the end, and what was done stays done.
func TestMapSurvives(t *testing.T) {
	t.Parallel()
	const shards = 60
	n := ownNetwork(t, 3, 1)
	in, out := t.TempDir(), filepath.Join(t.TempDir(), "out")
	for i := range shards {
		if err := os.WriteFile(filepath.Join(in, fmt.Sprintf("%02d.txt", i)), []byte(strings.Repeat(fmt.Sprintf("input %d\n", i), 1+i*100)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	args := []string{program("probe.wasm"), "--inputs", filepath.Join(in, "*.txt"), "--output", out, "--parallel", "6", "--", "slowcat", "200"}
	first := startMap(t, n, args...)
	eventually(t, time.Minute, "results", func() bool { return results(out) >= 5 })
	if err := first.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	first.wait(t, 130)
	kept := results(out)
	if kept >= shards || !strings.Contains(first.out.String(), "is paused") {
		t.Fatalf("%d results after Ctrl-C; the command says\n%s", kept, &first.out)
	}
	second := startMap(t, n, args...)
	eventually(t, time.Minute, "more results", func() bool { return results(out) >= max(kept+5, 20) })
	if err := n.Signal(consumer, "task", syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Minute, "more results after the task service was killed", func() bool { return results(out) >= 35 })
	if err := n.Signal("provider-2", "task", syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	second.wait(t, 0)
	for i := range shards {
		b, err := os.ReadFile(filepath.Join(out, fmt.Sprintf("%02d.txt", i)))
		if want := strings.Repeat(fmt.Sprintf("input %d\n", i), 1+i*100); err != nil || string(b) != want {
			t.Errorf("result %d has %d bytes, want %d: %v", i, len(b), len(want), err)
		}
	}
	if entries, err := os.ReadDir(out); err != nil || len(entries) != shards {
		t.Errorf("the output folder has %d files, %v", len(entries), err)
	}
	var listed struct {
		Jobs []struct {
			State  string
			Counts struct{ Completed, Extra int }
		}
	}
	if err := json.Unmarshal([]byte(shallot(t, n, consumer, "", "job", "ls", "--output", "json").stdout), &listed); err != nil {
		t.Fatal(err)
	}
	if len(listed.Jobs) != 1 || listed.Jobs[0].State != "COMPLETED" || listed.Jobs[0].Counts.Completed != shards {
		t.Fatalf("the jobs are %+v", listed)
	}
	if runs := completedRuns(t, n); runs < shards || runs > shards+listed.Jobs[0].Counts.Extra {
		t.Errorf("%d runs came to their end for %d shards, and %d extra ones are counted", runs, shards, listed.Jobs[0].Counts.Extra)
	} else {
		t.Logf("%d runs came to their end for %d shards; %d extra ones are counted", runs, shards, listed.Jobs[0].Counts.Extra)
	}
	startMap(t, n, args...).wait(t, 0) // once more is no more
	if runs := completedRuns(t, n); runs > shards+listed.Jobs[0].Counts.Extra {
		t.Errorf("collecting again made %d runs", runs)
	}
}

// completedRuns asks the providers what they have run to its end.
func completedRuns(t *testing.T, n *dev.Network) int {
	t.Helper()
	runs := 0
	for _, node := range n.Nodes() {
		if !strings.HasPrefix(node, "provider") {
			continue
		}
		client, err := n.Node(node)
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, time.Minute, "an answer of "+node, func() bool {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			r, err := client.ListTasks(ctx, &nodev1.ListTasksRequest{States: []string{"COMPLETED"}, PageSize: 1000})
			if err == nil {
				runs += len(r.GetTasks())
			}
			return err == nil
		})
	}
	return runs
}
