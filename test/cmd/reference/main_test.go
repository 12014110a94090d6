package main

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	brokerv1 "github.com/shallot-net/shallot/proto/shallot/broker/v1"
	discoveryv1 "github.com/shallot-net/shallot/proto/shallot/discovery/v1"
	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	executorv1 "github.com/shallot-net/shallot/proto/shallot/executor/v1"
	metricv1 "github.com/shallot-net/shallot/proto/shallot/metric/v1"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
	onionv1 "github.com/shallot-net/shallot/proto/shallot/onion/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
	telemetryv1 "github.com/shallot-net/shallot/proto/shallot/telemetry/v1"
)

const docs = "../../../docs/reference"

func document(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(docs, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestThePageHasAllOfTheContracts holds the page against the generated Go: comments may be older, until CI runs `make reference`, but nothing is missing.
func TestThePageHasAllOfTheContracts(t *testing.T) {
	page := document(t, "grpc.md")
	files := []protoreflect.FileDescriptor{brokerv1.File_shallot_broker_v1_events_proto, discoveryv1.File_shallot_discovery_v1_discovery_proto, eventv1.File_shallot_event_v1_event_proto,
		executorv1.File_shallot_executor_v1_executor_proto, metricv1.File_shallot_metric_v1_metric_proto, nodev1.File_shallot_node_v1_node_proto, onionv1.File_shallot_onion_v1_onion_proto,
		taskv1.File_shallot_task_v1_service_proto, telemetryv1.File_shallot_telemetry_v1_telemetry_proto}
	packages := map[protoreflect.FullName]bool{}
	for _, f := range files {
		packages[f.Package()] = true
	}
	calls, fields := 0, 0
	protoregistry.GlobalFiles.RangeFiles(func(f protoreflect.FileDescriptor) bool {
		if !packages[f.Package()] {
			return true
		}
		for i := range f.Services().Len() {
			s := f.Services().Get(i)
			for j := range s.Methods().Len() {
				calls++
				if m := s.Methods().Get(j); !strings.Contains(chapter(page, string(s.FullName())), "| `"+string(m.Name())+"` |") {
					t.Errorf("the page has no %s: make reference", m.FullName())
				}
			}
		}
		for i := range f.Messages().Len() {
			m := f.Messages().Get(i)
			for j := range m.Fields().Len() {
				fields++
				if x := m.Fields().Get(j); !strings.Contains(chapter(page, string(m.FullName())), "| `"+string(x.Name())+"` (") {
					t.Errorf("the page has no %s: make reference", x.FullName())
				}
			}
		}
		return true
	})
	if calls < 50 || fields < 300 {
		t.Errorf("only %d calls and %d fields were looked for", calls, fields)
	}
}

// chapter is what stands below a heading.
func chapter(page, heading string) string {
	_, rest, _ := strings.Cut(page, "\n### "+heading+"\n")
	text, _, _ := strings.Cut(rest, "\n### ")
	return text
}

func TestLinksOfThePageLeadSomewhere(t *testing.T) {
	page := document(t, "grpc.md")
	headings := map[string]bool{}
	for line := range strings.Lines(page) {
		if h := strings.TrimLeft(line, "#"); h != line {
			headings[anchor(strings.TrimSpace(h))] = true
		}
	}
	for i, part := range strings.Split(page, "](#") {
		if to, _, ok := strings.Cut(part, ")"); i > 0 && (!ok || !headings[to]) {
			t.Errorf("a link leads to #%s, which is not there", to)
		}
	}
}

// TestEventsAreWhole: every type of event has a message that is on a channel, and every reference leads to something.
func TestEventsAreWhole(t *testing.T) {
	var doc map[string]any
	if err := yaml.Unmarshal([]byte(document(t, "events.asyncapi.yaml")), &doc); err != nil {
		t.Fatal(err)
	}
	messages := at(doc, "components", "messages")
	said := map[string]bool{}
	for _, channel := range at(doc, "channels") {
		for name := range channel.(map[string]any)["messages"].(map[string]any) {
			said[name] = true
		}
	}
	types := map[string]bool{}
	for name, m := range messages {
		types[m.(map[string]any)["x-event-type"].(string)] = true
		if !said[name] {
			t.Errorf("%s is on no channel", name)
		}
	}
	for number, name := range eventv1.EventType_name {
		if number != 0 && !types[name] {
			t.Errorf("there is no message for %s: make reference", name)
		}
	}
	refs := 0
	walk(doc, func(ref string) {
		refs++
		words := strings.Split(strings.TrimPrefix(ref, "#/"), "/")
		if at(doc, words...) == nil {
			t.Errorf("%s leads nowhere", ref)
		}
	})
	if refs < 100 {
		t.Errorf("only %d references", refs)
	}
}

func at(doc map[string]any, words ...string) map[string]any {
	for _, w := range words {
		doc, _ = doc[w].(map[string]any)
	}
	return doc
}

func walk(v any, fn func(ref string)) {
	switch v := v.(type) {
	case map[string]any:
		for _, k := range slices.Sorted(maps.Keys(v)) {
			if ref, ok := v[k].(string); ok && k == "$ref" {
				fn(ref)
				continue
			}
			walk(v[k], fn)
		}
	case []any:
		for _, e := range v {
			walk(e, fn)
		}
	}
}

// TestEventsAreAsyncAPI has the document judged by the parser of those who make AsyncAPI.
func TestEventsAreAsyncAPI(t *testing.T) {
	leave := func(why, mend string) {
		line := "left out: the AsyncAPI document is not validated, because " + why + "; to get it: " + mend
		if os.Getenv("CI") == "true" {
			t.Fatal(line)
		}
		t.Skip(line)
	}
	if _, err := exec.LookPath("npm"); err != nil {
		leave("npm is missing", "apt-get install nodejs npm")
	}
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("validate")); err != nil {
		t.Fatal(err)
	}
	fetch := exec.CommandContext(t.Context(), "npm", "ci", "--no-audit", "--no-fund", "--prefer-offline", "--ignore-scripts")
	fetch.Dir = dir
	if out, err := fetch.CombinedOutput(); err != nil {
		leave("npm cannot fetch its parser: "+string(out), "check the network, or npm's registry")
	}
	file, err := filepath.Abs(filepath.Join(docs, "events.asyncapi.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	validate := exec.CommandContext(t.Context(), "node", "validate.mjs", file)
	validate.Dir = dir
	out, err := validate.CombinedOutput()
	if err != nil {
		t.Errorf("it is no AsyncAPI document: %v\n%s", err, out)
	}
	t.Logf("%s", out)
}
