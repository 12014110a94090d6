package anonymous

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// Find is a secret in a place where it must not be.
type Find struct{ Where, Kind, Text string }

func (f Find) String() string { return fmt.Sprintf("%s has %s: %q", f.Where, f.Kind, f.Text) }

// exempt are the files in which some secrets have to be: who is dialled must be written down somewhere. They are for their owner alone, by their own mode or by that of a folder of the
// home. Where others are is in none of them.
var exempt = []struct {
	pattern string
	kinds   []string
	why     string
}{
	{"state/broker/identity.pem", []string{Key}, "the key store"},
	{"state/broker/personas/*", []string{Key}, "the key store"},
	{"state/broker/peers.json", []string{Identity}, "the peer book"},
	{"state/discovery/discovery.db*", []string{Identity}, "the peer book"},
	{"state/task/task.db*", []string{Identity}, "with whom each task is"},
	{"state/onion/services.json", []string{Identity}, "the node's own services"},
	{"state/broker/repository/index/*", []string{Identity}, "to whom content was granted"},
}

// Files looks through all files of all homes, but for what is tor's.
func (n *Network) Files(t testing.TB, s *Secrets) (finds []Find) {
	t.Helper()
	finder, err := s.finder()
	if err != nil {
		t.Fatal(err)
	}
	for _, node := range n.Nodes() {
		home := n.Home(node)
		err := filepath.WalkDir(home, func(path string, e fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			name, err := filepath.Rel(home, path)
			if err != nil {
				return err
			}
			if e.IsDir() && name == filepath.Join("tor", "data") {
				return fs.SkipDir
			}
			if !e.Type().IsRegular() {
				return nil
			}
			b, err := os.ReadFile(path)
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			for kind, text := range finder.in(b) {
				if !allowed(t, path, name, kind) {
					finds = append(finds, Find{node + "/" + name, kind, text})
				}
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
	return finds
}

func allowed(t testing.TB, path, name, kind string) bool {
	t.Helper()
	for _, e := range exempt {
		if ok, err := filepath.Match(e.pattern, name); err != nil || !ok || !slices.Contains(e.kinds, kind) {
			continue
		}
		if !closed(path, name) {
			t.Errorf("%s is %s, and others can read it", name, e.why)
		}
		return true
	}
	return false
}

// closed tells whether nobody but its owner gets at a file of a home.
func closed(path, name string) bool {
	for ; name != "."; path, name = filepath.Dir(path), filepath.Dir(name) {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm()&0o077 == 0 {
			return true // it is closed, or gone
		}
	}
	return false
}

// openapi is the description of the REST interface, seen from a test's folder.
const openapi = "../../gateway/internal/openapi/openapi.json"

// Answers looks through what a node says to its user: all that REST has to read, and the same by the command, as a table and as JSON.
func (n *Network) Answers(t testing.TB, s *Secrets, node string) (finds []Find) {
	t.Helper()
	finder, err := s.finder()
	if err != nil {
		t.Fatal(err)
	}
	asked := 0
	look := func(where, answer string) {
		asked++
		for kind, text := range finder.in([]byte(answer)) {
			finds = append(finds, Find{node + ": " + where, kind, text})
		}
	}
	params := n.things(t, node)
	for _, path := range routes(t) {
		where := path
		for name, value := range params {
			path = strings.ReplaceAll(path, "{"+name+"}", value)
		}
		look("GET "+where, n.get(t, node, path))
	}
	for _, args := range [][]string{
		{"node"}, {"peers"}, {"metrics"}, {"task", "ls"}, {"job", "ls"}, {"doctor"}, {"content", "ls"}, {"version"}, {"metrics", params["peer_id"]},
		{"task", "show", params["task_id"]}, {"task", "logs", params["task_id"]}, {"task", "watch", params["task_id"]}, {"task", "result", params["task_id"]},
		{"job", "show", params["job_id"]}, {"job", "watch", params["job_id"]}, {"content", "stat", params["cid"]},
		// And what is wrong with a request.
		{"task", "show", "ffffffffffffffffffffffffffffffff"}, {"metrics", "p-aaaaaaaa"}, {"run", "sum", "--provider", "p-aaaaaaaa", "1"}, {"run", "sum", "x"},
	} {
		if args[len(args)-1] == "" { // a provider has no tasks of its own
			continue
		}
		for _, form := range []string{"table", "json"} {
			r := n.Shallot(t, node, "", append(args, "--output", form)...)
			look("shallot "+strings.Join(args, " "), r.Stdout+r.Stderr)
		}
	}
	t.Logf("%s was asked %d times", node, asked)
	return finds
}

// things are one of each kind that routes are about.
func (n *Network) things(t testing.TB, node string) map[string]string {
	t.Helper()
	first := func(path, list, field string) string {
		var answer map[string][]map[string]any
		if err := json.Unmarshal([]byte(n.get(t, node, path)), &answer); err != nil || len(answer[list]) == 0 {
			return ""
		}
		id, _ := answer[list][0][field].(string)
		return id
	}
	r := n.Shallot(t, node, "some content", "content", "put", "-")
	if r.Code != 0 {
		t.Errorf("content put: %s", r.Stderr)
	}
	return map[string]string{
		"task_id": first("/v1/tasks", "tasks", "id"), "job_id": first("/v1/jobs", "jobs", "id"), "peer_id": first("/v1/peers", "peers", "alias"), "cid": strings.TrimSpace(r.Stdout),
	}
}

// routes are all that REST answers to GET.
func routes(t testing.TB) (paths []string) {
	t.Helper()
	b, err := os.ReadFile(openapi)
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Paths map[string]map[string]json.RawMessage
	}
	if err := json.Unmarshal(b, &doc); err != nil {
		t.Fatal(err)
	}
	for path, methods := range doc.Paths {
		if methods["get"] != nil {
			paths = append(paths, path)
		}
	}
	slices.Sort(paths)
	return paths
}

// get returns what REST answers.
func (n *Network) get(t testing.TB, node, path string) string {
	t.Helper()
	var gateway struct {
		URL       string `json:"url"`
		TokenFile string `json:"token_file"`
	}
	b, err := os.ReadFile(filepath.Join(n.Home(node), "run", "gateway.json"))
	if err == nil {
		err = json.Unmarshal(b, &gateway)
	}
	token, terr := os.ReadFile(gateway.TokenFile)
	if err = errors.Join(err, terr); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, gateway.URL+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatalf("GET %s: %v", path, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 32<<20))
	if err != nil && ctx.Err() == nil { // a watch may have no end
		t.Errorf("GET %s: %v", path, err)
	}
	if resp.StatusCode >= http.StatusInternalServerError && resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("GET %s: %s %s", path, resp.Status, body)
	}
	return string(body)
}
