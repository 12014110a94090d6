// Package anonymous tests what nodes say to each other in anonymous mode, field by field.
//
// The services are real processes in anonymous mode; their brokers are in open mode and on loopback, because what carries the events says nothing of what is in
// them, and needs no Tor so. What the brokers themselves say is tested beside them.
package anonymous

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/shallot-net/shallot/kit/home"
	brokerv1 "github.com/shallot-net/shallot/proto/shallot/broker/v1"
	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	"github.com/shallot-net/shallot/test/internal/dev"
	"github.com/shallot-net/shallot/test/internal/tap"
)

const consumer = "consumer-1"

var nodes = []string{"provider-1", "provider-2", consumer}

// recorder keeps the events that leave nodes.
type recorder struct {
	t        *testing.T
	canaries []string

	mu     sync.Mutex
	events []*eventv1.Event
	faults map[string]bool
}

func (r *recorder) saw(method string, message []byte) {
	for _, c := range r.canaries {
		if bytes.Contains(message, []byte(c)) && strings.Contains(method, "EventService") {
			r.complain("%q left a node in %s", c, method)
		}
	}
	var ev *eventv1.Event
	switch method {
	case brokerv1.EventService_Send_FullMethodName:
		var m brokerv1.SendRequest
		if proto.Unmarshal(message, &m) == nil {
			ev = m.GetEvent()
		}
	case brokerv1.EventService_Publish_FullMethodName:
		var m brokerv1.PublishRequest
		if proto.Unmarshal(message, &m) == nil {
			ev = m.GetEvent()
		}
	case brokerv1.EventService_Sign_FullMethodName: // announcements are signed before they are told
		var m brokerv1.SignRequest
		if proto.Unmarshal(message, &m) == nil {
			ev = m.GetEvent()
		}
	default:
		return
	}
	if ev == nil {
		r.complain("a message of %s holds no event", method)
		return
	}
	r.mu.Lock()
	r.events = append(r.events, ev)
	r.mu.Unlock()
}

func (r *recorder) complain(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.faults[fmt.Sprintf(format, args...)] = true
}

func (r *recorder) all() []*eventv1.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.events)
}

// missing are the types of which nothing was said.
func (r *recorder) missing(types ...eventv1.EventType) (none []string) {
	all := r.all()
	for _, typ := range types {
		if !slices.ContainsFunc(all, func(ev *eventv1.Event) bool { return ev.GetType() == typ }) {
			none = append(none, typ.String())
		}
	}
	return none
}

// world is a network whose services are in anonymous mode, and what they say.
type world struct {
	t   *testing.T
	net *dev.Network
	*recorder
}

func start(t *testing.T) *world {
	t.Helper()
	bin, err := dev.Bin()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "anon") // sockets have short names
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	r := &recorder{t: t, faults: map[string]bool{}, canaries: []string{dir, "canary-"}}
	if host, err := os.Hostname(); err == nil && len(host) > 3 {
		r.canaries = append(r.canaries, host)
	}
	for _, name := range []string{"USER", "LOGNAME", "LANG", "LC_ALL", "HOSTNAME", "TRACEPARENT", "TZ"} {
		t.Setenv(name, "canary-"+strings.ToLower(name))
	}
	for _, node := range nodes {
		h, err := home.Open(filepath.Join(dir, node))
		if err != nil {
			t.Fatal(err)
		}
		socket := filepath.Join(dir, node+".sock")
		tapped, err := tap.Listen(socket, h.Socket("broker"), r.saw, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = tapped.Close() })
		config := ""
		for _, process := range []string{"discovery", "metric", "task", "node"} {
			config += process + ":\n  broker: unix:" + socket + "\n"
			if process == "task" { // strangers pay, so that what is said of it is said
				config += "  provider:\n    puzzle:\n      min: 4\n"
			}
			if process != "node" { // it would open personas, which open brokers have none of
				config += "  mode: anonymous\n"
			}
		}
		if err := os.WriteFile(filepath.Join(h.Dir, "config.yaml"), []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	n, err := dev.Start(t.Context(), dev.Config{Bin: bin, Dir: dir, Providers: 2, Consumers: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Stop(); err != nil {
			t.Errorf("stop: %v\n%s", err, n.Tail())
		}
	})
	return &world{t, n, r}
}

