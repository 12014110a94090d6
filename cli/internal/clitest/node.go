// Package clitest has a node service that keeps its tasks in memory, and processes that stand for a node's, for the
// tests of the command.
package clitest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shallot-net/shallot/kit/fault"
	brokerv1 "github.com/shallot-net/shallot/proto/shallot/broker/v1"
	discoveryv1 "github.com/shallot-net/shallot/proto/shallot/discovery/v1"
	metricv1 "github.com/shallot-net/shallot/proto/shallot/metric/v1"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
	telemetryv1 "github.com/shallot-net/shallot/proto/shallot/telemetry/v1"
)

// Node is a node service in memory. Its wasm programs are scripts: see program.
type Node struct {
	nodev1.UnimplementedNodeServiceServer

	// Info is what GetNode returns; a func, so that it may change.
	Info    func() *nodev1.Node
	Peers   func() []*discoveryv1.Peer
	Metrics []*metricv1.KnownMetric
	Now     func() time.Time
	Jobs    *Jobs
	// Placement and Settings are what GetPlacement (by the task's id) and GetSettings return.
	Placement map[string][]*taskv1.PlacementAttempt
	Settings  []*telemetryv1.ProcessSettings

	mu      sync.Mutex
	asked   []string
	changed chan struct{} // closed and replaced at every change
	tasks   []*task
	uploads map[string][]byte
	content map[string][]byte
	trees   map[string][]*brokerv1.DirectoryEntry // sorted
	damaged []string
	pins    []*brokerv1.Pin
	breaks  map[string]int // method: how many more calls break off
	specs   map[string]*taskv1.TaskSpec
	calls   map[string]int
}

type task struct {
	*taskv1.Task
	stdout, stderr []byte
	files          []outFile
	cancel         chan struct{}
	once           sync.Once
}

type outFile struct {
	path string
	data []byte
}

func (t *task) outputs() []*taskv1.OutputFile {
	var out []*taskv1.OutputFile
	for _, f := range t.files {
		out = append(out, &taskv1.OutputFile{Path: f.path, Size: uint64(len(f.data))})
	}
	return out
}

// NewNode makes an empty consumer.
func NewNode() *Node {
	info := &nodev1.Node{PeerId: "12D3KooWConsumer", Role: "consumer", Mode: "open", Addresses: []string{"/ip4/127.0.0.1/tcp/20001/p2p/12D3KooWConsumer"},
		ProvidersKnown: 1, Connections: 1, Online: true, Ready: true, Version: "dev",
		Processes: []*nodev1.Process{{Name: "broker", Pid: 11, State: "serving"}, {Name: "task", Pid: 12, State: "serving"}, {Name: "node", Pid: 13, State: "serving"}}}
	n := &Node{
		Info: func() *nodev1.Node { return info }, Peers: func() []*discoveryv1.Peer { return nil }, Now: time.Now,
		changed: make(chan struct{}), uploads: map[string][]byte{}, content: map[string][]byte{}, trees: map[string][]*brokerv1.DirectoryEntry{}, breaks: map[string]int{},
		specs: map[string]*taskv1.TaskSpec{}, calls: map[string]int{},
	}
	n.Jobs = &Jobs{node: n}
	return n
}

// Break makes the next calls of a method break off as if the service had died: streams in their middle.
func (n *Node) Break(method string, times int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.breaks[method] = times
}

func (n *Node) broken(method string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.calls[method]++
	if n.breaks[method] == 0 {
		return false
	}
	n.breaks[method]--
	return true
}

// Calls is how often a method was called.
func (n *Node) Calls(method string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.calls[method]
}

var errGone = fault.Unavailable("UNAVAILABLE", "the connection broke")

// Spec is what a task was made from.
func (n *Node) Spec(id string) *taskv1.TaskSpec {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.specs[id]
}

// Uploaded is the body that an upload had.
func (n *Node) Uploaded(b *taskv1.Blob) []byte {
	if id := b.GetUploadId(); id != "" {
		n.mu.Lock()
		defer n.mu.Unlock()
		return n.uploads[id]
	}
	return b.GetInline()
}

// Tasks are all that were made.
func (n *Node) Tasks() []*taskv1.Task {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []*taskv1.Task
	for _, t := range n.tasks {
		out = append(out, clone(t))
	}
	return out
}

// Add puts a task there as it is.
func (n *Node) Add(t *taskv1.Task, stdout, stderr string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.tasks = append(n.tasks, &task{Task: t, stdout: []byte(stdout), stderr: []byte(stderr), cancel: make(chan struct{})})
}

// AwaitTask waits until there is a task in a state, and returns it.
func (n *Node) AwaitTask(ctx context.Context, state string) *taskv1.Task {
	for {
		n.mu.Lock()
		wait := n.changed
		for _, t := range n.tasks {
			if t.GetState() == state {
				defer n.mu.Unlock()
				return clone(t)
			}
		}
		n.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return nil
		}
	}
}

func clone(t *task) *taskv1.Task { return proto.CloneOf(t.Task) }

// change applies fn and tells those who wait.
func (n *Node) change(fn func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	fn()
	close(n.changed)
	n.changed = make(chan struct{})
}

func (n *Node) find(id string) (*task, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, t := range n.tasks {
		if t.GetId() == id {
			return t, nil
		}
	}
	return nil, fault.NotFound("TASK_NOT_FOUND", "there is no task %q", id)
}

