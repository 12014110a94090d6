package suite

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shallot-net/shallot/kit/pgtest"
)

// shownTask is what `task show` says of one.
type shownTask struct {
	State    string `json:"state"`
	Attempts int    `json:"attempts"`
	Provider string `json:"provider"`
	History  []struct {
		What string `json:"what"`
	} `json:"history"`
}

func (m *member) task(t *testing.T, id string) (s shownTask) {
	t.Helper()
	if r := command(t, m.dir, "", "task", "show", id, "--output", "json"); r.code == 0 {
		if err := json.Unmarshal([]byte(r.stdout), &s); err != nil {
			t.Fatalf("task show: %v: %s", err, r.stdout)
		}
	}
	return s
}

func (m *member) must(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	r := command(t, m.dir, stdin, args...)
	if r.code != 0 {
		t.Fatalf("shallot %s: exit code %d: %s", strings.Join(args, " "), r.code, r.stderr)
	}
	return r.stdout
}

// destroyed is a provider and a consumer that are backed up while they work, killed, and removed from the disk.
type destroyed struct {
	provider, user *member
	content        string            // pinned at the provider
	results        map[string]string // of tasks of the consumer that had ended, by their ids
	waiting        []string          // tasks at the provider, of which one at most ran
	out            string            // a job's results are to be in that folder
	jobArgs        []string
	backups        string
	attempts       int // that a task may have in the end
}

const backupShards = 6

