package suite

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/shallot-net/shallot/test/internal/dev"
)

// python is Debian's: another one in the path has not its packages.
const python = "/usr/bin/python3"

// needGRPC skips where the Python example cannot run; in CI it can.
func needGRPC(t *testing.T) {
	t.Helper()
	if err := exec.Command(python, "-c", "import grpc").Run(); err != nil {
		const what = "left out: the external executor in Python, because " + python + " cannot import grpc; to get it: apt-get install python3-grpcio"
		if os.Getenv("CI") == "true" {
			t.Fatal(what)
		}
		t.Skip(what)
	}
}

// grepExecutor is a process of the example.
type grepExecutor struct {
	cmd  *exec.Cmd
	said bytes.Buffer
	kill func()
}

func startGrep(t *testing.T, socket string) *grepExecutor {
	t.Helper()
	g := &grepExecutor{cmd: exec.Command(python, "../../examples/executor-python/grep_executor.py", "unix:"+socket)}
	g.cmd.Stdout, g.cmd.Stderr = &g.said, &g.said
	g.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := g.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	g.kill = sync.OnceFunc(func() {
		_ = g.cmd.Process.Kill()
		_ = g.cmd.Wait()
		if t.Failed() {
			t.Logf("the executor said:\n%s", g.said.String())
		}
	})
	t.Cleanup(g.kill)
	return g
}

// offered tells whether the consumer knows a provider of the type.
func offered(t *testing.T, n *dev.Network, taskType string) bool {
	t.Helper()
	var list struct{ Peers []struct{ State string } }
	r := shallot(t, n, consumer, "", "peers", "--capability", taskType, "--output", "json")
	if err := json.Unmarshal([]byte(r.stdout), &list); err != nil {
		t.Fatalf("%v in %s%s", err, r.stdout, r.stderr)
	}
	return len(list.Peers) > 0
}

type shown struct {
	State    string
	Attempts int
	Error    struct{ Reason, Message string }
	History  []struct{ What, Detail string }
	Progress *struct {
		Fraction float64
		Text     string
	}
}

func show(t *testing.T, n *dev.Network, id string) (s shown) {
	t.Helper()
	r := shallot(t, n, consumer, "", "task", "show", id, "--output", "json")
	if err := json.Unmarshal([]byte(r.stdout), &s); err != nil {
		t.Fatalf("%v in %s%s", err, r.stdout, r.stderr)
	}
	return s
}

