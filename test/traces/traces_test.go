package traces

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/shallot-net/shallot/kit/home"
	brokerv1 "github.com/shallot-net/shallot/proto/shallot/broker/v1"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
	"github.com/shallot-net/shallot/test/internal/dev"
	"github.com/shallot-net/shallot/test/internal/tap"
)

// wire is all that a node's services gave to its broker, and got from it.
type wire struct {
	mu       sync.Mutex
	messages [][]byte
	parents  int
	errs     []error
}

// said is what a service gives to its broker. The span that a request to send belongs to is for the broker itself: it is counted, and taken out.
func (w *wire) said(method string, message []byte) {
	message = bytes.Clone(message)
	w.mu.Lock()
	defer w.mu.Unlock()
	if strings.HasSuffix(method, "EventService/Send") {
		var r brokerv1.SendRequest
		if err := proto.Unmarshal(message, &r); err != nil {
			w.errs = append(w.errs, err)
		}
		if r.GetTraceParent() != "" {
			w.parents++
		}
		r.TraceParent = ""
		message, _ = proto.Marshal(&r)
	}
	w.messages = append(w.messages, message)
}

func (w *wire) heard(_ string, message []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.messages = append(w.messages, bytes.Clone(message))
}

func (w *wire) has(b []byte) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, m := range w.messages {
		if bytes.Contains(m, b) {
			return true
		}
	}
	return false
}

type network struct {
	*dev.Network
	spans map[string]*collector
	wires map[string]*wire
}

// start has a provider and a consumer, each with a collector of its own and a tap at its broker.
func start(t *testing.T) *network {
	t.Helper()
	bin, err := dev.Bin()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "shallot-traces")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	n := &network{spans: map[string]*collector{}, wires: map[string]*wire{}}
	for _, node := range []string{"provider-1", "consumer-1"} {
		h, err := home.Open(filepath.Join(dir, node))
		if err != nil {
			t.Fatal(err)
		}
		otel, broker := filepath.Join(dir, node+".otel"), filepath.Join(dir, node+".tap")
		w := &wire{}
		n.spans[node], n.wires[node] = collect(t, otel), w
		tapped, err := tap.Listen(broker, h.Socket("broker"), w.said, w.heard)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = tapped.Close() })
		var config strings.Builder
		for _, process := range []string{"broker", "discovery", "metric", "task", "node", "gateway"} {
			fmt.Fprintf(&config, "%s:\n  trace:\n    endpoint: unix:%s\n", process, otel)
			if process != "broker" && process != "gateway" {
				fmt.Fprintf(&config, "  broker: unix:%s\n", broker)
			}
		}
		if err := os.MkdirAll(h.Dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(h.Dir, "config.yaml"), []byte(config.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if n.Network, err = dev.Start(t.Context(), dev.Config{Bin: bin, Dir: dir, Providers: 1, Consumers: 1}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Stop(); err != nil {
			t.Error(err)
		}
	})
	return n
}

