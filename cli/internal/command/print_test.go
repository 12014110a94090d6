package command

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	discoveryv1 "github.com/shallot-net/shallot/proto/shallot/discovery/v1"
	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	metricv1 "github.com/shallot-net/shallot/proto/shallot/metric/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
)

const (
	peerA = "12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp"
	peerB = "12D3KooWPjceQrSwdWXPyLLeABRXmuqt69Rg3sBYbU1Nft9HyQ6X"
)

func ago(d time.Duration) *timestamppb.Timestamp { return timestamppb.New(noon.Add(-d)) }

// furnish gives the node something of everything to show.
func (w *world) furnish() {
	w.node.Now = func() time.Time { return noon }
	w.node.Add(&taskv1.Task{Id: "3f2a9c00000000000000000000000001", Type: "wasm", State: "COMPLETED", Provider: peerA, Attempts: 2, ExitCode: proto.Int32(3),
		CreatedAt: ago(90 * time.Second), StartedAt: ago(89 * time.Second), FinishedAt: ago(85 * time.Second), Revision: 9,
		Limits:   &eventv1.Limits{Time: durationpb.New(2 * time.Second), Memory: 64 << 20, Output: 1 << 20},
		Usage:    &eventv1.Usage{Wall: durationpb.New(4 * time.Second), Cpu: durationpb.New(1500 * time.Millisecond), PeakMemory: 3 << 20, Output: 12},
		Result:   &taskv1.ResultInfo{Cid: "bafkreiresult", StdoutSize: 6, StderrSize: 5, Available: true, Files: []*taskv1.OutputFile{{Path: "a/b.csv", Size: 2048}}},
		Replicas: 2, ReplicaPeers: []*taskv1.Replica{{PeerId: peerB, State: "KEPT"}},
		Labels: map[string]string{"run": "7", "by": "me"},
		History: []*taskv1.HistoryEntry{
			{At: ago(90 * time.Second), State: "PENDING", What: "CREATED"},
			{At: ago(89500 * time.Millisecond), Attempt: 1, State: "SUBMITTED", What: "PLACED", PeerId: peerB, Detail: "the better of 2 of 3 candidates"},
			{At: ago(89 * time.Second), Attempt: 1, State: "PENDING", What: "REFUSED", PeerId: peerB, Detail: "its queue is full"},
			{At: ago(88 * time.Second), Attempt: 2, State: "RUNNING", What: "STARTED", PeerId: peerA},
			{At: ago(85 * time.Second), Attempt: 2, State: "COMPLETED", What: "RESULT", PeerId: peerA},
		}}, "hello\n", "oops\n")
	w.node.Add(&taskv1.Task{Id: "3f2a9d00000000000000000000000002", Type: "sum", State: "FAILED", Provider: peerB, Attempts: 1, CreatedAt: ago(30 * time.Second), FinishedAt: ago(29 * time.Second), Revision: 4,
		Error: &taskv1.TaskError{Reason: "TRAP", Message: "wasm trap: \x1b[2Junreachable"}}, "", "")
	w.node.Add(&taskv1.Task{Id: "aaaa0000000000000000000000000003", Type: "wasm", State: "RUNNING", Provider: peerA, Attempts: 1, CreatedAt: ago(5 * time.Hour), Revision: 3}, "", "")
	w.node.Peers = func() []*discoveryv1.Peer {
		return []*discoveryv1.Peer{
			{PeerId: peerA, Role: "provider", State: "available", Capabilities: []*eventv1.Capability{{Type: "sum"}, {Type: "wasm"}}, LastSeen: ago(4 * time.Second),
				Rtt: durationpb.New(1234 * time.Microsecond), Connected: true, Addresses: []string{"/ip4/127.0.0.1/tcp/1"}, Announcement: &eventv1.Event{Payload: []byte("x")}},
			{PeerId: peerB, Role: "provider", State: "unavailable", LastSeen: ago(3 * time.Minute)},
		}
	}
	w.node.Metrics = []*metricv1.KnownMetric{{Own: true, Age: durationpb.New(2300 * time.Millisecond), Metric: &eventv1.Metric{PeerId: peerA, Version: 1 << 40,
		Cpu: &eventv1.Cpu{Model: "Fast CPU", Cores: 2, Threads: 4, Mhz: 2800, Load: 0.255, Load1: 1.5}, Memory: &eventv1.Memory{Total: 8 << 30, Free: 3 << 30},
		Disk: &eventv1.Disk{Total: 100 << 30, Free: 20 << 30}, Gpus: []*eventv1.Gpu{{Model: "H100", Memory: 80 << 30}}, Queue: &eventv1.Queue{Running: 1, Slots: 4, Pending: 2, Capacity: 100}}}}
}

