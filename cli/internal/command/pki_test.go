package command

import (
	"archive/tar"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shallot-net/shallot/cli/internal/clitest"
	"github.com/shallot-net/shallot/cli/internal/supervisor"
)

// operator is somebody at the machine of an authority, with the time of day: servers judge certificates by theirs.
type operator struct {
	t    *testing.T
	home string
}

func (o *operator) start(ctx context.Context, stdout, stderr io.Writer, args ...string) int {
	return Run(ctx, System{Stdin: strings.NewReader(""), Stdout: stdout, Stderr: stderr, Getenv: func(string) string { return "" },
		Interrupts: nil, Now: time.Now, Finder: supervisor.Finder{Dirs: []string{"/nowhere"}}, Outlive: func() <-chan os.Signal { return nil }}, args)
}

func (o *operator) run(args ...string) result {
	o.t.Helper()
	var stdout, stderr lockedBuffer
	code := o.start(o.t.Context(), &stdout, &stderr, append([]string{"--home", o.home}, args...)...)
	return result{stdout.String(), stderr.String(), code}
}

func (o *operator) call(addr, cert string, args ...string) result {
	o.t.Helper()
	var stdout, stderr lockedBuffer
	ctx, cancel := context.WithTimeout(o.t.Context(), 20*time.Second)
	defer cancel()
	code := o.start(ctx, &stdout, &stderr, append([]string{"--endpoint", addr, "--cert", cert}, args...)...)
	return result{stdout.String(), stderr.String(), code}
}

// pki runs 'pki run' until the test ends, and returns once it has written the directories.
func (o *operator) pki(args ...string) (stop func() result) {
	o.t.Helper()
	var stdout, stderr lockedBuffer
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan int, 1)
	go func() {
		ended <- o.start(ctx, &stdout, &stderr, append([]string{"--home", o.home, "pki", "run"}, args...)...)
	}()
	o.t.Cleanup(cancel)
	o.eventually("the directories are not supplied", func() bool {
		if len(ended) > 0 {
			o.t.Fatalf("it ended: %s", stderr.String())
		}
		return strings.Contains(stderr.String(), "all directories are supplied")
	})
	return func() result {
		cancel()
		return result{code: <-ended, stdout: stdout.String(), stderr: stderr.String()}
	}
}

func (o *operator) eventually(what string, f func() bool) {
	o.t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.After(time.Minute); !f(); {
		select {
		case <-tick.C:
		case <-end:
			o.t.Fatal(what)
		}
	}
}

// From the first certificate to the last call of a client that is let in and put out again.
func TestClientsOnOtherMachines(t *testing.T) {
	t.Parallel()
	o := &operator{t, t.TempDir()}
	out := t.TempDir()
	dir := filepath.Join(out, "node")
	stop := o.pki("--host", "node.example.org", dir, "task="+filepath.Join(out, "t"))
	o.run("pki", "check", dir, "task="+filepath.Join(out, "t")).want(t, 0, "", "")
	o.run("pki", "check", "node="+filepath.Join(out, "t")).want(t, exitState, "", "not of node")
	addr := clitest.ServeTLS(t, clitest.NewNode(), dir)

	laptop, other := filepath.Join(out, "laptop"), filepath.Join(out, "other")
	o.run("client", "add", "laptop", "--out", laptop).want(t, 0, laptop+"\n", "laptop may call this node until")
	o.run("client", "add", "other", "--out", other).want(t, 0, other+"\n", "")
	o.run("client", "add", "laptop", "--out", filepath.Join(out, "again")).want(t, exitState, "", "client revoke laptop")
	for _, f := range []string{"ca.crt", "tls.crt", "tls.key"} {
		if info, err := os.Stat(filepath.Join(laptop, f)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", f, info, err)
		}
	}
	if r := o.call(addr, laptop, "node"); r.code != 0 || r.stdout == "" {
		t.Fatalf("a call: %+v", r)
	}
	if r := o.call(addr, laptop, "run", "sum", "1", "2"); r.code != 0 || r.stdout != "3\n" {
		t.Errorf("a task: %+v", r)
	}
	// The ways in which it does not go, each with what to do.
	o.run("client", "add", "third", "--out", other).want(t, exitState, "", "--out DIR")
	o.call(addr, filepath.Join(out, "none"), "node").want(t, exitState, "", "there is no ca.crt")
	o.call("unix:/x", laptop, "node").want(t, exitUsage, "", "--endpoint HOST:PORT")
	if r := o.run("--endpoint", addr, "node"); r.code != exitUsage {
		t.Errorf("a home and an endpoint: %+v", r)
	}
	stranger := &operator{t, t.TempDir()}
	strange := filepath.Join(out, "strange")
	stranger.run("client", "add", "x", "--out", strange).want(t, 0, strange+"\n", "")
	stranger.call(addr, strange, "node").want(t, exitDenied, "", "did not show a current certificate")

	o.run("client", "revoke", "laptop").want(t, 0, "", "laptop is revoked")
	o.eventually("the revoked client may still call", func() bool { return o.call(addr, laptop, "node").code != 0 })
	o.call(addr, laptop, "node").want(t, exitDenied, "", "did not take this certificate")
	if r := o.call(addr, other, "node"); r.code != 0 {
		t.Errorf("another client: %+v", r)
	}
	clients := o.run("client", "ls", "--output", "json").json(t)["clients"].([]any)
	var states []string
	for _, c := range clients {
		states = append(states, c.(map[string]any)["name"].(string)+" "+c.(map[string]any)["state"].(string))
	}
	if got := strings.Join(states, ", "); got != "laptop revoked, other valid, third revoked" {
		t.Errorf("clients: %s", got)
	}
	if r := o.run("client", "ls"); r.code != 0 || !strings.Contains(r.stdout, "laptop") {
		t.Errorf("%+v", r)
	}
	if r := stop(); r.code != 0 || strings.Contains(r.stderr, "PRIVATE") {
		t.Errorf("pki run: %+v", r)
	}
}

func TestClientToStdout(t *testing.T) {
	t.Parallel()
	o := &operator{t, t.TempDir()}
	r := o.run("client", "add", "ci", "--out", "-")
	if r.code != 0 || !strings.Contains(r.stderr, "--cert ci node") {
		t.Errorf("%d, %s", r.code, r.stderr)
	}
	files := map[string]bool{}
	for archive := tar.NewReader(strings.NewReader(r.stdout)); ; {
		h, err := archive.Next()
		if err == io.EOF {
			break
		}
		if err != nil || h.Mode != 0o600 {
			t.Fatal(h, err)
		}
		files[h.Name] = true
	}
	if len(files) != 3 || !files["ci/tls.key"] {
		t.Errorf("%v", files)
	}
	if _, err := os.Stat("ci"); err == nil {
		t.Error("a copy was left")
	}
}

func TestPKIMistakes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	dir := t.TempDir()
	for line, want := range map[string]string{
		"pki run":                  "a directory is missing",
		"pki run " + dir + "/taks": `did you mean "task"?`,
		"pki run " + dir + "/a/task " + dir + "/a/task": "named twice",
		"pki run --lifetime 1s " + dir + "/task":        "it must be 1m0s to",
		"client add":                                    "name is missing",
		"client add Bad_Name!":                          "is no name of a service or client",
		"client add x --lifetime 1000000h":              "it must be 1m0s to",
	} {
		w.run(strings.Fields(line)...).want(t, exitUsage, "", want)
	}
	w.run("client", "revoke", "nobody").want(t, exitNotFound, "", "client ls")
	w.run("client", "ls").want(t, 0, "", "client add NAME")
}