// work gives a provider of one slot and its consumer something of everything.
func work(t *testing.T, provider, user *member) *destroyed {
	t.Helper()
	eventually(t, time.Minute, "the consumer knows the provider", func() bool {
		return strings.Contains(command(t, user.dir, "", "peers", "--output", "json").stdout, provider.peer)
	})
	d := &destroyed{provider: provider, user: user, results: map[string]string{}, backups: t.TempDir(), out: filepath.Join(t.TempDir(), "out")}
	big := filepath.Join(t.TempDir(), "big")
	if err := os.WriteFile(big, []byte(strings.Repeat(rand.Text(), 100_000)), 0o600); err != nil {
		t.Fatal(err)
	}
	d.content = strings.TrimSpace(provider.must(t, "", "content", "put", big))
	for _, args := range [][]string{{"sum", "1", "2", "3"}, {"wasm", program("probe.wasm"), "--", "print", "300000"}} {
		id := strings.TrimSpace(user.must(t, "", append([]string{"run"}, append([]string{args[0]}, append([]string{"--detach"}, args[1:]...)...)...)...))
		eventually(t, time.Minute, "the task has ended", func() bool { return user.task(t, id).State == "COMPLETED" })
		d.results[id] = user.must(t, "", "task", "result", id)
	}
	in := t.TempDir()
	for i := range backupShards {
		if err := os.WriteFile(filepath.Join(in, fmt.Sprint(i)), []byte(strings.Repeat(fmt.Sprintf("input %d\n", i), 1+i*10_000)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 4 {
		file := filepath.Join(t.TempDir(), "stdin")
		if err := os.WriteFile(file, []byte(fmt.Sprintf("task %d", i)), 0o600); err != nil {
			t.Fatal(err)
		}
		d.waiting = append(d.waiting, strings.TrimSpace(user.must(t, "", "run", "wasm", program("probe.wasm"), "--detach", "--stdin", file, "--", "slowcat", "1500")))
	}
	d.jobArgs = []string{"map", "wasm", program("probe.wasm"), "--inputs", filepath.Join(in, "*"), "--output", d.out}
	user.must(t, "", append(append([]string{}, d.jobArgs...), "--detach", "--", "slowcat", "300")...)
	eventually(t, time.Minute, "the provider has the tasks", func() bool {
		for _, id := range d.waiting {
			if s := user.task(t, id).State; s == "PENDING" || s == "SUBMITTED" || s == "" {
				return false
			}
		}
		return true
	})
	return d
}

// destroy backs both nodes up, kills them, and removes them. Where the consumer is backed up first, and some time before the provider, what it had collected meanwhile is at neither.
func (d *destroyed) destroy(t *testing.T, consumerFirst bool) {
	t.Helper()
	backup := func(name string, m *member) {
		begin := time.Now()
		m.must(t, "", "backup", filepath.Join(d.backups, name))
		t.Logf("the backup of the %s took %v", name, time.Since(begin).Round(time.Millisecond))
	}
	if consumerFirst {
		backup("user", d.user)
		eventually(t, time.Minute, "a task that was waiting is done", func() bool { return d.user.task(t, d.waiting[1]).State == "COMPLETED" })
		d.attempts = 2
	}
	if s := d.user.task(t, d.waiting[len(d.waiting)-1]).State; s == "COMPLETED" {
		t.Fatal("nothing was waiting any more when the backup was made")
	}
	backup("provider", d.provider)
	if !consumerFirst {
		backup("user", d.user)
		d.attempts = 1
	}
	for name, m := range map[string]*member{"provider": d.provider, "user": d.user} {
		if r := command(t, filepath.Join(t.TempDir(), "second"), "", "restore", filepath.Join(d.backups, name)); r.code != 5 || !strings.Contains(r.stderr, "stop it first") {
			t.Errorf("a second %s beside the first: %+v", name, r)
		}
		m.kill(t)
	}
	for _, m := range []*member{d.provider, d.user} {
		if err := os.RemoveAll(m.dir); err != nil {
			t.Fatal(err)
		}
	}
}

// back brings both up again on other homes, and looks for all that they had.
func (d *destroyed) back(t *testing.T) {
	t.Helper()
	for name, m := range map[string]*member{"provider": d.provider, "user": d.user} {
		m.dir = filepath.Join(t.TempDir(), "another")
		m.must(t, "", "restore", filepath.Join(d.backups, name))
	}
	begin := time.Now()
	d.provider.start(t)
	d.user.start(t)
	for name, m := range map[string]*member{"provider": d.provider, "user": d.user} {
		var n struct {
			PeerID string `json:"peer_id"`
		}
		if err := json.Unmarshal([]byte(m.must(t, "", "node", "--output", "json")), &n); err != nil || n.PeerID != m.peer {
			t.Errorf("the %s was %s and is %s: %v", name, m.peer, n.PeerID, err)
		}
	}
	for id, want := range d.results {
		if got := d.user.must(t, "", "task", "result", id); got != want {
			t.Errorf("the result of a task that had ended has %d bytes, want %d", len(got), len(want))
		}
	}
	if r := command(t, d.provider.dir, "", "content", "verify"); r.code != 0 || !strings.Contains(r.stderr+r.stdout, " 0 damaged or missing") {
		t.Errorf("content verify: %+v", r)
	}
	if !strings.Contains(d.provider.must(t, "", "content", "ls"), d.content) {
		t.Error("what was pinned at the provider is not any more")
	}
	for i, id := range d.waiting {
		var s shownTask
		eventually(t, time.Minute, "a task that was waiting is done", func() bool { s = d.user.task(t, id); return s.State == "COMPLETED" })
		if got := d.user.must(t, "", "task", "result", id); got != fmt.Sprintf("task %d", i) {
			t.Errorf("the result of task %d is %q", i, got)
		}
		ends := 0
		for _, h := range s.History {
			if h.What == "COMPLETED" || h.What == "FAILED" {
				ends++
			}
		}
		if ends > 1 || s.Attempts < 1 || s.Attempts > d.attempts {
			t.Errorf("task %d has %d attempts: %+v", i, s.Attempts, s.History)
		}
	}
	d.user.must(t, "", append(append([]string{}, d.jobArgs...), "--", "slowcat", "300")...)
	for i := range backupShards {
		b, err := os.ReadFile(filepath.Join(d.out, fmt.Sprint(i)))
		if want := strings.Repeat(fmt.Sprintf("input %d\n", i), 1+i*10_000); err != nil || string(b) != want {
			t.Errorf("shard %d of the job has %d bytes of %d: %v", i, len(b), len(want), err)
		}
	}
	t.Logf("all was done %v after the nodes began to start again", time.Since(begin).Round(time.Millisecond))
}

// Both nodes are backed up while tasks run and wait, die, and lose their disks; they come back from the backups on other homes as who they were, with all that they had.
func TestBackupOfFiles(t *testing.T) {
	t.Parallel()
	provider := newConfigured(t, "task:\n  provider:\n    slots: 1\n", "--role", "provider")
	user := newMember(t, "--bootstrap", provider.address)
	d := work(t, provider, user)
	d.destroy(t, false)
	d.back(t)
}

// The same with the tasks of both nodes in PostgreSQL, whose databases are dropped, and with backups of two moments.
func TestBackupOfPostgreSQL(t *testing.T) {
	t.Parallel()
	server := pgtest.Start(t)
	databases := [2]string{server.Database(t), server.Database(t)}
	config := func(i int) string {
		return fmt.Sprintf("task:\n  store: %s\n  store_password_file: %s\n  provider:\n    slots: 1\n", server.URL(databases[i]), server.PasswordFile)
	}
	provider := newConfigured(t, config(0), "--role", "provider")
	user := newConfigured(t, config(1), "--bootstrap", provider.address)
	d := work(t, provider, user)
	d.destroy(t, true)
	for _, name := range databases {
		server.Exec(t, "DROP DATABASE "+name+" WITH (FORCE)", "CREATE DATABASE "+name)
	}
	d.back(t)
	if r := command(t, filepath.Join(t.TempDir(), "third"), "", "restore", filepath.Join(d.backups, "user")); r.code != 5 || !strings.Contains(r.stderr, "is used by a node") {
		t.Errorf("a restore into the database of a node that runs: %+v", r)
	}
}

// newConfigured is newMember with a config.yaml.
func newConfigured(t *testing.T, config string, args ...string) *member {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "config.yaml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	return memberIn(t, dir, args...)
}
