package compose

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shallot-net/shallot/test/internal/deployment"
	"github.com/shallot-net/shallot/test/internal/module"
)

// TestDeployment brings up a provider and a consumer, uses them, looks how they are shut in, hurts them, and takes them down.
func TestDeployment(t *testing.T) {
	needEngine(t)
	p := newProject(t, "open")
	p.build()
	started := time.Now()
	p.must(p.compose(3*time.Minute, "up", "-d", "--wait"))
	t.Logf("ready %v after the start, 10 services", time.Since(started).Round(100*time.Millisecond))

	t.Run("a task over REST", p.taskOverREST)
	t.Run("a task by the command", p.taskByCommand)
	t.Run("a program on another machine", p.clients)
	t.Run("nothing is open that need not be", p.shutIn)
	t.Run("a mistake in a setting", p.badSetting)
	t.Run("containers die under tasks", p.killed)
	t.Run("each service in several replicas", p.scaled)
	t.Run("every line of a log is JSON", p.logs)
	t.Run("all stop in time", p.stops)
	t.Run("what was accepted is there after a restart", p.restarts)
}

// build makes the images anew from the sources; SHALLOT_COMPOSE=built takes those that are there with the tag "test", for who works on what comes after.
func (p *project) build() {
	p.t.Helper()
	if os.Getenv("SHALLOT_COMPOSE") == "built" {
		return
	}
	begin := time.Now()
	p.must(p.compose(14*time.Minute, "build"))
	p.t.Logf("images built in %v", time.Since(begin).Round(time.Second))
}

// with is the project for a part of the test.
func (p *project) with(t *testing.T) *project {
	own := *p
	own.t = t
	return &own
}

