package suite

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// member is one node with a supervisor of its own, which nobody starts again.
type member struct {
	dir, address, peer string
	args               []string
	cmd                *exec.Cmd
	said               *talk
}

func newMember(t *testing.T, args ...string) *member {
	t.Helper()
	return memberIn(t, t.TempDir(), args...)
}

func memberIn(t *testing.T, dir string, args ...string) *member {
	t.Helper()
	m := &member{dir: dir, args: append([]string{"--listen", "/ip4/127.0.0.1/tcp/" + freePort(t)}, args...)}
	m.start(t)
	t.Cleanup(func() {
		m.stop()
		if t.Failed() {
			t.Logf("shallot up in %s said:\n%s", m.dir, m.said)
			logTail(t, m.dir)
		}
	})
	var shown struct {
		Node struct {
			PeerID    string   `json:"peer_id"`
			Addresses []string `json:"addresses"`
		} `json:"node"`
	}
	out := command(t, m.dir, "", "node", "--output", "json").stdout
	if err := json.Unmarshal([]byte(out), &shown); err != nil || shown.Node.PeerID == "" {
		if err := json.Unmarshal([]byte(out), &shown.Node); err != nil || shown.Node.PeerID == "" {
			t.Fatalf("the node says %s: %v", out, err)
		}
	}
	m.peer = shown.Node.PeerID
	for _, a := range shown.Node.Addresses {
		if strings.HasPrefix(a, "/ip4/127.0.0.1/") {
			m.address = a
			if !strings.Contains(a, "/p2p/") {
				m.address += "/p2p/" + m.peer
			}
		}
	}
	return m
}

func (m *member) start(t *testing.T) {
	t.Helper()
	m.said = &talk{}
	m.cmd = exec.Command(filepath.Join(bin, "shallot"), append([]string{"--home", m.dir, "up"}, m.args...)...)
	m.cmd.Stderr = m.said
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := m.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Minute, "the node in "+m.dir+" is ready", func() bool { return strings.Contains(m.said.String(), "\nready\n") })
}

// stop ends a node as its owner does; kill as a power cut does: its processes die with their supervisor.
func (m *member) stop() {
	_ = m.cmd.Process.Signal(os.Interrupt)
	_ = m.cmd.Wait()
}

func (m *member) kill(t *testing.T) {
	t.Helper()
	if err := m.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = m.cmd.Wait()
	eventually(t, 10*time.Second, "nothing of the node answers", func() bool { return command(t, m.dir, "", "node").code != 0 })
}

// pins counts those of one kind of owner: task, replica, payload.
func (m *member) pins(t *testing.T, kind string) (n int) {
	t.Helper()
	var listed struct {
		Pins []struct {
			Owner string `json:"owner"`
		} `json:"pins"`
	}
	r := command(t, m.dir, "", "content", "ls", "--all", "--output", "json")
	if err := json.Unmarshal([]byte(r.stdout), &listed); err != nil {
		t.Fatalf("the pins are %+v: %v", r, err)
	}
	for _, p := range listed.Pins {
		if strings.HasPrefix(p.Owner, kind+":") {
			n++
		}
	}
	return n
}

// The consumer is stopped before its tasks end, the provider that ran them is gone for good, and the consumer comes back to the right bytes. After
// that nobody keeps anything for it.
func TestReplicasOutliveTheirProvider(t *testing.T) {
	first := newMember(t, "--role", "provider")
	second := newMember(t, "--role", "provider", "--bootstrap", first.address)
	third := newMember(t, "--role", "provider", "--bootstrap", first.address)
	user := newMember(t, "--bootstrap", second.address, "--bootstrap", third.address)
	eventually(t, time.Minute, "the consumer knows the three providers", func() bool {
		out := command(t, user.dir, "", "peers", "--output", "json").stdout
		return strings.Contains(out, first.peer) && strings.Contains(out, second.peer) && strings.Contains(out, third.peer)
	})
	type job struct {
		id   string
		want []byte
	}
	var jobs []*job
	for _, size := range []int{1000, 400_000} { // inside an event, and content of its own
		j := &job{want: bytes.Repeat([]byte("some bytes "), size/11)}
		file := filepath.Join(t.TempDir(), "stdin")
		if err := os.WriteFile(file, j.want, 0o600); err != nil {
			t.Fatal(err)
		}
		r := command(t, user.dir, "", "run", "wasm", program("probe.wasm"), "--detach", "--replicas", "2", "--provider", first.peer, "--stdin", file, "--", "slowcat", "8000")
		if r.code != 0 {
			t.Fatalf("run: %+v", r)
		}
		j.id = strings.TrimSpace(r.stdout)
		jobs = append(jobs, j)
	}
	for _, j := range jobs {
		eventually(t, time.Minute, "the task runs", func() bool {
			return strings.Contains(command(t, user.dir, "", "task", "show", j.id).stdout, "RUNNING")
		})
	}
	user.stop()
	eventually(t, time.Minute, "other providers keep both results", func() bool { return second.pins(t, "replica")+third.pins(t, "replica") == len(jobs) })
	first.kill(t)

	begin := time.Now()
	user.start(t)
	for _, j := range jobs {
		var shown struct {
			State    string `json:"state"`
			Attempts int    `json:"attempts"`
			History  []struct {
				What string `json:"what"`
			} `json:"history"`
			Replicas     int `json:"replicas"`
			ReplicaPeers []struct {
				State string `json:"state"`
			} `json:"replica_peers"`
		}
		eventually(t, time.Minute, "the task is over", func() bool {
			out := command(t, user.dir, "", "task", "show", j.id, "--output", "json").stdout
			return json.Unmarshal([]byte(out), &shown) == nil && shown.State == "COMPLETED"
		})
		whats := ""
		for _, h := range shown.History {
			whats += h.What + " "
		}
		if shown.Attempts != 1 || !strings.Contains(whats, " REPLICA ") || shown.Replicas != 2 || len(shown.ReplicaPeers) == 0 {
			t.Errorf("the task is %+v", shown)
		}
		if r := command(t, user.dir, "", "task", "result", j.id); r.code != 0 || r.stdout != string(j.want) {
			t.Errorf("the result has %d bytes, want %d: %d %s", len(r.stdout), len(j.want), r.code, r.stderr)
		}
	}
	t.Logf("both results were there %v after the consumer began to start", time.Since(begin).Round(time.Millisecond))
	eventually(t, time.Minute, "nobody keeps anything", func() bool {
		left := 0
		for _, m := range []*member{second, third, user} {
			left += m.pins(t, "replica") + m.pins(t, "task") + m.pins(t, "payload")
		}
		return left == 0
	})
}