// An executor in another language is a task type: it comes and goes, runs, is cancelled and dies, and its node goes on.
func TestExternalExecutor(t *testing.T) {
	t.Parallel()
	needGRPC(t)
	dir, scratch := t.TempDir(), t.TempDir()
	socket := filepath.Join(scratch, "grep.sock")
	if err := os.MkdirAll(filepath.Join(dir, "provider-1"), 0o700); err != nil {
		t.Fatal(err)
	}
	config := "task:\n  provider:\n    executors: [\"grep=unix:" + socket + "\"]\n"
	if err := os.WriteFile(filepath.Join(dir, "provider-1", "config.yaml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	words := filepath.Join(scratch, "words.txt")
	if err := os.WriteFile(words, []byte("alpha\nbeta one\ngamma\nbeta two\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	large := filepath.Join(scratch, "large.txt")
	if err := os.WriteFile(large, bytes.Repeat([]byte("nothing to see here\n"), 100_000), 0o600); err != nil {
		t.Fatal(err)
	}
	n := networkIn(t, dir, 2, 1)
	if offered(t, n, "grep") {
		t.Fatal("the type is offered before its executor is there")
	}
	g := startGrep(t, socket)
	eventually(t, time.Minute, "the consumer knows a provider of grep", func() bool { return offered(t, n, "grep") })

	for _, c := range []struct {
		name   string
		args   []string
		stdout string
		stderr string
		code   int
	}{
		{"found", []string{"--option", "beta", "--stdin", words}, "beta one\nbeta two\n", "stdin: searched", 0},
		{"found in a large file", []string{"--option", "-i BETA", "--stdin", words, "--input", large}, "beta one\nbeta two\n", "input:large.txt: searched", 0},
		{"not found", []string{"--option", "delta", "--stdin", words}, "", "searched", 1},
		{"a bad payload", []string{"--option", "--frob x", "--stdin", words}, "", "PAYLOAD_INVALID: unknown option", 126},
		{"a time limit", []string{"--option", "--pause 30 beta", "--stdin", words, "--timeout", "1s"}, "", "TIME_LIMIT", 124},
		{"an output limit", []string{"--option", "nothing", "--stdin", large, "--output-limit", "1MiB"}, "", "OUTPUT_LIMIT", 126},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := shallot(t, n, consumer, "", append([]string{"run", "grep"}, c.args...)...)
			if r.code != c.code || c.code < 2 && r.stdout != c.stdout || !strings.Contains(r.stderr, c.stderr) {
				t.Errorf("exit code %d, stdout %.200q, stderr %q", r.code, r.stdout, r.stderr)
			}
		})
	}
	t.Run("over REST", func(t *testing.T) { overREST(t, n) })
	t.Run("progress and cancel", func(t *testing.T) {
		r := shallot(t, n, consumer, "", "run", "grep", "--option", "--pause 1 beta", "--stdin", large, "--detach")
		id := strings.TrimSpace(r.stdout)
		eventually(t, time.Minute, "a progress", func() bool {
			p := show(t, n, id).Progress
			return p != nil && p.Fraction > 0 && strings.Contains(p.Text, "lines found")
		})
		shallot(t, n, consumer, "", "task", "cancel", id)
		eventually(t, 5*time.Second, "the cancelled task has ended", func() bool { return show(t, n, id).State == "CANCELLED" })
	})
	t.Run("check", func(t *testing.T) {
		r := shallot(t, n, consumer, "", "executor", "check", "unix:"+socket, "--type", "grep", "--payload", "beta", "--bad-payload", "--frob", "--slow-payload", "--pause 3 beta", "--stdin", words)
		if r.code != 0 || !strings.Contains(r.stdout, "4 cancelled") {
			t.Errorf("exit code %d\n%s%s", r.code, r.stdout, r.stderr)
		}
	})
	t.Run("its death", func(t *testing.T) {
		r := shallot(t, n, consumer, "", "run", "grep", "--option", "--pause 1 beta", "--stdin", words, "--detach")
		id := strings.TrimSpace(r.stdout)
		eventually(t, time.Minute, "the task runs", func() bool { return show(t, n, id).State == "RUNNING" })
		g.kill()
		eventually(t, time.Minute, "nobody offers grep any more", func() bool { return !offered(t, n, "grep") })
		if r := shallot(t, n, consumer, "", "run", "sum", "1", "2"); r.stdout != "3\n" {
			t.Errorf("beside the dead executor: %+v", r)
		}
		startGrep(t, socket)
		eventually(t, time.Minute, "the task has ended", func() bool { return show(t, n, id).State == "COMPLETED" })
		if s := show(t, n, id); s.Attempts < 2 || !strings.Contains(fmt.Sprint(s.History), "EXECUTOR_DIED") {
			t.Errorf("%+v", s)
		}
	})
}

func overREST(t *testing.T, n *dev.Network) {
	var gateway struct {
		URL       string `json:"gateway_url"`
		TokenFile string `json:"token_file"`
	}
	r := shallot(t, n, consumer, "", "node", "--output", "json")
	if err := json.Unmarshal([]byte(r.stdout), &gateway); err != nil {
		t.Fatalf("%v in %s", err, r.stdout)
	}
	token, err := os.ReadFile(gateway.TokenFile)
	if err != nil {
		t.Fatal(err)
	}
	b64 := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	body := `{"request_id": "over-rest", "spec": {"type": "grep", "external": {"options": "` + b64("beta") + `", "parts": [{"path": "stdin", "content": {"inline": "` + b64("alpha\nbeta\n") + `"}}]}}}`
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, gateway.URL+"/v1/tasks", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, _ := io.ReadAll(resp.Body)
	var made struct{ ID string }
	if err := json.Unmarshal(answer, &made); err != nil || resp.StatusCode != http.StatusOK || made.ID == "" {
		t.Fatalf("%s: %s", resp.Status, answer)
	}
	eventually(t, time.Minute, "the task has ended", func() bool { return show(t, n, made.ID).State == "COMPLETED" })
	if r := shallot(t, n, consumer, "", "task", "result", made.ID); r.stdout != "beta\n" {
		t.Errorf("the result is %+v", r)
	}
}
