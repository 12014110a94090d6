package rest

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

	"github.com/shallot-net/shallot/kit/home"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
)

// browser keeps cookies and says what browsers say of the page that asks.
type browser struct {
	http.Client
	g            *gateway
	origin, site string
}

func (g *gateway) browser(t *testing.T) *browser {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &browser{Client: http.Client{Jar: jar}, g: g, origin: g.URL, site: "same-origin"}
}

func (b *browser) do(t *testing.T, method, path, body string) (int, string, http.Header) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, b.g.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if method != http.MethodGet {
		r.Header.Set("Origin", b.origin)
	}
	r.Header.Set("Sec-Fetch-Site", b.site)
	resp, err := b.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(answer), resp.Header
}

func (g *gateway) code(t *testing.T) string {
	t.Helper()
	status, body, _ := g.do(t, "POST", "/v1/session:code", "")
	var a struct {
		Code      string
		ExpiresIn string `json:"expires_in"`
	}
	if err := json.Unmarshal([]byte(body), &a); err != nil || status != 200 || a.Code == "" || a.ExpiresIn != "1m0s" {
		t.Fatalf("%d %s", status, body)
	}
	return a.Code
}

func (b *browser) logIn(t *testing.T) {
	t.Helper()
	if status, body, _ := b.do(t, "POST", "/v1/session", `{"code": "`+b.g.code(t)+`"}`); status != 204 || body != "" {
		t.Fatalf("%d %s", status, body)
	}
}

func TestSessionOfABrowser(t *testing.T) {
	g := start(t)
	b := g.browser(t)
	if status, body, _ := b.do(t, "GET", "/v1/node", ""); status != 401 || !strings.Contains(body, "shallot dashboard") {
		t.Fatalf("without a session: %d %s", status, body)
	}
	b.logIn(t)
	for _, c := range []struct {
		method, path, body string
		status             int
	}{
		{"GET", "/v1/node", "", 200}, {"GET", "/metrics", "", 200},
		{"POST", "/v1/tasks", `{"spec": {"type": "sum", "sum": {"addends": ["1"]}}}`, 200},
		{"POST", "/v1/content", "some bytes", 200}, {"POST", "/v1/session:code", "", 401}, // which would make a session without an end
	} {
		if status, body, _ := b.do(t, c.method, c.path, c.body); status != c.status {
			t.Errorf("%s %s: %d %s", c.method, c.path, status, body)
		}
	}
	status, body, _ := b.do(t, "GET", "/v1/session", "")
	var s struct {
		ExpiresAt time.Time `json:"expires_at"`
		Token     string
		Nodes     []Sibling
	}
	if err := json.Unmarshal([]byte(body), &s); err != nil || status != 200 || s.Token != "main" || time.Until(s.ExpiresAt) < 11*time.Hour || len(s.Nodes) != 1 ||
		s.Nodes[0] != (Sibling{"consumer", "consumer", g.URL, true}) {
		t.Errorf("%d %s %v", status, body, err)
	}
	b.origin, b.site = "http://127.0.0.1:3000", "same-site"
	for _, c := range [][2]string{{"POST", "/v1/tasks"}, {"DELETE", "/v1/session"}, {"GET", "/v1/node"}} {
		if status, body, header := b.do(t, c[0], c[1], "{}"); status != 403 || !strings.Contains(body, "ORIGIN_NOT_ALLOWED") || header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s by a page of another port: %d %s", c, status, body)
		}
	}
	b.origin, b.site = g.URL, "same-origin"
	if status, body, _ = b.do(t, "DELETE", "/v1/session", ""); status != 204 {
		t.Errorf("logging out: %d %s", status, body)
	}
	if status, body, _ = b.do(t, "GET", "/v1/node", ""); status != 401 || !strings.Contains(body, "TOKEN_MISSING") {
		t.Errorf("after it: %d %s", status, body)
	}
	_, metrics, _ := g.do(t, "GET", "/metrics", "")
	for _, want := range []string{`{result="begun",process="gateway"} 1`, `{result="ended",process="gateway"} 1`, `{result="wrong",process="gateway"} 0`} {
		if !strings.Contains(metrics, MetricSessions+want) {
			t.Errorf("%s is not in the metrics", want)
		}
	}
}