// shallot runs the command at the consumer.
func (w *world) shallot(want int, stdin []byte, args ...string) string {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 2*time.Minute)
	defer cancel()
	var in io.Reader
	if stdin != nil {
		in = bytes.NewReader(stdin)
	}
	out, talk, code, err := w.net.CLI(ctx, consumer, in, args...)
	if err != nil || code != want {
		w.t.Fatalf("shallot %s: exit code %d, want %d, %v\n%s", strings.Join(args, " "), code, want, err, talk)
	}
	return string(out)
}

// program compiles the probe, and writes one that traps.
func programs(t *testing.T) (probe, trap string) {
	t.Helper()
	dir := t.TempDir()
	probe, trap = filepath.Join(dir, "probe.wasm"), filepath.Join(dir, "trap.wasm")
	build := exec.Command("go", "build", "-trimpath", "-o", probe, "../programs/probe")
	build.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the probe: %v\n%s", err, out)
	}
	// A module that does nothing but trap: _start is `unreachable`.
	b := []byte("\x00asm\x01\x00\x00\x00\x01\x04\x01\x60\x00\x00\x03\x02\x01\x00\x07\x0a\x01\x06_start\x00\x00\x0a\x05\x01\x03\x00\x00\x0b")
	if err := os.WriteFile(trap, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return probe, trap
}

// TestSession plays a session of two providers and a consumer, reads every field of every event that left a node, and fails on one that is not on the list or finer
// than the list says.
func TestSession(t *testing.T) {
	probe, trap := programs(t)
	w := start(t)
	for digits := range 30 { // sizes that must not be told apart
		if got := w.shallot(0, nil, "run", "sum", "1"+strings.Repeat("0", digits), "0"); got != "1"+strings.Repeat("0", digits)+"\n" {
			t.Fatalf("the sum is %q", got)
		}
	}
	if sizes := w.sizes(); len(sizes) != 2 {
		t.Errorf("payloads and results of thirty small sums have the sizes %v: want one of either", sizes)
	}
	large := bytes.Repeat([]byte("0123456789abcdef"), 20_000)
	if got := w.shallot(0, large, "run", "wasm", probe, "--stdin", "-", "--", "cat"); got != string(large) {
		t.Errorf("%d bytes of %d came back", len(got), len(large))
	}
	if got := w.shallot(0, nil, "run", "wasm", probe, "--", "print", "300001"); len(got) != 300_001 {
		t.Errorf("%d bytes of 300001 came back", len(got))
	}
	w.shallot(0, nil, "run", "wasm", probe, "--", "logs", "5")
	w.shallot(3, nil, "run", "wasm", probe, "--", "exit", "3")
	if _, _, code, err := w.net.CLI(t.Context(), consumer, nil, "run", "wasm", trap); code == 0 || err != nil {
		t.Errorf("a trap ended with %d, %v", code, err)
	}
	if _, _, code, err := w.net.CLI(t.Context(), consumer, nil, "run", "wasm", "--timeout", "200ms", probe, "--", "loop"); code == 0 || err != nil {
		t.Errorf("a loop ended with %d, %v", code, err)
	}
	id := strings.TrimSpace(w.shallot(0, nil, "run", "wasm", "--detach", probe, "--", "wait", "600000"))
	w.until("the program has been reported twice", func() bool { return w.count(eventv1.EventType_EVENT_TYPE_TASK_PROGRESS) >= 2 })
	w.shallot(0, nil, "task", "cancel", id)
	w.shallot(0, nil, "metrics")
	w.shallot(0, nil, "peers")
	w.until("all was said", func() bool { return len(w.missing(session...)) == 0 })
	w.check()
}

// session are the types that every session has.
var session = []eventv1.EventType{
	eventv1.EventType_EVENT_TYPE_ANNOUNCEMENT, eventv1.EventType_EVENT_TYPE_METRIC_AVAILABLE, eventv1.EventType_EVENT_TYPE_DISCOVER, eventv1.EventType_EVENT_TYPE_DISCOVER_RESPONSE,
	eventv1.EventType_EVENT_TYPE_TASK_SUBMISSION, eventv1.EventType_EVENT_TYPE_TASK_ACCEPTED, eventv1.EventType_EVENT_TYPE_TASK_PROGRESS, eventv1.EventType_EVENT_TYPE_TASK_LOG,
	eventv1.EventType_EVENT_TYPE_TASK_RESULT, eventv1.EventType_EVENT_TYPE_TASK_FAILURE, eventv1.EventType_EVENT_TYPE_TASK_CANCEL, eventv1.EventType_EVENT_TYPE_TASK_COLLECTED,
}

