package rest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/shallot-net/shallot/gateway/internal/access"
	"github.com/shallot-net/shallot/gateway/internal/openapi"
	"github.com/shallot-net/shallot/kit/grpctest"
	"github.com/shallot-net/shallot/kit/home"
	"github.com/shallot-net/shallot/kit/logging"
	"github.com/shallot-net/shallot/kit/rpc"
	"github.com/shallot-net/shallot/kit/telemetry"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
	telemetryv1 "github.com/shallot-net/shallot/proto/shallot/telemetry/v1"
)

type gateway struct {
	*httptest.Server
	node  *fakeNode
	jobs  *fakeJobs
	token string
	log   *bytes.Buffer
}

func start(t *testing.T) *gateway {
	t.Helper()
	f := &fakeNode{ready: true, tasks: map[string]*taskv1.Task{}, content: map[string][]byte{}, watch: make(chan *taskv1.Task)}
	jobs := &fakeJobs{}
	conn := grpctest.Start(t, func(s *rpc.Server) {
		nodev1.RegisterNodeServiceServer(s, f)
		nodev1.RegisterJobServiceServer(s, jobs)
		telemetryv1.RegisterTelemetryServiceServer(s, &telemetryOf{f: f})
	})
	h, err := home.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	logger := logging.New(&log, "debug", "json", "gateway")
	keys, err := access.OpenKeyring("", h, logger, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	word, err := os.ReadFile(keys.File)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(nil)
	hosts, err := access.NewHosts(server.Listener.Addr().String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	handler, err := New(Config{
		Node: conn, Log: logger, Registry: telemetry.NewRegistry(), MaxBody: 1 << 20, MaxUpload: 4 << 20,
		Timeout: 5 * time.Second, Guard: access.Guard{Keys: keys, Hosts: hosts}, Siblings: Siblings{Home: h},
		Settings: &telemetryv1.ProcessSettings{Name: "gateway", Settings: []*telemetryv1.Setting{{Name: "max_body", Value: "1MiB", Origin: "default"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	server.Config.Handler = handler
	server.Start()
	t.Cleanup(server.Close)
	return &gateway{server, f, jobs, strings.TrimSpace(string(word)), &log}
}

type telemetryOf struct {
	telemetryv1.UnimplementedTelemetryServiceServer
	f *fakeNode
}

func (o *telemetryOf) Gather(ctx context.Context, r *telemetryv1.GatherRequest) (*telemetryv1.GatherResponse, error) {
	return o.f.Gather(ctx, r)
}

func (g *gateway) do(t *testing.T, method, path, body string) (int, string, http.Header) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, g.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+g.token)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b), resp.Header
}

func TestTaskOverREST(t *testing.T) {
	g := start(t)
	status, body, _ := g.do(t, "POST", "/v1/tasks", `{"request_id": "r1", "spec": {"type": "sum", "sum": {"addends": ["1", "2"]}}}`)
	var task struct {
		ID, State string
		RequestID string `json:"request_id"`
	}
	if err := json.Unmarshal([]byte(body), &task); err != nil || status != 200 || task.State != "PENDING" || task.RequestID != "r1" {
		t.Fatalf("status %d, %s, %v", status, body, err)
	}
	if status, body, _ = g.do(t, "GET", "/v1/tasks?states=PENDING", ""); status != 200 || !strings.Contains(body, task.ID) {
		t.Errorf("list: status %d, %s", status, body)
	}
	if status, body, _ = g.do(t, "GET", "/v1/tasks?states=FAILED", ""); status != 200 || strings.Contains(body, task.ID) {
		t.Errorf("filtered list: status %d, %s", status, body)
	}
	if status, body, _ = g.do(t, "POST", "/v1/tasks/"+task.ID+":cancel", ""); status != 200 || !strings.Contains(body, "CANCELLED") {
		t.Errorf("cancel: status %d, %s", status, body)
	}
}

func TestProblems(t *testing.T) {
	g := start(t)
	for _, c := range []struct {
		name, method, path, body string
		status                   int
		reason, says             string
	}{
		{"an unknown task", "GET", "/v1/tasks/nope", "", 404, "TASK_NOT_FOUND", "nope"},
		{"bad input", "POST", "/v1/tasks", `{"spec": {"type": "sum"}}`, 400, "ADDENDS_MISSING", "addend"},
		{"an unknown field", "POST", "/v1/tasks", `{"spce": {}}`, 400, "", "spce"},
		{"no JSON", "POST", "/v1/tasks", `{`, 400, "", ""},
		{"a body that is too large", "POST", "/v1/tasks", `{"request_id": "` + strings.Repeat("x", 2<<20) + `"}`, 413, "BODY_TOO_LARGE", "uploads"},
		{"an unknown path", "GET", "/v2/thing", "", 404, "PATH_NOT_FOUND", "/v2/thing"},
		{"an unknown path of the API", "GET", "/v1/thing", "", 404, "PATH_NOT_FOUND", "/v1/thing"},
		{"another method", "DELETE", "/v1/tasks", "", 405, "METHOD_NOT_ALLOWED", "DELETE"},
		{"a bad offset", "GET", "/v1/content/cid?offset=-1", "", 400, "OFFSET", "-1"},
		{"content that nobody has", "GET", "/v1/content/none", "", 404, "CONTENT_NOT_FOUND", "none"},
	} {
		t.Run(c.name, func(t *testing.T) {
			status, body, header := g.do(t, c.method, c.path, c.body)
			var p Problem
			if err := json.Unmarshal([]byte(body), &p); err != nil || header.Get("Content-Type") != "application/json" {
				t.Fatalf("the body is no problem: %s", body)
			}
			if status != c.status || (c.reason != "" && p.Reason != c.reason) || !strings.Contains(p.Message, c.says) {
				t.Errorf("status %d, %+v", status, p)
			}
		})
	}
}

// What goes wrong inside is a reference for the asker; the reason is in the log, under the same reference.
func TestInternalErrorsAreMasked(t *testing.T) {
	g := start(t)
	g.node.fail = errors.New("the secret path /var/lib/thing is broken")
	status, body, _ := g.do(t, "GET", "/v1/node", "")
	var p Problem
	if err := json.Unmarshal([]byte(body), &p); err != nil || status != 500 || p.Reference == "" {
		t.Fatalf("status %d, %s, %v", status, body, err)
	}
	if strings.Contains(body, "secret") {
		t.Errorf("the answer tells what is inside: %s", body)
	}
}

func TestContentIsStreamedBothWays(t *testing.T) {
	g := start(t)
	want := strings.Repeat("0123456789", 200_000)
	status, body, _ := g.do(t, "POST", "/v1/content", want)
	if status != 200 || !strings.Contains(body, `"cid":"cid"`) {
		t.Fatalf("put: status %d, %s", status, body)
	}
	status, got, header := g.do(t, "GET", "/v1/content/cid", "")
	if status != 200 || got != want || header.Get("Content-Disposition") != "attachment" || header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("get: status %d, %d bytes, %v", status, len(got), header)
	}
	if _, got, _ = g.do(t, "GET", "/v1/content/cid?offset=1999990", ""); got != "0123456789" {
		t.Errorf("get from an offset: %q", got)
	}
	g.node.content["dir/a b/c"] = []byte("in a directory")
	if _, got, _ = g.do(t, "GET", "/v1/content/cid?from_peers=p-1&from_peers=p-2", ""); got != "from p-1 p-2" {
		t.Errorf("content by named peers is %q", got)
	}
	if _, got, _ = g.do(t, "GET", "/v1/content/dir?path=a%20b/c&offset=5", ""); got != "directory" {
		t.Errorf("a file in a directory is %q", got)
	}
	if status, got, _ = g.do(t, "GET", "/v1/content/dir:list?recursive=true", ""); status != 200 || !strings.Contains(got, `"path":"a b/c"`) || !strings.Contains(got, `"size":"14"`) {
		t.Errorf("the directory is %d %q", status, got)
	}
	delete(g.node.content, "dir/a b/c")
	if status, body, _ = g.do(t, "POST", "/v1/content:verify", `{"no_repair": true}`); status != 200 || strings.Count(body, "\n") != 2 ||
		!strings.Contains(body, `"problem":"damaged"`) || !strings.Contains(body, `"repaired":false`) || !strings.Contains(body, `"done":true`) {
		t.Errorf("verify: %d %s", status, body)
	}
	if status, body, _ = g.do(t, "POST", "/v1/content", strings.Repeat("x", 5<<20)); status != 413 {
		t.Errorf("too much: status %d, %s", status, body)
	}
	if status, body, _ = g.do(t, "POST", "/v1/content:collect", ""); status != 200 || !strings.Contains(body, `"blocks":"1"`) {
		t.Errorf("collect: %d %s", status, body)
	}
	if status, _, _ = g.do(t, "GET", "/v1/content/cid", ""); status != 404 {
		t.Errorf("what was collected is answered with %d", status)
	}
}

func TestWatchIsAStream(t *testing.T) {
	g := start(t)
	r, _ := http.NewRequestWithContext(t.Context(), "GET", g.URL+"/v1/tasks/x:watch", nil)
	r.Header.Set("Authorization", "Bearer "+g.token)
	go func() { g.node.watch <- &taskv1.Task{State: "RUNNING"} }()
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	d := json.NewDecoder(resp.Body)
	for i, state := range []string{"RUNNING", "COMPLETED"} {
		if i > 0 { // only now: the first one has arrived before the second was there
			g.node.watch <- &taskv1.Task{State: state}
		}
		var m struct {
			Result struct{ Task struct{ State string } }
		}
		if err := d.Decode(&m); err != nil || m.Result.Task.State != state {
			t.Fatalf("message %d is %+v, %v", i, m, err)
		}
	}
	close(g.node.watch)
	if err := d.Decode(new(any)); !errors.Is(err, io.EOF) {
		t.Errorf("after the end: %v", err)
	}
}

func TestMetricsCoverEveryProcess(t *testing.T) {
	g := start(t)
	g.do(t, "GET", "/v1/node", "") // something to count
	status, body, _ := g.do(t, "GET", "/metrics", "")
	if status != 200 {
		t.Fatalf("status %d", status)
	}
	for _, want := range []string{`shallot_things{process="broker"} 1`, `shallot_things{process="task"} 2`, `shallot_up{process="broker"} 1`,
		`shallot_up{process="metric"} 0`, `shallot_up{process="gateway"} 1`, MetricRequests} {
		if !strings.Contains(body, want) {
			t.Errorf("%s is not in the answer", want)
		}
	}
}

func TestHealthAndPagesNeedNoToken(t *testing.T) {
	g := start(t)
	g.token = ""
	for path, want := range map[string]int{"/healthz": 200, "/readyz": 200, "/": 200, "/openapi.json": 200, "/api": 200, "/api/style.css": 200, "/style.css": 404, "/metrics": 401, "/v1/node": 401,
		"/v1/tasks": 401, "/v1/content/x": 401} {
		if status, body, _ := g.do(t, "GET", path, ""); status != want {
			t.Errorf("%s: status %d, %s", path, status, body)
		}
	}
	g.node.ready = false
	if status, body, _ := g.do(t, "GET", "/readyz", ""); status != 503 || body != "not ready\n" {
		t.Errorf("readyz of a node that is not ready: %d, %q", status, body)
	}
}

// Every path of the document is served, and the page shows it.
func TestDocumentIsTrue(t *testing.T) {
	g := start(t)
	var doc struct {
		Paths map[string]map[string]any
	}
	if err := json.Unmarshal(openapi.Document(), &doc); err != nil {
		t.Fatal(err)
	}
	_, page, _ := g.do(t, "GET", "/api", "")
	for path, methods := range doc.Paths {
		if !strings.Contains(page, path) {
			t.Errorf("the page does not show %s", path)
		}
		for method := range methods {
			if strings.HasSuffix(path, ":watch") {
				continue
			}
			asked := strings.NewReplacer("{task_id}", "x", "{cid}", "x", "{peer_id}", "x", "{job_id}", "x", "{name}", "x").Replace(path)
			_, body, _ := g.do(t, strings.ToUpper(method), asked, "")
			if strings.Contains(body, "PATH_NOT_FOUND") || strings.Contains(body, "METHOD_NOT_ALLOWED") {
				t.Errorf("%s %s is in the document and not served: %s", method, path, body)
			}
		}
	}
}

func TestPortIsKept(t *testing.T) {
	h, err := home.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	first, err := Listen(t.Context(), "127.0.0.1:0", h)
	if err != nil {
		t.Fatal(err)
	}
	addr := first.Addr().String()
	first.Close()
	again, err := Listen(t.Context(), "127.0.0.1:0", h)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if again.Addr().String() != addr {
		t.Errorf("the address was %s and is %s", addr, again.Addr())
	}
	// Taken by somebody else: another one is chosen. Asked for by number: a clear error.
	third, err := Listen(t.Context(), "127.0.0.1:0", h)
	if err != nil {
		t.Fatal(err)
	}
	third.Close()
	_, port, _ := net.SplitHostPort(addr)
	if _, err := Listen(t.Context(), "127.0.0.1:"+port, h); err == nil || !strings.Contains(err.Error(), port) {
		t.Errorf("a port in use: %v", err)
	}
}