func TestTables(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.furnish()
	for name, args := range map[string][]string{
		"task-ls.txt": {"task", "ls"}, "task-show.txt": {"task", "show", "3f2a9c"}, "task-show-failed.txt": {"task", "show", "3f2a9d"},
		"peers.txt": {"peers"}, "metrics.txt": {"metrics"}, "metric.txt": {"metrics", peerA}, "task-watch.txt": {"task", "watch", "3f2a9d"},
	} {
		r := w.run(args...)
		if r.code != 0 && name != "task-watch.txt" {
			t.Errorf("%v: exit code %d: %s", args, r.code, r.stderr)
		}
		if strings.ContainsRune(r.stdout, '\x1b') {
			t.Errorf("%v wrote escape sequences to what is no terminal", args)
		}
		golden(t, name, r.stdout)
	}
	golden(t, "node.txt", strings.ReplaceAll(w.run("node").stdout, w.home, "HOME"))
}

func TestJSON(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.furnish()
	for name, args := range map[string][]string{
		"task-ls.json": {"task", "ls"}, "task-show.json": {"task", "show", "3f2a9c00000000000000000000000001"}, "peers.json": {"peers"}, "metrics.json": {"metrics"},
	} {
		r := w.run(append(args, "--output", "json")...)
		r.json(t)
		golden(t, name, r.stdout)
	}
	v := w.run("node", "--output=json").json(t)
	for _, key := range []string{"peer_id", "role", "mode", "addresses", "gateway_url", "token_file", "processes", "home"} {
		if _, ok := v[key]; !ok {
			t.Errorf("node has no %s", key)
		}
	}
	if p := v["processes"].([]any)[0].(map[string]any); p["name"] != "broker" || p["pid"] != 11.0 {
		t.Errorf("process is %v", p)
	}
}

func TestWatchJSONIsOneDocumentALine(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.run("run", "sum", "1").want(t, 0, "1\n", "")
	r := w.run("task", "watch", w.node.Tasks()[0].GetId(), "--output", "json")
	for line := range strings.Lines(r.stdout) {
		var v map[string]any
		if err := json.Unmarshal([]byte(line), &v); err != nil || v["state"] != "COMPLETED" {
			t.Errorf("%v in %q", err, line)
		}
	}
	if r.code != 0 || r.stdout == "" {
		t.Errorf("got %+v", r)
	}
	w.run("run", "wasm", w.script("exit 2"))
	if r := w.run("task", "watch", w.node.Tasks()[1].GetId()); r.code != exitFailed {
		t.Errorf("a program that failed: exit code %d", r.code)
	}
}

func TestTaskCommands(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.furnish()
	w.run("task", "result", "3f2a9c").want(t, 0, "hello\n", "")
	w.run("task", "result", "3f2a9c", "--body", "stderr").want(t, 0, "oops\n", "")
	w.run("task", "result", "3f2a9c", "--body", "output:x").want(t, exitNotFound, "", `no "output:x"`)
	w.run("task", "logs", "3f2a9c").want(t, 0, "oops\n", "")
	file := filepath.Join(t.TempDir(), "out")
	if v := w.run("task", "result", "3f2a9c", "--file", file, "--output", "json").json(t); v["size"] != 6.0 || v["file"] != file {
		t.Errorf("got %v", v)
	}
	if data, err := os.ReadFile(file); err != nil || string(data) != "hello\n" {
		t.Errorf("the file holds %q, %v", data, err)
	}
	if v := w.run("task", "logs", "3f2a9c", "--output", "json").json(t); v["stderr"] != "oops\n" {
		t.Errorf("got %v", v)
	}
	w.run("task", "result", "3f2a9c", "--file", t.TempDir()).want(t, exitUsage, "", "is a directory")
	w.run("task", "show", "3f2a").want(t, exitUsage, "", "2 tasks")
	w.run("task", "show", "3f2b").want(t, exitNotFound, "", `"3f2b"`)
	w.run("task", "show", "nonsense").want(t, exitUsage, "", "\"nonsense\" is no task id")
	w.run("task", "show", strings.Repeat("0", 32)).want(t, exitNotFound, "", strings.Repeat("0", 32))
	w.run("task", "show").want(t, exitUsage, "", "ID is missing")
	w.run("task", "show", "a", "b").want(t, exitUsage, "", `unexpected argument "b"`)
	w.run("task", "ls", "--state", "compleetd").want(t, exitUsage, "", `did you mean "COMPLETED"?`)
	if r := w.run("task", "ls", "--state", "failed"); strings.Count(r.stdout, "\n") != 2 || !strings.Contains(r.stdout, "3f2a9d") {
		t.Errorf("got %s", r.stdout)
	}
	if r := w.run("task", "ls", "--since", "1m"); strings.Count(r.stdout, "\n") != 2 {
		t.Errorf("got %s", r.stdout)
	}
	if r := w.run("task", "ls", "--limit", "2"); strings.Count(r.stdout, "\n") != 3 || r.stderr != "" {
		t.Errorf("got %s%s", r.stdout, r.stderr)
	}
	w.run("task", "cancel", "aaaa").want(t, 0, "", "is being cancelled")
	w.run("task", "cancel", "3f2a9c").want(t, 0, "", "had ended: COMPLETED")
}

