package suite

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/shallot-net/shallot/proto/shallot/event/v1"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
	"github.com/shallot-net/shallot/test/internal/dev"

	"google.golang.org/protobuf/types/known/durationpb"
)

// submit makes a task by its request id, again and again until the node has it: that is what request ids are for.
func submit(t *testing.T, n *dev.Network, request string, spec *taskv1.TaskSpec) string {
	t.Helper()
	client, err := n.Node(consumer)
	if err != nil {
		t.Fatal(err)
	}
	for begin := time.Now(); ; {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		r, err := client.SubmitTask(ctx, &nodev1.SubmitTaskRequest{RequestId: request, Spec: spec})
		cancel()
		if err == nil {
			return r.GetTask().GetId()
		}
		if time.Since(begin) > time.Minute {
			t.Fatalf("submit %s: %v", request, err)
		}
	}
}

// await returns the task once it is terminal.
func await(t *testing.T, n *dev.Network, id string, timeout time.Duration) *taskv1.Task {
	t.Helper()
	client, err := n.Node(consumer)
	if err != nil {
		t.Fatal(err)
	}
	var last *taskv1.Task
	eventually(t, timeout, "task "+id+" is terminal", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		r, err := client.GetTask(ctx, &nodev1.GetTaskRequest{TaskId: id})
		if err != nil {
			return false
		}
		last = r.GetTask()
		switch last.GetState() {
		case "COMPLETED", "FAILED", "CANCELLED", "EXPIRED":
			return true
		}
		return false
	})
	return last
}

func stdout(t *testing.T, n *dev.Network, id string) string {
	t.Helper()
	client, err := n.Node(consumer)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	stream, err := client.GetResult(ctx, &nodev1.GetResultRequest{TaskId: id})
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for {
		r, err := stream.Recv()
		if err != nil {
			break
		}
		b.Write(r.GetData())
	}
	return b.String()
}

// Every process on either side is killed while tasks are under way; each task ends in exactly one outcome, the right one.
func TestKillEveryProcess(t *testing.T) {
	t.Parallel()
	n := ownNetwork(t, 2, 1)
	module, err := os.ReadFile(program("probe.wasm"))
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	ids := map[string]string{} // task id -> expected stdout
	var wg sync.WaitGroup
	stop := make(chan struct{})
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			spec, want := &taskv1.TaskSpec{Type: "sum", Payload: &taskv1.TaskSpec_Sum{Sum: &taskv1.SumPayload{Addends: []string{fmt.Sprint(i), "1"}}}}, fmt.Sprintf("%d\n", i+1)
			if i%4 == 0 {
				spec = &taskv1.TaskSpec{Type: "wasm", Payload: &taskv1.TaskSpec_Wasm{Wasm: &taskv1.WasmPayload{
					Module: &taskv1.Blob{Source: &taskv1.Blob_Inline{Inline: module}}, Args: []string{"wait", "300"}}}}
				want = "waited\n"
			}
			id := submit(t, n, fmt.Sprintf("kill-%d", i), spec)
			mu.Lock()
			ids[id] = want
			mu.Unlock()
			<-time.After(100 * time.Millisecond)
		}
	})
	for _, node := range []string{"provider-1", consumer} {
		for _, p := range []string{"task", "node", "broker", "discovery", "metric", "gateway"} {
			if strings.HasPrefix(node, "consumer") && (p == "discovery" || p == "metric") {
				continue
			}
			if err := n.Signal(node, p, syscall.SIGKILL); err != nil {
				t.Errorf("kill: %v", err)
			}
			t.Logf("killed %s of %s", p, node)
			<-time.After(time.Second)
		}
	}
	close(stop)
	wg.Wait()
	attempts, extra := 0, 0
	for id, want := range ids {
		task := await(t, n, id, 2*time.Minute)
		if task.GetState() != "COMPLETED" || task.GetExitCode() != 0 {
			t.Errorf("task %s ended %s, exit code %d, %v", id, task.GetState(), task.GetExitCode(), task.GetError())
			for _, h := range task.GetHistory() {
				t.Logf("  %v attempt %d %s %s: %s", h.GetAt().AsTime().Format(time.TimeOnly), h.GetAttempt(), h.GetState(), h.GetWhat(), h.GetDetail())
			}
			continue
		}
		if got := stdout(t, n, id); got != want {
			t.Errorf("task %s printed %q, want %q", id, got, want)
		}
		attempts += int(task.GetAttempts())
		extra += int(task.GetAttempts()) - 1
	}
	t.Logf("%d tasks, %d attempts, %d extra", len(ids), attempts, extra)
}