// submit has a sum computed by REST, and returns the task's id.
func (n *network) submit(t *testing.T, ctx context.Context) string {
	t.Helper()
	var gateway struct {
		URL       string `json:"url"`
		TokenFile string `json:"token_file"`
	}
	b, err := os.ReadFile(filepath.Join(n.Home("consumer-1"), "run", "gateway.json"))
	if err == nil {
		err = json.Unmarshal(b, &gateway)
	}
	if err != nil {
		t.Fatal(err)
	}
	token, err := os.ReadFile(gateway.TokenFile)
	if err != nil {
		t.Fatal(err)
	}
	body := strings.NewReader(`{"request_id":"one","spec":{"type":"sum","sum":{"addends":["1","2","3"]}}}`)
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, gateway.URL+"/v1/tasks", body)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	r.Header.Set("Content-Type", "application/json")
	// Who calls from outside does not say which trace this is.
	r.Header.Set("traceparent", "00-"+strings.Repeat("ab", 16)+"-"+strings.Repeat("cd", 8)+"-01")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var made struct {
		ID string `json:"id"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&made); err != nil || resp.StatusCode != http.StatusOK || made.ID == "" {
		t.Fatalf("%s, %+v, %v", resp.Status, made, err)
	}
	api, err := n.Node("consumer-1")
	if err != nil {
		t.Fatal(err)
	}
	s, err := api.WatchTask(ctx, &nodev1.WatchTaskRequest{TaskId: made.ID})
	for err == nil {
		var u *nodev1.WatchTaskResponse
		if u, err = s.Recv(); err == nil && u.GetTask().GetState() == "COMPLETED" {
			return made.ID
		}
	}
	t.Fatal(err)
	return ""
}

// step is a span that a trace has to have.
type step struct{ process, name, event string }

func (st step) is(id []byte) func(*span) bool {
	return func(s *span) bool {
		return s.process == st.process && s.GetName() == st.name && bytes.Equal(s.GetTraceId(), id) && (st.event == "" || s.attribute("shallot.event.type") == st.event)
	}
}

// follow wants the steps in one trace, each begun no earlier than the one before, and each under a span that is there.
func follow(t *testing.T, c *collector, id []byte, steps []step) {
	t.Helper()
	var begun uint64 // nanoseconds; one clock for all processes
	for _, st := range steps {
		// There can be several: a machine that is slow tells a consumer that its task runs before it tells the result.
		s := c.wait(t, fmt.Sprintf("%v, after the step before", st), func(s *span) bool { return st.is(id)(s) && s.GetStartTimeUnixNano() >= begun })
		begun = s.GetStartTimeUnixNano()
	}
	// A parent ends after its children, and comes from another process perhaps: it may be what comes last.
	roots := 0
	c.until(t, "the parents of all spans of the trace", func(all []*span) bool {
		known := map[string]bool{}
		for _, s := range all {
			known[string(s.GetSpanId())] = true
		}
		roots = 0
		for _, s := range all {
			if bytes.Equal(s.GetTraceId(), id) && len(s.GetParentSpanId()) == 0 {
				roots++
			} else if bytes.Equal(s.GetTraceId(), id) && !known[string(s.GetParentSpanId())] {
				return false
			}
		}
		return true
	})
	if roots != 1 {
		t.Errorf("the trace has %d beginnings", roots)
	}
}

func TestATaskIsOneTraceAtEachNode(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	n := start(t)
	id := n.submit(t, ctx)
	consumer, provider := n.spans["consumer-1"], n.spans["provider-1"]
	ofTask := func(process, name string) func(*span) bool {
		return func(s *span) bool {
			return s.process == process && s.GetName() == name && s.attribute("shallot.task.id") == id
		}
	}
	here := consumer.wait(t, "the submission", ofTask("node", "task.submit")).GetTraceId()
	there := provider.wait(t, "the run", ofTask("task", "task.execute")).GetTraceId()
	if bytes.Equal(here, there) {
		t.Error("the two nodes have one trace")
	}
	if bytes.Contains(here, bytes.Repeat([]byte{0xab}, 16)) {
		t.Error("a trace is the caller's from outside")
	}
	const submitted = "shallot.node.v1.NodeService/SubmitTask"
	follow(t, consumer, here, []step{{"gateway", "POST /v1/tasks", ""}, {"gateway", submitted, ""}, {"node", submitted, ""}, {"node", "task.submit", ""}, {"node", "task.place", ""},
		{"task", "task.create", ""}, {"node", "event.send", "TASK_SUBMISSION"}, {"broker", "broker.send", "TASK_SUBMISSION"},
		{"node", "event.deliver", "TASK_RESULT"}, {"task", "task.deliver", ""}})
	follow(t, provider, there, []step{{"node", "event.deliver", "TASK_SUBMISSION"}, {"task", "task.deliver", ""}, {"task", "task.evaluate", ""}, {"task", "task.execute", ""}, {"task", "task.settle", ""},
		{"node", "event.send", "TASK_RESULT"}, {"broker", "broker.send", "TASK_RESULT"}})
	for node, c := range n.spans {
		for _, s := range c.all() {
			want := here
			if node == "provider-1" {
				want = there
			}
			if s.attribute("shallot.task.id") == id && !bytes.Equal(s.GetTraceId(), want) {
				t.Errorf("%s: %s of %s is in a trace of its own", node, s.GetName(), s.process)
			}
		}
	}
	n.nothingLeaves(t, id)
	n.nobodyIsNamed(t, ctx)
}

// nothingLeaves: no id of any trace is in what a broker was given to send, nor in what one got from the other.
func (n *network) nothingLeaves(t *testing.T, task string) {
	t.Helper()
	for node, w := range n.wires {
		if len(w.errs) > 0 || w.parents == 0 || !w.has([]byte(task)) {
			t.Fatalf("%s: of what goes through its broker the test sees %d messages, %d with a span, of the task %v, errors %v", node, len(w.messages), w.parents, w.has([]byte(task)), w.errs)
		}
		for of, c := range n.spans {
			ids := c.traceIDs()
			if len(ids) < 4 {
				t.Errorf("%s has %d traces: there should be more to look for", of, len(ids)/2)
			}
			for _, id := range ids {
				if w.has(id) {
					t.Errorf("what goes through the broker of %s has the trace %x of %s", node, id, of)
				}
			}
		}
	}
}

// nobodyIsNamed: no span names a peer or says where one is, or what was computed.
func (n *network) nobodyIsNamed(t *testing.T, ctx context.Context) {
	t.Helper()
	words := []string{"/ip4/", "127.0.0.1", n.Dir}
	for node := range n.spans {
		api, err := n.Node(node)
		if err != nil {
			t.Fatal(err)
		}
		r, err := api.GetNode(ctx, &nodev1.GetNodeRequest{ShowAddresses: true})
		if err != nil || r.GetNode().GetPeerId() == "" {
			t.Fatal(err)
		}
		words = append(words, r.GetNode().GetPeerId(), r.GetNode().GetPeerId()[44:])
	}
	for node, c := range n.spans {
		if !c.says("task.") {
			t.Errorf("%s: nothing to look at", node)
		}
		for _, word := range words {
			if c.says(word) {
				t.Errorf("the spans of %s say %q", node, word)
			}
		}
	}
}
