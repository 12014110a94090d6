package suite

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/shallot-net/shallot/test/internal/dev"
)

// screens asks a node's gateway as a screen would.
type screens struct {
	t     *testing.T
	url   string
	token string
}

func screensOf(t *testing.T, n *dev.Network, node string) *screens {
	t.Helper()
	var g struct {
		URL       string `json:"gateway_url"`
		TokenFile string `json:"token_file"`
	}
	r := shallot(t, n, node, "", "node", "--output", "json")
	if err := json.Unmarshal([]byte(r.stdout), &g); err != nil {
		t.Fatal(err, r.stdout, r.stderr)
	}
	token, err := os.ReadFile(g.TokenFile)
	if err != nil {
		t.Fatal(err)
	}
	return &screens{t, g.URL, strings.TrimSpace(string(token))}
}

func (s *screens) open(ctx context.Context, method, path, body string) *http.Response {
	s.t.Helper()
	req, err := http.NewRequestWithContext(ctx, method, s.url+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+s.token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	return resp
}

// ask reads one answer into out, and returns its status.
func (s *screens) ask(method, path, body string, out any) int {
	s.t.Helper()
	resp := s.open(s.t.Context(), method, path, body)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil {
		err = json.Unmarshal(b, out)
	}
	if err != nil {
		s.t.Fatalf("%s %s: %d, %v: %.300s", method, path, resp.StatusCode, err, b)
	}
	return resp.StatusCode
}

// What screens are made of, asked of a node as it runs.
func TestScreensOverREST(t *testing.T) {
	n := sharedNetwork(t)
	s := screensOf(t, n, consumer)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	watch := s.open(ctx, http.MethodGet, "/v1/tasks:watch?type=sum", "")
	defer watch.Body.Close()
	lines := bufio.NewScanner(watch.Body)
	type line struct {
		Result struct {
			Missed bool
			Task   struct{ ID, State string }
		}
	}
	next := func() (l line) {
		t.Helper()
		if !lines.Scan() {
			t.Fatalf("the watch ended: %v", lines.Err())
		}
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			t.Fatalf("%v: %s", err, lines.Text())
		}
		return l
	}
	if !next().Result.Missed {
		t.Fatalf("the watch begins with %s", lines.Text())
	}
	var task struct{ ID string }
	if status := s.ask(http.MethodPost, "/v1/tasks", `{"spec":{"type":"sum","sum":{"addends":["1","2"]}}}`, &task); status != http.StatusOK {
		t.Fatalf("the task was not taken: %d", status)
	}
	for l := next(); l.Result.Task.ID != task.ID || l.Result.Task.State != "COMPLETED"; l = next() {
	}

	var placement struct {
		Attempts []struct {
			PeerID        string `json:"peer_id"`
			ChosenBecause string `json:"chosen_because"`
			Considered    []struct{ Verdict string }
		}
	}
	s.ask(http.MethodGet, "/v1/tasks/"+task.ID+"/placement", "", &placement)
	if a := placement.Attempts; len(a) == 0 || a[0].PeerID == "" || a[0].ChosenBecause == "" || a[0].Considered[0].Verdict != "CHOSEN" || len(a[0].Considered) < 2 {
		t.Errorf("the placement is %+v", placement)
	}

	var settings struct {
		Processes []struct {
			Name, Error string
			Settings    []struct{ Name, Value, Origin string }
		}
	}
	s.ask(http.MethodGet, "/v1/settings", "", &settings)
	told := map[string]int{}
	for _, p := range settings.Processes {
		told[p.Name] = len(p.Settings)
		if p.Error != "" {
			t.Errorf("%s: %s", p.Name, p.Error)
		}
	}
	for _, name := range []string{"broker", "task", "node", "gateway"} {
		if told[name] < 5 {
			t.Errorf("%s tells %d settings", name, told[name])
		}
	}

	var history struct {
		Step   string
		Points []struct{ Memory string }
	}
	deadline := time.Now().Add(time.Minute)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for len(history.Points) == 0 && time.Now().Before(deadline) {
		s.ask(http.MethodGet, "/v1/node/history?span=600s", "", &history)
		<-tick.C
	}
	if len(history.Points) == 0 || history.Step != "10s" || history.Points[0].Memory == "0" {
		t.Errorf("the history is %+v", history)
	}

	var peers struct {
		Peers []struct {
			PeerID string `json:"peer_id"`
		}
	}
	s.ask(http.MethodGet, "/v1/peers", "", &peers)
	var trail struct{ Points []struct{ CPU float64 } }
	if len(peers.Peers) != 3 {
		t.Fatalf("%d peers", len(peers.Peers))
	}
	if status := s.ask(http.MethodGet, "/v1/peers/"+peers.Peers[0].PeerID+"/metrics/history", "", &trail); status != http.StatusOK {
		t.Errorf("a peer's history: %d", status)
	}
	var diagnosis struct {
		Findings []struct{ Check, Verdict, Detail, Mend string }
	}
	s.ask(http.MethodGet, "/v1/node:diagnose", "", &diagnosis)
	found := map[string]string{}
	for _, f := range diagnosis.Findings {
		found[f.Check] = f.Verdict
	}
	for _, check := range []string{"process broker", "process task", "process node", "network"} {
		if found[check] != "ok" {
			t.Errorf("%s is %q: %+v", check, found[check], diagnosis)
		}
	}
	if found["disk"] == "" || found["clock"] == "" {
		t.Errorf("it finds %+v", diagnosis)
	}
	var problem struct{ Reason string }
	if s.ask(http.MethodPost, "/v1/invites", "{}", &problem); problem.Reason != "NETWORK_OPEN" {
		t.Errorf("an invite to an open network: %+v", problem)
	}
}