func (r *recorder) count(typ eventv1.EventType) (n int) {
	for _, ev := range r.all() {
		if ev.GetType() == typ {
			n++
		}
	}
	return n
}

// sizes of ciphertexts that were named so far.
func (r *recorder) sizes() map[uint64]int {
	out := map[uint64]int{}
	for _, ev := range r.all() {
		var s eventv1.TaskSubmission
		var d eventv1.TaskResult
		switch {
		case ev.GetType() == eventv1.EventType_EVENT_TYPE_TASK_SUBMISSION && proto.Unmarshal(ev.GetPayload(), &s) == nil:
			out[s.GetPayloadSize()]++
		case ev.GetType() == eventv1.EventType_EVENT_TYPE_TASK_RESULT && proto.Unmarshal(ev.GetPayload(), &d) == nil:
			out[d.GetResultSize()]++
		}
	}
	return out
}

func (w *world) until(what string, f func() bool) {
	w.t.Helper()
	deadline := time.NewTimer(time.Minute)
	defer deadline.Stop()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !f() {
		select {
		case <-deadline.C:
			w.t.Fatalf("not within a minute: %s; not said: %v", what, w.missing(session...))
		case <-tick.C:
		}
	}
}

// check reads all that was said.
func (r *recorder) check() {
	r.t.Helper()
	list, messages := readList(r.t), spoken(r.t)
	events := r.all()
	said := map[string]int{}
	for _, ev := range events {
		r.event(ev, list, messages, said)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for f := range r.faults {
		r.t.Error(f)
	}
	r.t.Logf("%d events, %d fields of the list had a value", len(events), len(said))
}

// event reads one, and those in it.
func (r *recorder) event(ev *eventv1.Event, list map[string]string, messages map[int32]protoreflect.MessageType, said map[string]int) {
	r.message(ev.ProtoReflect(), list, messages, said)
	mt := messages[int32(ev.GetType())]
	if mt == nil {
		r.complain("an event of the type %v left a node", ev.GetType())
		return
	}
	payload := mt.New()
	if err := proto.Unmarshal(ev.GetPayload(), payload.Interface()); err != nil {
		r.complain("a %v does not decode: %v", ev.GetType(), err)
		return
	}
	r.message(payload, list, messages, said)
	if typ := ev.GetType(); typ == eventv1.EventType_EVENT_TYPE_TASK_SUBMISSION || typ == eventv1.EventType_EVENT_TYPE_TASK_FORCE_SUBMISSION {
		var sealed eventv1.SealedPayload
		if err := proto.Unmarshal(ev.GetAttachment(), &sealed); err != nil {
			r.complain("the attachment of a %v does not decode: %v", typ, err)
		}
		r.message(sealed.ProtoReflect(), list, messages, said)
	}
}

func (r *recorder) message(m protoreflect.Message, list map[string]string, messages map[int32]protoreflect.MessageType, said map[string]int) {
	if len(m.GetUnknown()) > 0 {
		r.complain("a %s has fields that the contract has not", m.Descriptor().Name())
	}
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		values := []protoreflect.Value{v}
		if f.IsList() {
			values = values[:0]
			for i := range v.List().Len() {
				values = append(values, v.List().Get(i))
			}
		}
		for _, v := range values {
			if !leaf(f) {
				if ev, ok := v.Message().Interface().(*eventv1.Event); ok {
					r.event(ev, list, messages, said)
				} else {
					r.message(v.Message(), list, messages, said)
				}
				continue
			}
			path := pathOf(f)
			said[path]++
			switch class := list[path]; {
			case class == "":
				r.complain("%s left a node, and is not on the list", path)
			case !classes[class](v):
				r.complain("%s is %v, which is finer than %s", path, v, class)
			}
		}
		return true
	})
}