func (p *project) taskOverREST(t *testing.T) {
	p = p.with(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	g := p.gateway("consumer-gateway")
	if task, got, err := g.sum(ctx, "rest", "0.1", "0.2"); err != nil || got != "0.3" {
		t.Errorf("task %s: %q, %v", task.ID, got, err)
	}
	// The provider's own gateway tells of it, and knows no other token.
	other := p.gateway("gateway")
	if status, body, err := other.do(ctx, "GET", "/v1/node", nil); err != nil || status != 200 || !bytes.Contains(body, []byte(`"provider"`)) {
		t.Errorf("the provider's gateway: %d, %s, %v", status, body, err)
	}
	other.token = g.token
	if status, _, err := other.do(ctx, "GET", "/v1/node", nil); err != nil || status != 401 {
		t.Errorf("with the consumer's token: %d, %v", status, err)
	}
}

func (p *project) taskByCommand(t *testing.T) {
	p = p.with(t)
	if got, err := p.compose(time.Minute, "run", "--rm", "-T", "consumer-cli", "run", "sum", "1", "2", "3"); err != nil || got != "6\n" {
		t.Errorf("%q, %v", got, err)
	}
	file := filepath.Join(t.TempDir(), "small.wasm")
	if err := os.WriteFile(file, module.Small(), 0o644); err != nil { //nolint:gosec // the container's user reads it
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Dir(file), 0o755); err != nil { //nolint:gosec // likewise
		t.Fatal(err)
	}
	if got, err := p.compose(time.Minute, "run", "--rm", "-T", "-v", file+":/small.wasm:ro", "consumer-cli", "run", "wasm", "/small.wasm"); err != nil || got != "done\n" {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := p.compose(time.Minute, "run", "--rm", "-T", "cli", "--output", "json", "node"); err != nil || !strings.Contains(got, `"provider"`) {
		t.Errorf("%q, %v", got, err)
	}
}

// inspected is the part of what the engine tells of a container that matters here.
type inspected struct {
	Name   string
	Config struct {
		User   string
		Labels map[string]string
	}
	State      struct{ Pid, ExitCode int }
	HostConfig struct {
		ReadonlyRootfs, Privileged   bool
		CapDrop, CapAdd, SecurityOpt []string
		PidsLimit, Memory            int64
	}
	NetworkSettings struct {
		Ports map[string][]struct{ HostIP string }
	}
}

func inspect(t *testing.T, container string) (i inspected) {
	t.Helper()
	out, err := deployment.Docker(t.Context(), "inspect", container)
	if err != nil {
		t.Fatal(err)
	}
	var all []inspected
	if err := json.Unmarshal([]byte(out), &all); err != nil || len(all) != 1 {
		t.Fatalf("%v: %s", err, out)
	}
	return all[0]
}

// shutIn asks the engine, not the file: what it made of it counts.
func (p *project) shutIn(t *testing.T) {
	p = p.with(t)
	for _, s := range p.services() {
		for _, c := range p.containers(s) {
			i := inspect(t, c)
			h := i.HostConfig
			if !h.ReadonlyRootfs || h.Privileged || !slices.Contains(h.CapDrop, "ALL") || len(h.CapAdd) > 0 || !slices.Contains(h.SecurityOpt, "no-new-privileges:true") {
				t.Errorf("%s: %+v", s, h)
			}
			if h.PidsLimit < 1 || h.Memory < 1<<20 {
				t.Errorf("%s has no limit: %d processes, %d bytes", s, h.PidsLimit, h.Memory)
			}
			if user, _, _ := strings.Cut(i.Config.User, ":"); user == "" || user == "0" || user == "root" {
				t.Errorf("%s runs as %q", s, i.Config.User)
			}
			if i.Config.Labels["org.opencontainers.image.licenses"] != "Apache-2.0" || i.Config.Labels["org.opencontainers.image.version"] == "" {
				t.Errorf("%s has the labels %v", s, i.Config.Labels)
			}
			for port, at := range i.NetworkSettings.Ports {
				for _, b := range at {
					if b.HostIP != "127.0.0.1" {
						t.Errorf("%s publishes %s on %s", s, port, b.HostIP)
					}
				}
			}
			// What the kernel says of the process itself.
			status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", i.State.Pid))
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range []string{"CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1"} {
				if !bytes.Contains(status, []byte(want)) {
					t.Errorf("%s: the kernel does not say %q", s, want)
				}
			}
		}
	}
	p.noWayOut()
	for _, service := range []string{"broker", "discovery", "metric", "task", "node", "gateway"} { // or trace.tls would trust nobody
		if _, err := p.compose(time.Minute, "exec", "-T", service, "grep", "-q", "BEGIN CERTIFICATE", "/etc/ssl/certs/ca-certificates.crt"); err != nil {
			p.t.Errorf("%s knows no authority: %v", service, err)
		}
	}
}

// noWayOut has services try to reach the broker where other nodes reach it, which only brokers may.
func (p *project) noWayOut() {
	p.t.Helper()
	at, err := deployment.Docker(p.t.Context(), "inspect", "-f", `{{(index .NetworkSettings.Networks "`+p.Name+`_swarm").IPAddress}}`, p.containers("broker")[0])
	if err != nil || at == "" {
		p.t.Fatalf("where is the broker? %q, %v", at, err)
	}
	reach := func(service string) error {
		_, err := p.compose(time.Minute, "exec", "-T", service, "timeout", "2", "bash", "-c", "exec 3<>/dev/tcp/"+at+"/4001")
		return err
	}
	if err := reach("consumer-broker"); err != nil {
		p.t.Errorf("the consumer's broker does not reach the provider's: %v", err)
	}
	for _, service := range []string{"discovery", "metric", "task", "node", "consumer-task", "consumer-node"} {
		if reach(service) == nil {
			p.t.Errorf("%s reaches what is not on its own network", service)
		}
	}
}

// badSetting: a service that is set wrongly says so in one line, and does not run.
func (p *project) badSetting(t *testing.T) {
	p = p.with(t)
	for set, want := range map[string]string{
		"SHALLOT_TASK_PROVIDER_SLOTZ=1":  "SHALLOT_TASK_PROVIDER_SLOTS",
		"SHALLOT_TASK_PROVIDER_SLOTS=-1": "slots",
		"SHALLOT_TASK_ROLE=boss":         "boss",
	} {
		_, err := p.compose(time.Minute, "run", "--rm", "-T", "--no-deps", "-e", set, "task")
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", set, err)
		}
	}
}

// killed ends every service once under a stream of tasks, from outside and without a warning, as a machine's kernel does. The engine starts it
// again, and each task has one outcome.
func (p *project) killed(t *testing.T) {
	p = p.with(t)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	l := p.load(ctx, "kill", 2)
	for _, s := range p.services() {
		before := l.count()
		pid := inspect(t, p.containers(s)[0]).State.Pid
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Errorf("%s: %v", s, err)
			continue
		}
		p.healthyAgain(ctx, s, pid)
		// Tasks go on: ten more have their outcome.
		eventually(ctx, t, "tasks after the death of "+s, func() bool { return l.count() >= before+10 || t.Failed() })
	}
	l.end(ctx)
}

