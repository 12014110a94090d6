package suite

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/cookiejar"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// visitor is a browser, as far as a gateway can see.
type visitor struct{ http.Client }

// ask is what a page of origin asks.
func (v *visitor) ask(t *testing.T, method, url, origin, body string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Origin", origin)
	resp, err := v.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// A browser that `shallot dashboard` has let in uses the node, and the others of its network, until it logs out.
func TestDashboardLogsABrowserIn(t *testing.T) {
	n := sharedNetwork(t)
	r := shallot(t, n, consumer, "", "dashboard", "--no-open")
	url, code, ok := strings.Cut(strings.TrimSpace(r.stdout), "/#code=")
	if r.code != 0 || !ok {
		t.Fatalf("exit code %d, %s%s", r.code, r.stdout, r.stderr)
	}
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	v := &visitor{http.Client{Jar: jar, Timeout: time.Minute}}
	if status, page := v.ask(t, "GET", url+"/", url, ""); status != 200 || !strings.Contains(page, "<title>Shallot") {
		t.Fatalf("the page: %d %s", status, page)
	}
	if status, body := v.ask(t, "GET", url+"/v1/node", url, ""); status != 401 {
		t.Fatalf("before the login: %d %s", status, body)
	}
	if status, body := v.ask(t, "POST", url+"/v1/session", url, `{"code": "`+code+`"}`); status != 204 {
		t.Fatalf("the login: %d %s", status, body)
	}
	status, body := v.ask(t, "POST", url+"/v1/tasks", url, `{"spec": {"type": "sum", "sum": {"addends": ["0.1", "0.2"]}}}`)
	if status != 200 {
		t.Fatalf("a task: %d %s", status, body)
	}
	if status, body := v.ask(t, "POST", url+"/v1/tasks", "http://127.0.0.1:1", `{"spec": {"type": "sum", "sum": {"addends": ["1"]}}}`); status != 403 {
		t.Errorf("a task of another program's page: %d %s", status, body)
	}

	status, body = v.ask(t, "GET", url+"/v1/session", url, "")
	var s struct {
		Nodes []struct {
			Name, Role, URL string
			Current         bool
		}
	}
	if err := json.Unmarshal([]byte(body), &s); err != nil || status != 200 || len(s.Nodes) != 4 {
		t.Fatalf("%d %s", status, body)
	}
	for _, node := range s.Nodes {
		status, body := v.ask(t, "GET", node.URL+"/v1/node", node.URL, "")
		var at struct{ Role string }
		if err := json.Unmarshal([]byte(body), &at); err != nil || status != 200 || at.Role != node.Role || node.Current != (node.URL == url) {
			t.Errorf("%+v: %d %s", node, status, body)
		}
	}
	if status, body := v.ask(t, "DELETE", s.Nodes[0].URL+"/v1/session", s.Nodes[0].URL, ""); status != 204 {
		t.Errorf("logging out at another node: %d %s", status, body)
	}
	if status, body := v.ask(t, "GET", url+"/v1/node", url, ""); status != 401 {
		t.Errorf("after it: %d %s", status, body)
	}
	for _, node := range n.Nodes() {
		log, err := os.ReadFile(filepath.Join(n.Home(node), "logs", "gateway.log"))
		if strings.Contains(string(log), code) || (err != nil && !os.IsNotExist(err)) { // there is none where nothing was said
			t.Errorf("the log of the gateway of %s has the code, or cannot be read: %v", node, err)
		}
	}
}
