package doctor

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shallot-net/shallot/cli/internal/clitest"
	"github.com/shallot-net/shallot/cli/internal/supervisor"
	"github.com/shallot-net/shallot/kit/home"
	"github.com/shallot-net/shallot/kit/rpc"
	"github.com/shallot-net/shallot/kit/version"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
)

// programs is a directory with programs that can only say their version.
func programs(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range append(supervisor.Processes(supervisor.Provider, supervisor.Anonymous), executor) {
		script := "#!/bin/sh\necho shallot-" + name + " " + version.String() + "\n"
		if err := os.WriteFile(filepath.Join(dir, "shallot-"+name), []byte(script), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// patient is a consumer whose services are served by this process.
type patient struct {
	t    *testing.T
	home home.Home
	node *nodev1.Node
	bin  string
}

func newPatient(t *testing.T) *patient {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "home")
	h, err := home.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	n := clitest.NewNode()
	p := &patient{t: t, home: h, node: n.Info(), bin: programs(t)}
	clitest.Serve(t, n, dir)
	p.serve("broker", true)
	p.serve("task", true)
	rest := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(rest.Close)
	token := filepath.Join(h.State("gateway"), "token")
	p.write(token, "secret", 0o600)
	p.json("run/gateway.json", supervisor.Gateway{URL: rest.URL, TokenFile: token})
	p.json("run/node.json", supervisor.State{Name: "consumer-1", Role: supervisor.Consumer, Processes: []supervisor.ProcessState{{Name: "broker", PID: os.Getpid(), Restarts: 2}}})
	return p
}

func (p *patient) serve(process string, serving bool) {
	p.t.Helper()
	s, err := rpc.NewServer(rpc.ServerConfig{Process: process, Listen: p.home.Endpoint(process)})
	if err != nil {
		p.t.Fatal(err)
	}
	s.SetServing(serving)
	ctx, cancel := context.WithCancel(context.Background())
	if err := s.Listen(ctx); err != nil {
		p.t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx) }()
	p.t.Cleanup(func() { cancel(); <-served })
}

func (p *patient) write(path, content string, mode os.FileMode) {
	p.t.Helper()
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		p.t.Fatal(err)
	}
}

func (p *patient) json(name string, v any) {
	p.t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		p.t.Fatal(err)
	}
	p.write(filepath.Join(p.home.Dir, name), string(data), 0o600)
}

func (p *patient) examine() Report {
	d := Doctor{Home: p.home, Finder: supervisor.Finder{Dirs: []string{p.bin}}, Now: time.Now}
	return d.Examine(p.t.Context())
}

// want finds a complaint, with what mends it.
func (r Report) want(t *testing.T, check, detail, mend string) {
	t.Helper()
	for _, f := range r.Findings {
		if f.Check == check && f.Status == Wrong && strings.Contains(f.Detail, detail) && strings.Contains(f.Mend, mend) {
			return
		}
	}
	t.Errorf("no complaint about %q with %q and %q in %+v", check, detail, mend, r.Findings)
}

func TestHealthyNode(t *testing.T) {
	t.Parallel()
	r := newPatient(t).examine()
	var checks []string
	for _, f := range r.Findings {
		if f.Status == Wrong || f.Status == Warning && f.Check != "clock" && f.Check != "disk" || f.Status == OK && f.Mend != "" || f.Detail == "" {
			t.Errorf("a healthy node: %+v", f)
		}
		checks = append(checks, f.Check)
	}
	want := []string{"programs", "permissions", "sockets", "disk", "clock", "locks", "node", "process broker", "process task", "process node", "process gateway", "token", "network"}
	if !slices.Equal(checks, want) || r.Wrong() || r.Node != "consumer-1" {
		t.Errorf("checks of %s are %v, want %v", r.Node, checks, want)
	}
}

func TestComplaints(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		spoil               func(p *patient)
		check, detail, mend string
	}{
		"a missing program": {func(p *patient) { _ = os.Remove(filepath.Join(p.bin, "shallot-task")) }, "programs", "shallot-task is missing", "make build"},
		"a program of another version": {func(p *patient) {
			_ = os.Remove(filepath.Join(p.bin, "shallot-task"))
			p.write(filepath.Join(p.bin, "shallot-task"), "#!/bin/sh\necho shallot-task v9\n", 0o700)
		}, "programs", "v9: shallot-task", "one version"},
		"a program that is none": {func(p *patient) {
			_ = os.Remove(filepath.Join(p.bin, "shallot-task"))
			p.write(filepath.Join(p.bin, "shallot-task"), "#!/bin/sh\nexit 7\n", 0o700)
		}, "programs", "exit status 7", "install them beside"},
		"a home open to others":  {func(p *patient) { _ = os.Chmod(p.home.Dir, 0o755) }, "permissions", "mode 0755", "chmod 700 "},
		"a token open to others": {func(p *patient) { _ = os.Chmod(filepath.Join(p.home.State("gateway"), "token"), 0o644) }, "token", "mode 0644", "chmod 600 "},
		"no token":               {func(p *patient) { _ = os.Remove(filepath.Join(p.home.State("gateway"), "token")) }, "token", "no such file", "makes a new one"},
		"a clock set back": {func(p *patient) {
			f := filepath.Join(p.home.State("task"), "task.db")
			p.write(f, "", 0o600)
			_ = os.Chtimes(f, time.Now(), time.Now().Add(time.Hour))
		}, "clock", "set back", "NTP"},
		"a store held by a stranger": {func(p *patient) {
			p.json("run/node.json", supervisor.State{Role: supervisor.Consumer, Processes: []supervisor.ProcessState{{Name: "task", PID: 1}}})
			release, err := p.home.Lock("task")
			if err != nil {
				p.t.Fatal(err)
			}
			p.t.Cleanup(release)
		}, "locks", "is held by process", "kill"},
		"no provider":     {func(p *patient) { p.node.ProvidersKnown = 0 }, "network", "no provider", "--bootstrap"},
		"no network":      {func(p *patient) { p.node.Online = false }, "network", "cannot be reached", "--bootstrap"},
		"a dead gateway":  {func(p *patient) { p.json("run/gateway.json", supervisor.Gateway{URL: "http://" + deadAddress(p.t)}) }, "process gateway", "nobody answers", "gateway.log"},
		"a silent broker": {func(p *patient) { _ = os.Remove(p.home.Socket("broker")) }, "process broker", "nobody listens", "broker.log"},
		"what the node service says": {func(p *patient) {
			p.node.Processes[1].State, p.node.Processes[1].Detail = "not_serving", "its store is full"
		}, "process task", "not_serving, its store is full", "task.log"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPatient(t)
			c.spoil(p)
			r := p.examine()
			r.want(t, c.check, c.detail, c.mend)
			if !r.Wrong() {
				t.Error("the report is not wrong")
			}
		})
	}
}

func TestServiceThatIsNotServing(t *testing.T) {
	t.Parallel()
	p := newPatient(t)
	_ = os.Remove(p.home.Socket("task"))
	p.serve("task", false)
	p.examine().want(t, "process task", "is not serving", "task.log")
}

func TestNodeThatDoesNotRun(t *testing.T) {
	t.Parallel()
	h, err := home.Open(filepath.Join(t.TempDir(), "home"))
	if err != nil {
		t.Fatal(err)
	}
	d := Doctor{Home: h, Finder: supervisor.Finder{Dirs: []string{programs(t)}}, Now: time.Now}
	d.Examine(t.Context()).want(t, "node", "not running", "shallot up --home "+h.Dir)
}

// deadAddress is one that nobody listens on.
func deadAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