// Whoever logs in over and over, with whatever body, is told why not, and nothing of it is in the log.
func TestBadLogins(t *testing.T) {
	g := start(t)
	used := g.code(t)
	g.browser(t).do(t, "POST", "/v1/session", `{"code": "`+used+`"}`)
	for _, c := range []struct {
		name, body, origin, site string
		status                   int
		reason                   string
	}{
		{"used", `{"code": "` + used + `"}`, g.URL, "same-origin", 401, "CODE_USED"},
		{"wrong", `{"code": "` + used + `x"}`, g.URL, "same-origin", 401, "CODE_WRONG"},
		{"the token", `{"code": "` + g.token + `"}`, g.URL, "same-origin", 401, "CODE_WRONG"},
		{"none", `{}`, g.URL, "same-origin", 400, "CODE_MISSING"},
		{"no body", ``, g.URL, "same-origin", 400, "CODE_MISSING"},
		{"no JSON", used, g.URL, "same-origin", 400, "BODY_INVALID"},
		{"a form", "code=" + used, g.URL, "same-origin", 400, "BODY_INVALID"},
		{"a number", `{"code": 7}`, g.URL, "same-origin", 400, "BODY_INVALID"},
		{"more than an object", `{"code": "x"} {}`, g.URL, "same-origin", 400, "BODY_INVALID"},
		{"another field", `{"token": "` + used + `"}`, g.URL, "same-origin", 400, "BODY_INVALID"},
		{"too much", `{"code": "` + strings.Repeat("x", 9<<10) + `"}`, g.URL, "same-origin", 429, "BODY_TOO_LARGE"},
		{"a page of another port", `{"code": "` + g.code(t) + `"}`, "http://127.0.0.1:3000", "same-site", 403, "ORIGIN_NOT_ALLOWED"},
		{"a page of another site", `{"code": "` + g.code(t) + `"}`, "https://evil.example.com", "cross-site", 403, "ORIGIN_NOT_ALLOWED"},
	} {
		b := g.browser(t)
		b.origin, b.site = c.origin, c.site
		status, body, header := b.do(t, "POST", "/v1/session", c.body)
		var p Problem
		if err := json.Unmarshal([]byte(body), &p); err != nil || status != c.status || p.Reason != c.reason || header.Get("Set-Cookie") != "" {
			t.Errorf("%s: %d %s", c.name, status, body)
		}
		if strings.Contains(body, used) || strings.Contains(body, g.token) {
			t.Errorf("%s: the answer says the code again: %s", c.name, body)
		}
	}
	for range 10 {
		g.browser(t).do(t, "POST", "/v1/session", `{"code": "x"}`)
	}
	if status, body, header := g.browser(t).do(t, "POST", "/v1/session", `{"code": "x"}`); status != 429 || !strings.Contains(body, "CODES_TOO_MANY") || header.Get("Retry-After") == "" {
		t.Errorf("too many: %d %s", status, body)
	}
	g.browser(t).logIn(t) // a good one among them
	if strings.Contains(g.log.String(), used) || strings.Contains(g.log.String(), g.token) {
		t.Error("a code or token is in the log")
	}
}

// What a session watches ends with it.
func TestWatchesEndWithTheirSession(t *testing.T) {
	g := start(t)
	defer close(g.node.watch)
	b := g.browser(t)
	b.logIn(t)
	go func() { g.node.watch <- &taskv1.Task{State: "RUNNING"} }()
	r, _ := http.NewRequestWithContext(t.Context(), "GET", g.URL+"/v1/tasks/x:watch", nil)
	resp, err := b.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	d := json.NewDecoder(resp.Body)
	if err := d.Decode(new(any)); err != nil {
		t.Fatal(err)
	}
	if status, body, _ := b.do(t, "DELETE", "/v1/session", ""); status != 204 {
		t.Fatalf("%d %s", status, body)
	}
	for err == nil { // an error of its own may come before the end
		err = d.Decode(new(any))
	}
}

func TestSiblings(t *testing.T) {
	dir := t.TempDir()
	type node struct{ Name, Role, Home string }
	var nodes []node
	homes := map[string]home.Home{}
	for _, n := range []node{{"provider-1", "provider", ""}, {"consumer-1", "consumer", ""}, {"consumer-2", "consumer", ""}} {
		n.Home = filepath.Join(dir, n.Name)
		h, err := home.Open(n.Home)
		if err != nil {
			t.Fatal(err)
		}
		homes[n.Name], nodes = h, append(nodes, n)
	}
	if err := Announce(homes["provider-1"], "127.0.0.1:7001", ""); err != nil {
		t.Fatal(err)
	}
	if err := Announce(homes["consumer-1"], "127.0.0.1:7002", ""); err != nil {
		t.Fatal(err)
	}
	nodes = append(nodes, node{"gone", "provider", filepath.Join(dir, "gone")})
	b, err := json.Marshal(map[string]any{"pid": 1, "nodes": nodes})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "dev.json")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	got := Siblings{Home: homes["consumer-1"], File: file}.near(t.Context(), "localhost:7002", nil)
	want := []Sibling{{"provider-1", "provider", "http://localhost:7001", false}, {"consumer-1", "consumer", "http://localhost:7002", true}}
	if len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("%v", got)
	}
}