func (n *Node) submit(requestID string, spec *taskv1.TaskSpec) (*task, error) {
	if n.Info().GetRole() == "provider" {
		return nil, fault.FailedPrecondition("WRONG_ROLE", "this node is a provider, and only a consumer submits tasks: use a consumer's --home")
	}
	n.mu.Lock()
	for _, t := range n.tasks {
		if t.GetRequestId() == requestID {
			n.mu.Unlock()
			return t, nil
		}
	}
	n.mu.Unlock()
	script := ""
	switch p := spec.GetPayload().(type) {
	case *taskv1.TaskSpec_Sum:
		s, err := sum(p.Sum.GetAddends())
		if err != nil {
			return nil, err
		}
		script = "out " + s
	case *taskv1.TaskSpec_Wasm:
		module := n.Uploaded(p.Wasm.GetModule())
		if !bytes.HasPrefix(module, []byte("script\n")) {
			return nil, fault.InvalidArgument("MODULE_INVALID", "the module is not wasm: it begins with %q", module[:min(4, len(module))])
		}
		script = string(module)
	}
	t := &task{Task: &taskv1.Task{Type: spec.GetType(), State: "PENDING", CreatedAt: timestamppb.New(n.Now()), Labels: spec.GetLabels(), RequestId: requestID, Revision: 1, Limits: spec.GetLimits()}, cancel: make(chan struct{})}
	n.change(func() {
		sum := sha256.Sum256([]byte(fmt.Sprint(len(n.tasks), requestID)))
		t.Id = hex.EncodeToString(sum[:16])
		n.tasks = append(n.tasks, t)
		n.specs[t.GetId()] = spec
	})
	go n.program(t, script, spec)
	return t, nil
}

func (n *Node) to(t *task, state, what string) {
	n.change(func() {
		t.State, t.Revision = state, t.GetRevision()+1
		t.History = append(t.History, &taskv1.HistoryEntry{At: timestamppb.New(n.Now()), Attempt: t.GetAttempts(), State: state, What: what, PeerId: t.GetProvider()})
	})
}

// program runs a script: each line is an action. nobody WHY (as the first line: no provider takes it until it is cancelled), out TEXT, err TEXT, zeros N (bytes of stdout), stdin (copies it to
// stdout), file PATH TEXT (an output file; the path may be quoted as in Go), hang (until it is cancelled), exit N, fail REASON MESSAGE,
// expire CLOCK.
func (n *Node) program(t *task, script string, spec *taskv1.TaskSpec) {
	if why, ok := strings.CutPrefix(script, "script\nnobody "); ok {
		n.change(func() {
			t.Revision++
			t.History = append(t.History, &taskv1.HistoryEntry{At: timestamppb.New(n.Now()), State: "PENDING", What: "NO_CANDIDATE", Detail: strings.TrimSpace(why)})
		})
		<-t.cancel
		n.change(func() { t.FinishedAt = timestamppb.New(n.Now()) })
		n.to(t, "CANCELLED", "CANCELLED")
		return
	}
	n.change(func() { t.Provider, t.Attempts = "12D3KooWProvider", 1 })
	n.to(t, "RUNNING", "STARTED")
	end, code := "COMPLETED", int32(0)
	for line := range strings.Lines(script) {
		verb, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		switch verb {
		case "out":
			n.change(func() { t.stdout = append(t.stdout, rest+"\n"...) })
		case "err":
			n.change(func() { t.stderr = append(t.stderr, rest+"\n"...) })
		case "zeros":
			var count int
			_, _ = fmt.Sscan(rest, &count)
			n.change(func() { t.stdout = append(t.stdout, make([]byte, count)...) })
		case "stdin":
			in := n.Uploaded(spec.GetWasm().GetStdin())
			n.change(func() { t.stdout = append(t.stdout, in...) })
		case "file":
			path, text, _ := strings.Cut(rest, " ")
			if p, err := strconv.Unquote(path); err == nil {
				path = p
			}
			n.change(func() { t.files = append(t.files, outFile{path, []byte(text)}) })
		case "hang":
			<-t.cancel
			end = "CANCELLED"
		case "exit":
			_, _ = fmt.Sscan(rest, &code)
		case "fail", "expire":
			reason, message, _ := strings.Cut(rest, " ")
			if end = "FAILED"; verb == "expire" {
				end = "EXPIRED"
			}
			n.change(func() { t.Error = &taskv1.TaskError{Reason: reason, Message: message} })
		}
		if end != "COMPLETED" {
			break
		}
	}
	n.change(func() {
		t.FinishedAt = timestamppb.New(n.Now())
		if end == "COMPLETED" {
			t.ExitCode = &code
			t.Result = &taskv1.ResultInfo{StdoutSize: uint64(len(t.stdout)), StderrSize: uint64(len(t.stderr)), Files: t.outputs(), Available: true}
		}
	})
	n.to(t, end, "RESULT")
}

// watch calls fn with the task now and after every change.
func (n *Node) watch(ctx context.Context, t *task, fn func(*taskv1.Task) error) error {
	var seen uint64
	for {
		n.mu.Lock()
		wait, now := n.changed, clone(t)
		n.mu.Unlock()
		if now.GetRevision() > seen {
			seen = now.GetRevision()
			now.History = nil
			if err := fn(now); err != nil {
				return err
			}
		}
		if terminal(now.GetState()) {
			return nil
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func terminal(state string) bool {
	return state == "COMPLETED" || state == "FAILED" || state == "CANCELLED" || state == "EXPIRED"
}

// Register is for kit/rpc and kit/grpctest.
func (n *Node) Register(s grpc.ServiceRegistrar) {
	nodev1.RegisterNodeServiceServer(s, n)
	nodev1.RegisterJobServiceServer(s, n.Jobs)
}
