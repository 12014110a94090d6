// Package compose tests a node in containers, as deploy/docker-compose.yml describes it: what the files say, and, where there is an engine, how it
// lives, is hurt and ends. The latter is `make test-compose`.
package compose

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shallot-net/shallot/test/internal/deployment"
)

const deploy = "../../deploy"

// project is one deployment, under a name of its own.
type project struct {
	*deployment.Project
	t *testing.T
}

// needEngine leaves the test out where nobody asked for it: it builds images, which takes minutes.
func needEngine(t *testing.T) {
	t.Helper()
	if os.Getenv("SHALLOT_COMPOSE") == "" {
		t.Skip("it needs a Docker engine and some minutes: make test-compose")
	}
	if out, err := exec.CommandContext(t.Context(), "docker", "compose", "version", "--short").CombinedOutput(); err != nil {
		t.Fatalf("there is no engine with docker compose: %v, %s", err, out)
	}
}

// newProject makes a project whose containers, volumes and networks are gone at the end of the test.
func newProject(t *testing.T, name string, files ...string) *project {
	t.Helper()
	p := &project{deployment.New(deploy, "shallot-test-"+name, files...), t}
	p.must(p.compose(time.Minute, "down", "--volumes", "--remove-orphans")) // of a run that was killed
	t.Cleanup(func() {
		if t.Failed() {
			p.tell()
		}
		p.must(p.compose(2*time.Minute, "down", "--volumes", "--remove-orphans"))
		p.nothingLeft()
	})
	return p
}

// compose runs docker compose on the project.
func (p *project) compose(within time.Duration, args ...string) (string, error) {
	// At the end of a test its own context is over, and things are still to be taken down.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(p.t.Context()), within)
	defer cancel()
	return p.Compose(ctx, args...)
}

func (p *project) must(out string, err error) string {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
	return out
}

// tell logs what the containers are and said, for whoever has to find out.
func (p *project) tell() {
	if out, err := p.compose(time.Minute, "ps", "-a"); err == nil {
		p.t.Log(out)
	}
	if out, err := p.compose(time.Minute, "logs", "--no-color", "--tail", "30"); err == nil {
		p.t.Log(out)
	}
}

// nothingLeft finds what `down` should have removed.
func (p *project) nothingLeft() {
	p.t.Helper()
	for what, args := range map[string][]string{
		"containers": {"ps", "-aq"}, "volumes": {"volume", "ls", "-q"}, "networks": {"network", "ls", "-q"},
	} {
		out, err := deployment.Docker(context.WithoutCancel(p.t.Context()), append(args, "--filter", "label=com.docker.compose.project="+p.Name)...)
		if err != nil || out != "" {
			p.t.Errorf("%s are left: %q, %v", what, out, err)
		}
	}
}

// containers of a service, in the order of their numbers.
func (p *project) containers(service string) []string {
	p.t.Helper()
	return strings.Fields(p.must(p.compose(time.Minute, "ps", "-aq", service)))
}

// services that run all the time.
func (p *project) services() []string {
	p.t.Helper()
	return strings.Fields(p.must(p.compose(time.Minute, "config", "--services")))
}

// gateway is a client of one replica of a gateway, over the port that the machine publishes.
type gateway struct {
	find   func() (url string, err error)
	token  string
	client http.Client

	mu  sync.Mutex
	url string
}

func (p *project) gateway(service string) *gateway {
	p.t.Helper()
	find := func() (string, error) {
		at, err := p.compose(time.Minute, "port", service, "8080")
		return "http://" + strings.TrimSpace(at), err
	}
	token := p.must(p.compose(time.Minute, "exec", "-T", service, "cat", "/var/lib/shallot/token/gateway.token"))
	return &gateway{find: find, url: p.must(find()), token: strings.TrimSpace(token), client: http.Client{Timeout: 20 * time.Second}}
}

func (g *gateway) do(ctx context.Context, method, path string, body any) (int, []byte, error) {
	b, err := json.Marshal(body)
	if err != nil {
		return 0, nil, err
	}
	g.mu.Lock()
	url := g.url
	g.mu.Unlock()
	req, err := http.NewRequestWithContext(ctx, method, url+path, bytes.NewReader(b))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Authorization", "Bearer "+g.token)
	resp, err := g.client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return resp.StatusCode, got, err
}

// look finds where the gateway is now: one that has died may get another port of the range.
func (g *gateway) look() {
	if url, err := g.find(); err == nil {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.url = url
	}
}

// task is what REST tells of one.
type task struct{ ID, State string }

func (t task) ended() bool {
	return t.State == "COMPLETED" || t.State == "FAILED" || t.State == "CANCELLED" || t.State == "EXPIRED"
}

// sum submits a task and sees it through whatever happens meanwhile: every call is made again until it is answered, and a repeated submission is
// the same task by its request id.
func (g *gateway) sum(ctx context.Context, requestID string, addends ...string) (t task, result string, err error) {
	spec := map[string]any{"request_id": requestID, "spec": map[string]any{"type": "sum", "sum": map[string]any{"addends": addends}}}
	body, err := g.until(ctx, "POST", "/v1/tasks", spec, func([]byte) bool { return true })
	if err == nil {
		err = json.Unmarshal(body, &t)
	}
	if err != nil {
		return t, "", err
	}
	if _, err = g.until(ctx, "GET", "/v1/tasks/"+t.ID, nil, func(body []byte) bool {
		return json.Unmarshal(body, &t) == nil && t.ended()
	}); err != nil {
		return t, "", err
	}
	if t.State != "COMPLETED" {
		return t, "", fmt.Errorf("task %s is %s", t.ID, t.State)
	}
	body, err = g.until(ctx, "GET", "/v1/tasks/"+t.ID+"/result", nil, func([]byte) bool { return true })
	return t, strings.TrimSpace(string(body)), err
}

// until asks every tenth of a second until the answer is a good one that done likes.
func (g *gateway) until(ctx context.Context, method, path string, body any, done func([]byte) bool) ([]byte, error) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		status, got, err := g.do(ctx, method, path, body)
		if err == nil && status == http.StatusOK && done(got) {
			return got, nil
		}
		if err != nil && ctx.Err() == nil {
			g.look()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, fmt.Errorf("%s %s: the last answer was %d, %s, %w: %w", method, path, status, deployment.Tail(string(got), 500), err, ctx.Err())
		}
	}
}
