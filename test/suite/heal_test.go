package suite

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/shallot-net/shallot/kit/home"
	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
	"github.com/shallot-net/shallot/test/internal/dev"
)

// peerID returns who a node is, once it answers.
func peerID(t *testing.T, n *dev.Network, node string) (id string) {
	t.Helper()
	c, err := n.Node(node)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Minute, node+" says who it is", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		r, err := c.GetNode(ctx, &nodev1.GetNodeRequest{})
		id = r.GetNode().GetPeerId()
		return err == nil && id != ""
	})
	return id
}

// available returns the providers that a node takes for available, by peer id.
func available(t *testing.T, n *dev.Network, node string) map[string]bool {
	t.Helper()
	c, err := n.Node(node)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	out := map[string]bool{}
	r, err := c.ListPeers(ctx, &nodev1.ListPeersRequest{State: "available"})
	if err != nil {
		return out
	}
	for _, p := range r.GetPeers() {
		out[p.GetPeerId()] = true
	}
	return out
}

func knows(t *testing.T, n *dev.Network, node string, ids ...string) bool {
	t.Helper()
	known := available(t, n, node)
	for _, id := range ids {
		if !known[id] {
			return false
		}
	}
	return true
}

// deny writes a node's list of peers that may not connect.
func deny(t *testing.T, n *dev.Network, node string, ids ...string) {
	t.Helper()
	if err := home.WriteFile(filepath.Join(n.Home(node), "peers.deny"), []byte(strings.Join(ids, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
}

func sum(addends ...string) *taskv1.TaskSpec {
	return &taskv1.TaskSpec{Type: "sum", Payload: &taskv1.TaskSpec_Sum{Sum: &taskv1.SumPayload{Addends: addends}}}
}

func signalAll(t *testing.T, n *dev.Network, node string, sig syscall.Signal) []dev.Process {
	t.Helper()
	all, err := n.Processes(node)
	if err != nil || len(all) == 0 {
		t.Fatalf("processes of %s: %v, %v", node, all, err)
	}
	for _, p := range all {
		if err := syscall.Kill(p.Pid, sig); err != nil {
			t.Logf("%v to %s of %s: %v", sig, p.Name, node, err)
		}
	}
	return all
}

// The network is cut in two for longer than leases and announcements last, and nobody restarts anything. Each half goes on; what
// was submitted for a provider of the other half is done after the cut.
func TestANetworkCutInTwoFindsItselfAgain(t *testing.T) {
	t.Setenv("SHALLOT_DISCOVERY_ANNOUNCE_MIN", "1s")
	t.Setenv("SHALLOT_DISCOVERY_ANNOUNCE_PER_PEER", "0s")
	n := ownNetwork(t, 4, 1)
	id := map[string]string{}
	for _, node := range n.Nodes() {
		id[node] = peerID(t, n, node)
	}
	here, there := []string{"provider-1", "provider-2", consumer}, []string{"provider-3", "provider-4"}
	ids := func(nodes []string) (out []string) {
		for _, node := range nodes {
			out = append(out, id[node])
		}
		return out
	}
	before := map[string][]dev.Process{}
	for _, node := range n.Nodes() {
		all, err := n.Processes(node)
		if err != nil {
			t.Fatal(err)
		}
		before[node] = all
	}
	for _, node := range here {
		deny(t, n, node, ids(there)...)
	}
	for _, node := range there {
		deny(t, n, node, ids(here)...)
	}
	eventually(t, time.Minute, "the halves have lost each other", func() bool {
		for i, side := range [][]string{here, there} {
			other := [][]string{there, here}[i]
			for _, node := range side {
				known := available(t, n, node)
				for _, far := range other {
					if known[id[far]] || len(known) == 0 {
						return false
					}
				}
			}
		}
		return true
	})
	begin := time.Now()
	far := sum("20", "22")
	far.Placement = &taskv1.PlacementPolicy{Providers: ids(there)}
	waiting := submit(t, n, "far", far)
	if near := await(t, n, submit(t, n, "near", sum("1", "2")), 20*time.Second); near.GetState() != "COMPLETED" {
		t.Errorf("within its half a task ended %s: %v", near.GetState(), near.GetError())
	}
	<-time.After(time.Until(begin.Add(25 * time.Second))) // a lease is 15 s, silence is noticed after 4.5
	client, err := n.Node(consumer)
	if err != nil {
		t.Fatal(err)
	}
	if r, err := client.GetTask(t.Context(), &nodev1.GetTaskRequest{TaskId: waiting}); err != nil || r.GetTask().GetState() != "PENDING" {
		t.Fatalf("during the cut the task for the other half is %s, %v", r.GetTask().GetState(), err)
	}
	for _, node := range n.Nodes() {
		deny(t, n, node)
	}
	healed := time.Now()
	if task := await(t, n, waiting, 2*time.Minute); task.GetState() != "COMPLETED" {
		t.Errorf("the task that waited ended %s: %v", task.GetState(), task.GetError())
	}
	done := time.Since(healed)
	for _, node := range n.Nodes() {
		eventually(t, 2*time.Minute, node+" knows everybody again", func() bool {
			for _, p := range append([]string{"provider-1", "provider-2"}, there...) {
				if p != node && !knows(t, n, node, id[p]) {
					return false
				}
			}
			return true
		})
	}
	t.Logf("after the cut the task was done within %v, and everybody knew everybody within %v", done.Round(time.Millisecond), time.Since(healed).Round(time.Millisecond))
	for _, node := range n.Nodes() {
		if now, err := n.Processes(node); err != nil || fmt.Sprint(pids(now)) != fmt.Sprint(pids(before[node])) {
			t.Errorf("processes of %s were %v and are %v, %v: nothing should have restarted", node, before[node], now, err)
		}
	}
}

// pids are those of a node's own processes; executors' children come and go.
func pids(all []dev.Process) map[string]int {
	out := map[string]int{}
	for _, p := range all {
		if p.Name != "executor-wasm" {
			out[p.Name] = p.Pid
		}
	}
	return out
}

// The one bootstrap node is gone, and then every other node dies. They find each other again from what they kept.
func TestNodesRejoinWithTheBootstrapNodeGone(t *testing.T) {
	t.Parallel()
	n := ownNetwork(t, 3, 1)
	second, third, own := peerID(t, n, "provider-2"), peerID(t, n, "provider-3"), peerID(t, n, consumer)
	// A consumer's broker writes down whom it reached; wait for that, not for the others' death.
	eventually(t, time.Minute, "the consumer's broker has written down whom it reached", func() bool {
		b, err := os.ReadFile(filepath.Join(n.Home(consumer), "state", "broker", "peers.json"))
		return err == nil && strings.Contains(string(b), second) && strings.Contains(string(b), third)
	})
	gone := signalAll(t, n, "provider-1", syscall.SIGSTOP) // the supervisor would start what is dead again
	t.Cleanup(func() {
		for _, p := range gone {
			_ = syscall.Kill(p.Pid, syscall.SIGCONT)
		}
	})
	for _, node := range []string{"provider-2", "provider-3", consumer} {
		signalAll(t, n, node, syscall.SIGKILL)
	}
	begin := time.Now()
	if again := peerID(t, n, consumer); again != own {
		t.Errorf("the consumer was %s and is %s", own, again)
	}
	eventually(t, time.Minute, "the others know each other again", func() bool {
		return knows(t, n, consumer, second, third) && knows(t, n, "provider-2", third) && knows(t, n, "provider-3", second)
	})
	t.Logf("rejoined within %v", time.Since(begin).Round(time.Millisecond))
	if task := await(t, n, submit(t, n, "after", sum("40", "2")), time.Minute); task.GetState() != "COMPLETED" {
		t.Errorf("a task ended %s: %v", task.GetState(), task.GetError())
	}
}

// counter is a module of some 60 bytes that counts to n: a second or two for 2^31.
func counter(n int64) []byte {
	body := []byte("\x01\x01\x7e\x03\x40\x20\x00\x42\x01\x7c\x22\x00\x42") // (local i64) loop: local 0 + 1, kept, is less than
	for ; n > 63; n >>= 7 {
		body = append(body, byte(n&127)|128)
	}
	body = append(body, byte(n), 0x54, 0x0d, 0x00, 0x0b, 0x0b) // n: once more
	code := append([]byte{1, byte(len(body))}, body...)
	m := []byte("\x00asm\x01\x00\x00\x00\x01\x04\x01\x60\x00\x00\x03\x02\x01\x00\x07\x0a\x01\x06_start\x00\x00\x0a")
	return append(append(m, byte(len(code))), code...)
}

// A provider dies whole, with tasks in its queue, one under way, and results that nobody has collected. It comes back as itself;
// what it had finished is not done again.
func TestAProviderThatRestartsKeepsItsQueueAndResults(t *testing.T) {
	const provider = "provider-1"
	t.Setenv("SHALLOT_TASK_PROVIDER_SLOTS", "1")
	n := ownNetwork(t, 1, 1)
	id := peerID(t, n, provider)
	var tasks []string
	for i := range 6 {
		// Small enough to travel inside the submission: what is sent as content is fetched when its turn comes.
		tasks = append(tasks, submit(t, n, fmt.Sprint("queued-", i), &taskv1.TaskSpec{Type: "wasm", Limits: &eventv1.Limits{Time: durationpb.New(time.Minute)},
			Payload: &taskv1.TaskSpec_Wasm{Wasm: &taskv1.WasmPayload{Module: &taskv1.Blob{Source: &taskv1.Blob_Inline{Inline: counter(1 << 31)}}}}}))
	}
	client, err := n.Node(consumer)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Minute, "the provider has all tasks", func() bool {
		for _, task := range tasks {
			r, err := client.GetTask(t.Context(), &nodev1.GetTaskRequest{TaskId: task})
			if s := r.GetTask().GetState(); err != nil || s == "PENDING" || s == "SUBMITTED" {
				return false
			}
		}
		return true
	})
	stopped := signalAll(t, n, consumer, syscall.SIGSTOP) // nobody collects anything now
	pc, err := n.Node(provider)
	if err != nil {
		t.Fatal(err)
	}
	states := func() (done, open int) {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		r, err := pc.ListTasks(ctx, &nodev1.ListTasksRequest{})
		if err != nil {
			return 0, 0
		}
		for _, task := range r.GetTasks() {
			if task.GetState() == "COMPLETED" {
				done++
			} else {
				open++
			}
		}
		return done, open
	}
	eventually(t, time.Minute, "the provider has finished some and has others to do", func() bool {
		done, open := states()
		return done >= 2 && open >= 2
	})
	signalAll(t, n, provider, syscall.SIGKILL)
	if again := peerID(t, n, provider); again != id {
		t.Errorf("the provider was %s and is %s", id, again)
	}
	eventually(t, time.Minute, "the provider does what it had in its queue, with no consumer to ask", func() bool {
		_, open := states()
		return open == 0
	})
	for _, p := range stopped {
		if err := syscall.Kill(p.Pid, syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
	}
	for _, task := range tasks {
		got := await(t, n, task, 2*time.Minute)
		if got.GetState() != "COMPLETED" || got.GetAttempts() != 1 || got.GetProvider() != id {
			t.Errorf("task %s is %s after %d attempts: %v %v", task, got.GetState(), got.GetAttempts(), got.GetError(), got.GetHistory())
			continue
		}
		if code := got.GetExitCode(); code != 0 {
			t.Errorf("task %s exited with %d", task, code)
		}
	}
}