func TestEmptyLists(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.run("task", "ls").want(t, 0, "", "no tasks")
	w.run("peers").want(t, 0, "", "no providers")
	w.run("metrics").want(t, 0, "", "no metrics")
	w.run("content", "ls").want(t, 0, "", "nothing is pinned")
	for _, name := range []string{"tasks", "peers", "metrics", "pins"} {
		args := map[string][]string{"tasks": {"task", "ls"}, "peers": {"peers"}, "metrics": {"metrics"}, "pins": {"content", "ls"}}[name]
		if v, ok := w.run(append(args, "--output", "json")...).json(t)[name].([]any); !ok || len(v) != 0 {
			t.Errorf("%s is %v", name, v)
		}
	}
}

func TestContentCommands(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.node.Now = func() time.Time { return noon }
	body := strings.Repeat("content \x00\xff", 1000)
	r := w.run("content", "put", w.file("body", body))
	cid := strings.TrimSuffix(r.stdout, "\n")
	r.want(t, 0, cid+"\n", "")
	if cid == "" || strings.ContainsAny(cid, " \n") {
		t.Fatalf("put printed %q", r.stdout)
	}
	w.node.Break("GetContent", 2)
	w.run("content", "get", cid).want(t, 0, body, "")
	file := filepath.Join(t.TempDir(), "got")
	w.run("content", "get", cid, "--file", file).want(t, 0, "", "")
	if data, _ := os.ReadFile(file); string(data) != body {
		t.Errorf("the file holds %d bytes", len(data))
	}
	if v := w.run("content", "stat", cid, "--output", "json").json(t); v["size"] != float64(len(body)) || v["local"] != true {
		t.Errorf("stat is %v", v)
	}
	if r := w.run("content", "stat", cid); !strings.Contains(r.stdout, "9.8 KiB") {
		t.Errorf("stat is %s", r.stdout)
	}
	w.run("content", "pin", cid, "--keep", "72h").want(t, 0, "", "pinned "+cid)
	if r := w.run("content", "ls"); !strings.Contains(r.stdout, "in 3d") {
		t.Errorf("ls is %s", r.stdout)
	}
	w.run("content", "pin", cid, "--keep", "0s").want(t, exitUsage, "", "more than 0")
	w.run("content", "unpin", cid).want(t, 0, "", "unpinned "+cid)
	w.run("content", "verify").want(t, 0, "", "read 9.8 KiB in 1 blocks: 0 damaged or missing")
	w.node.Damage(cid)
	if r := w.run("content", "verify"); r.code != exitFailed || !strings.Contains(r.stdout, cid) || !strings.Contains(r.stderr, "put their files again") {
		t.Errorf("verify is %d %s %s", r.code, r.stdout, r.stderr)
	}
	if v := w.run("content", "verify", "--no-repair", "--output", "json").json(t); v["bad"] != 1.0 || v["repaired"] != 0.0 || len(v["findings"].([]any)) != 1 {
		t.Errorf("verify is %v", v)
	}
	if v := w.run("content", "gc", "--output", "json").json(t); v["blocks"] != 1.0 || v["used"] != 0.0 {
		t.Errorf("gc is %v", v)
	}
	if r := w.run("content", "gc"); r.code != 0 || !strings.Contains(r.stdout, "0 B in 0 blocks") || !strings.Contains(r.stdout, "no limit") {
		t.Errorf("gc is %d %s", r.code, r.stdout)
	}
	w.run("content", "stat", "nonsense").want(t, exitNotFound, "", `"nonsense"`)
	w.run("content", "get", "nonsense", "--file", file).want(t, exitNotFound, "", `"nonsense"`)
	if data, _ := os.ReadFile(file); string(data) != body {
		t.Error("a failed get damaged the file that was there")
	}
	w.run("content", "put", "/nowhere/x").want(t, exitFailed, "", "cannot read /nowhere/x: no such file")
	w.stdin = strings.NewReader("from stdin")
	if v := w.run("content", "put", "-", "--output", "json").json(t); v["size"] != 10.0 {
		t.Errorf("put is %v", v)
	}
}

// What a provider has run it has run itself: its list says for whom.
func TestAProviderSeesWhoseTasksItHas(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.node.Add(&taskv1.Task{Id: "3f2a9c00000000000000000000000001", Type: "sum", State: "COMPLETED", ConsumerAlias: aliasA, Attempts: 1, CreatedAt: ago(time.Minute)}, "", "")
	r := w.run("task", "ls")
	if head, row, _ := strings.Cut(r.stdout, "\n"); !strings.Contains(head, "CONSUMER") || strings.Contains(head, "PROVIDER") || !strings.Contains(row, aliasA) {
		t.Errorf("got %s%s", r.stdout, r.stderr)
	}
}