// healthyAgain waits until another process runs in a service's container and says that it is ready.
func (p *project) healthyAgain(ctx context.Context, service string, old int) {
	p.t.Helper()
	eventually(ctx, p.t, service+" is healthy again", func() bool {
		c := p.containers(service)
		if len(c) == 0 {
			return false
		}
		out, err := deployment.Docker(ctx, "inspect", "-f", "{{.State.Pid}} {{.State.Health.Status}}", c[0])
		pid, health, _ := strings.Cut(out, " ")
		return err == nil && pid != strconv.Itoa(old) && pid != "0" && health == "healthy"
	})
}

func eventually(ctx context.Context, t *testing.T, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s: not in time", what)
		}
	}
}

func (p *project) logs(t *testing.T) {
	p = p.with(t)
	lines := 0
	for _, s := range p.services() {
		if s == "postgres" { // it has a form of its own
			continue
		}
		for line := range strings.Lines(p.must(p.compose(time.Minute, "logs", "--no-color", "--no-log-prefix", s))) {
			var got struct{ Time, Level, Process string }
			if err := json.Unmarshal([]byte(line), &got); err != nil || got.Time == "" || got.Level == "" || got.Process == "" {
				t.Errorf("%s said %q", s, deployment.Tail(line, 300))
			}
			lines++
		}
	}
	if lines < 10 { // two brokers and two nodes have each said something, and once more after their deaths
		t.Errorf("all services together said %d lines", lines)
	}
}

func (p *project) stops(t *testing.T) {
	p = p.with(t)
	begin := time.Now()
	p.must(p.compose(time.Minute, "stop"))
	if took := time.Since(begin); took > 20*time.Second {
		t.Errorf("all stopped after %v", took)
	} else {
		t.Logf("all stopped after %v", took.Round(100*time.Millisecond))
	}
	for _, s := range p.services() {
		for _, c := range p.containers(s) {
			if i := inspect(t, c); i.State.ExitCode != 0 { // 137 is one that had to be killed
				t.Errorf("%s ended with %d", s, i.State.ExitCode)
			}
		}
	}
}

func (p *project) restarts(t *testing.T) {
	p = p.with(t)
	begin := time.Now()
	p.must(p.compose(3*time.Minute, "up", "-d", "--wait"))
	t.Logf("ready again after %v", time.Since(begin).Round(100*time.Millisecond))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	g := p.gateway("consumer-gateway")
	// The same request again is the task of before, with its result.
	if _, got, err := g.sum(ctx, "rest", "0.1", "0.2"); err != nil || got != "0.3" {
		t.Errorf("%q, %v", got, err)
	}
	if _, got, err := g.sum(ctx, "after", "2", "3"); err != nil || got != "5" {
		t.Errorf("a new one: %q, %v", got, err)
	}
}