// A provider goes away for good while it has the task: the lease runs out and another one does it.
func TestProviderLost(t *testing.T) {
	t.Parallel()
	n := ownNetwork(t, 2, 1)
	module, err := os.ReadFile(program("probe.wasm"))
	if err != nil {
		t.Fatal(err)
	}
	id := submit(t, n, "lost", &taskv1.TaskSpec{Type: "wasm", Limits: &eventv1.Limits{Time: durationpb.New(time.Minute)},
		Payload: &taskv1.TaskSpec_Wasm{Wasm: &taskv1.WasmPayload{Module: &taskv1.Blob{Source: &taskv1.Blob_Inline{Inline: module}}, Args: []string{"wait", "8000"}}}})
	client, err := n.Node(consumer)
	if err != nil {
		t.Fatal(err)
	}
	var at string
	eventually(t, time.Minute, "the task runs", func() bool {
		r, err := client.GetTask(t.Context(), &nodev1.GetTaskRequest{TaskId: id})
		at = r.GetTask().GetProvider()
		return err == nil && r.GetTask().GetState() == "RUNNING"
	})
	lost := ""
	for _, p := range []string{"provider-1", "provider-2"} {
		pc, err := n.Node(p)
		if err != nil {
			t.Fatal(err)
		}
		r, err := pc.GetNode(t.Context(), &nodev1.GetNodeRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if r.GetNode().GetPeerId() == at {
			lost = p
		}
	}
	if lost == "" {
		t.Fatalf("no provider is the one that has the task")
	}
	// Stopped, not killed: a process that is only silent. The supervisor does not notice.
	all, err := n.Processes(lost)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range all {
		if err := syscall.Kill(p.Pid, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
	}
	task := await(t, n, id, 90*time.Second)
	for _, p := range all {
		syscall.Kill(p.Pid, syscall.SIGCONT)
	}
	if task.GetState() != "COMPLETED" || task.GetAttempts() != 2 || task.GetProvider() == at {
		t.Fatalf("task is %s after %d attempts: %v", task.GetState(), task.GetAttempts(), task.GetHistory())
	}
	// The first provider wakes up and delivers late: the outcome stays the one it was.
	eventually(t, time.Minute, "the first provider is back", func() bool {
		pc, err := n.Node(lost)
		if err != nil {
			return false
		}
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		_, err = pc.GetNode(ctx, &nodev1.GetNodeRequest{})
		return err == nil
	})
	after := await(t, n, id, time.Second)
	if after.GetState() != task.GetState() || after.GetProvider() != task.GetProvider() {
		t.Errorf("the outcome changed: %v, then %v", task, after)
	}
}

// Stopped and started again on the same folder, a network is the same: identities, tasks, results.
func TestRestartKeepsEverything(t *testing.T) {
	dir := t.TempDir()
	identity := func(n *dev.Network) (ids []string) {
		for _, node := range n.Nodes() {
			c, err := n.Node(node)
			if err != nil {
				t.Fatal(err)
			}
			r, err := c.GetNode(t.Context(), &nodev1.GetNodeRequest{})
			if err != nil {
				t.Fatal(err)
			}
			ids = append(ids, r.GetNode().GetPeerId())
		}
		return ids
	}
	n, err := dev.Start(t.Context(), dev.Config{Bin: bin, Dir: dir, Providers: 1, Consumers: 1})
	if err != nil {
		t.Fatal(err)
	}
	before := identity(n)
	id := submit(t, n, "kept", &taskv1.TaskSpec{Type: "sum", Payload: &taskv1.TaskSpec_Sum{Sum: &taskv1.SumPayload{Addends: []string{"40", "2"}}}})
	await(t, n, id, 20*time.Second)
	begin := time.Now()
	if err := n.Stop(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("the stop took %v", took)
	}
	if left, _ := n.Leftovers(); len(left) > 0 {
		t.Fatalf("left running: %v", left)
	}
	if n, err = dev.Start(t.Context(), dev.Config{Bin: bin, Dir: dir, Providers: 1, Consumers: 1}); err != nil {
		t.Fatal(err)
	}
	defer n.Stop()
	if after := identity(n); strings.Join(after, " ") != strings.Join(before, " ") {
		t.Errorf("identities were %v and are %v", before, after)
	}
	if got := stdout(t, n, id); got != "42\n" {
		t.Errorf("the result is %q after the restart", got)
	}
	// The same request is the same task, also after a restart.
	if again := submit(t, n, "kept", &taskv1.TaskSpec{Type: "sum", Payload: &taskv1.TaskSpec_Sum{Sum: &taskv1.SumPayload{Addends: []string{"40", "2"}}}}); again != id {
		t.Errorf("the request made task %s, then %s", id, again)
	}
	// A second run on the folder is refused, and hurts nothing.
	if second, err := dev.Start(t.Context(), dev.Config{Bin: bin, Dir: dir, Providers: 1, Consumers: 1}); err == nil {
		second.Stop()
		t.Error("a second run on the same folder was not refused")
	} else if !strings.Contains(err.Error(), dir) && !strings.Contains(err.Error(), "already") {
		t.Errorf("the refusal does not name the folder: %v", err)
	}
}

// A supervisor that is killed takes its processes with it.
func TestKilledSupervisorLeavesNothing(t *testing.T) {
	n, err := dev.Start(t.Context(), dev.Config{Bin: bin, Dir: t.TempDir(), Providers: 1, Consumers: 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(n.Pid(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, 10*time.Second, "no process is left", func() bool {
		left, err := n.Leftovers()
		return err == nil && len(left) == 0
	})
}

// A torn database is named, and left as it is.
func TestTornDatabase(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	n, err := dev.Start(t.Context(), dev.Config{Bin: bin, Dir: dir, Providers: 1, Consumers: 1})
	if err != nil {
		t.Fatal(err)
	}
	submitAndWait(t, n)
	if err := n.Stop(); err != nil {
		t.Fatal(err)
	}
	files, _ := filepath.Glob(filepath.Join(dir, consumer, "state", "task", "*.db"))
	if len(files) == 0 {
		t.Fatal("the consumer's task service has no database")
	}
	torn := []byte(strings.Repeat("torn", 2000))
	if err := os.WriteFile(files[0], torn, 0o600); err != nil {
		t.Fatal(err)
	}
	os.Remove(files[0] + "-wal")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	n, err = dev.Start(ctx, dev.Config{Bin: bin, Dir: dir, Providers: 1, Consumers: 1})
	if err == nil {
		n.Stop()
		t.Fatal("the node became ready on a torn database")
	}
	said, _ := os.ReadFile(filepath.Join(dir, consumer, "logs", "task.log"))
	if !strings.Contains(string(said), filepath.Base(files[0])) {
		t.Errorf("the task service does not name the file: %s", said)
	}
	if now, _ := os.ReadFile(files[0]); string(now) != string(torn) {
		t.Error("the torn file was changed")
	}
}

func submitAndWait(t *testing.T, n *dev.Network) {
	t.Helper()
	id := submit(t, n, "one", &taskv1.TaskSpec{Type: "sum", Payload: &taskv1.TaskSpec_Sum{Sum: &taskv1.SumPayload{Addends: []string{"1"}}}})
	if task := await(t, n, id, 20*time.Second); task.GetState() != "COMPLETED" {
		t.Fatalf("task ended %s: %v", task.GetState(), task.GetError())
	}
}
