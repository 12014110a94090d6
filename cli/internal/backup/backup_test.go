package backup_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	_ "modernc.org/sqlite"

	"github.com/shallot-net/shallot/cli/internal/backup"
	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/home"
)

var long = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// kept is what a home's backup must have, and left what it must not.
var (
	kept = map[string]string{
		"gateway.token": "a token", "config.yaml": "task: {}\n", "network.key": "a key", "state/alias.key": "x", "state/broker/identity.pem": "an identity", "state/broker/mode": "open\n",
		"state/broker/personas/p1.pem": "one", "state/metric/version": "77", "state/task/results/ab": strings.Repeat("result ", 40_000), "state/task/jobs/j/0": "input", "state/pki/ca.key": "ca",
		"tor/data/state": "guards", "state/broker/repository/packs/00000001.pack": strings.Repeat("p", 70_000), "state/broker/repository/index/CURRENT": "MANIFEST-000000\n",
		"state/broker/repository/index/MANIFEST-000000": "manifest", "state/broker/repository/index/000001.log": "journal", "state/something/new": "of a later version",
	}
	left = map[string]string{
		"logs/broker.log": "log", "run/node.json": "{}", "state/broker/lock": "1", "state/task/work/x": "w", "state/task/wasm/modules/key": "k", "state/task/parts/x": "p",
		"state/task/replica-1/replica": "r", "state/metric/replica-2/x": "r", "tor/data/cached-consensus": "c", "tor/data/control_auth_cookie": "c", "state/broker/repository/index/LOG": "l", "state/task/results/.new-12": "half",
		"state/broker/.peers.json123": "half",
	}
)

func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, data := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, long, long); err != nil {
			t.Fatal(err)
		}
	}
}

// node makes the home of one.
func node(t *testing.T) home.Home {
	t.Helper()
	h, err := home.Open(filepath.Join(t.TempDir(), "node"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, h.Dir, kept)
	write(t, h.Dir, left)
	db := openDB(t, filepath.Join(h.Dir, "state/task/task.db"))
	if _, err := db.Exec("CREATE TABLE tasks (id TEXT); INSERT INTO tasks VALUES ('waiting')"); err != nil {
		t.Fatal(err)
	}
	return h
}

func openDB(t *testing.T, path string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=journal_mode(WAL)")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func create(t *testing.T, h home.Home, dir string) *backup.Manifest {
	t.Helper()
	m, err := backup.Create(t.Context(), backup.Source{Home: h, Now: time.Now}, dir)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func restore(t *testing.T, dir, archive string) error {
	t.Helper()
	_, _, err := backup.Restore(t.Context(), backup.Target{Dir: dir}, archive)
	return err
}

// same holds a restored home against the node.
func same(t *testing.T, dir string) {
	t.Helper()
	for name, data := range kept {
		path := filepath.Join(dir, name)
		b, err := os.ReadFile(path)
		if err != nil || string(b) != data {
			t.Errorf("%s has %d bytes of %d: %v", name, len(b), len(data), err)
			continue
		}
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != 0o600 || !strings.Contains(name, "/index/") && !info.ModTime().Equal(long) {
			t.Errorf("%s is %v of %v: %v", name, info.Mode(), info.ModTime(), err)
		}
	}
	for name := range left {
		if strings.HasSuffix(name, "/lock") {
			continue
		}
		if _, err := os.Lstat(filepath.Join(dir, name)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s came along: %v", name, err)
		}
	}
	var id string
	if err := openDB(t, filepath.Join(dir, "state/task/task.db")).QueryRow("SELECT id FROM tasks").Scan(&id); err != nil || id != "waiting" {
		t.Errorf("the task is %q: %v", id, err)
	}
	if _, err := home.Open(dir); err != nil {
		t.Errorf("the home: %v", err)
	}
}

func reasonOf(err error) string {
	var f *fault.Error
	if errors.As(err, &f) {
		return f.Reason
	}
	return fmt.Sprint(err)
}

// What was in the database's log and not in its file comes along, and what only this machine has use for does not.
func TestBackupAndRestore(t *testing.T) {
	t.Parallel()
	h := node(t)
	dir, to := filepath.Join(t.TempDir(), "b"), filepath.Join(t.TempDir(), "deep", "again")
	m := create(t, h, dir)
	if m.Role != "" || m.Mode != "open" || m.Home != h.Dir || len(m.Files) != len(kept)+1 {
		t.Errorf("the manifest is %+v", m)
	}
	for _, f := range m.Files {
		if info, err := os.Stat(filepath.Join(dir, f.Path)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s is %v: %v", f.Path, info.Mode(), err)
		}
	}
	if err := restore(t, to, dir); err != nil {
		t.Fatal(err)
	}
	same(t, to)
	if got := reasonOf(restore(t, to, dir)); got != "HOME_IN_USE" {
		t.Errorf("a home that has a node: %s", got)
	}
	if got := reasonOf(restore(t, filepath.Join(dir, "in"), dir)); got != "BACKUP_INSIDE" {
		t.Errorf("a home in the backup: %s", got)
	}
}

// The operator's own configuration is neither lost nor a reason to refuse.
func TestConfigurationOfTheNewHomeStays(t *testing.T) {
	t.Parallel()
	h := node(t)
	dir, to := filepath.Join(t.TempDir(), "b"), t.TempDir()
	create(t, h, dir)
	write(t, to, map[string]string{"config.yaml": "broker: {}\n"})
	_, left, err := backup.Restore(t.Context(), backup.Target{Dir: to}, dir)
	if err != nil || len(left) != 1 || left[0] != "config.yaml" {
		t.Fatalf("%v, %v", left, err)
	}
	if b, err := os.ReadFile(filepath.Join(to, "config.yaml")); err != nil || string(b) != "broker: {}\n" {
		t.Errorf("it is %q, %v", b, err)
	}
}

func TestRestoreRefuses(t *testing.T) {
	t.Parallel()
	h := node(t)
	good := filepath.Join(t.TempDir(), "b")
	create(t, h, good)
	manifest := filepath.Join(good, "manifest.json")
	text, err := os.ReadFile(manifest)
	if err != nil {
		t.Fatal(err)
	}
	cases := map[string]struct {
		harm   func(dir string) error
		reason string
	}{
		"a byte":          {func(d string) error { return flip(filepath.Join(d, "home/state/task/task.db"), 5000) }, "BACKUP_DAMAGED"},
		"a byte of a key": {func(d string) error { return flip(filepath.Join(d, "home/state/broker/identity.pem"), 3) }, "BACKUP_DAMAGED"},
		"cut off":         {func(d string) error { return os.Truncate(filepath.Join(d, "home/state/task/results/ab"), 10) }, "BACKUP_DAMAGED"},
		"missing":         {func(d string) error { return os.Remove(filepath.Join(d, "home/state/metric/version")) }, "BACKUP_DAMAGED"},
		"one more":        {func(d string) error { return os.WriteFile(filepath.Join(d, "home/state/more"), nil, 0o600) }, "BACKUP_DAMAGED"},
		"a link": {func(d string) error {
			p := filepath.Join(d, "home/gateway.token")
			return errors.Join(os.Remove(p), os.Symlink("/etc/hostname", p))
		}, "BACKUP_UNUSABLE"},
		"the manifest":      {func(d string) error { return flip(filepath.Join(d, "manifest.json"), len(text)/2) }, "BACKUP_DAMAGED"},
		"half the manifest": {func(d string) error { return os.Truncate(filepath.Join(d, "manifest.json"), int64(len(text)/2)) }, "BACKUP_DAMAGED"},
		"a path that leads out": {func(d string) error {
			return os.WriteFile(filepath.Join(d, "manifest.json"), bytes.Replace(text, []byte(`"home/gateway.token"`), []byte(`"home/../../token"`), 1), 0o600)
		}, "BACKUP_DAMAGED"},
		"newer": {func(d string) error {
			return os.WriteFile(filepath.Join(d, "manifest.json"), bytes.Replace(text, []byte(`"format": 1`), []byte(`"format": 2`), 1), 0o600)
		}, "BACKUP_NEWER"},
		"no manifest":    {func(d string) error { return os.Remove(filepath.Join(d, "manifest.json")) }, "BACKUP_NOT_FOUND"},
		"others write":   {func(d string) error { return os.Chmod(d, 0o777) }, "BACKUP_UNSAFE"},
		"another user's": {func(d string) error { return chownOrSkip(d, 12345) }, "BACKUP_UNSAFE"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, to := filepath.Join(t.TempDir(), "b"), filepath.Join(t.TempDir(), "h")
			if err := os.CopyFS(dir, os.DirFS(good)); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			err := c.harm(dir)
			if errors.Is(err, errNoRoot) {
				t.Skip("left out: to give a file to another user takes root")
			}
			if err != nil {
				t.Fatal(err)
			}
			err = restore(t, to, dir)
			if got := reasonOf(err); got != c.reason || !strings.Contains(err.Error(), dir) {
				t.Errorf("it is %s: %v", got, err)
			}
			if _, err := os.Lstat(to); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the home was touched: %v", err)
			}
		})
	}
}

var errNoRoot = errors.New("no root")

func chownOrSkip(path string, uid int) error {
	if os.Geteuid() != 0 {
		return errNoRoot
	}
	return os.Chown(path, uid, -1)
}

func flip(path string, at int) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	b[at] ^= 1
	return os.WriteFile(path, b, 0o600)
}

func TestRestoreRefusesAHomeInUse(t *testing.T) {
	t.Parallel()
	h := node(t)
	dir := filepath.Join(t.TempDir(), "b")
	create(t, h, dir)
	for name, file := range map[string]string{"a key": "state/broker/identity.pem", "a private network": "network.key", "tasks": "state/task/task.db"} {
		to := t.TempDir()
		write(t, to, map[string]string{file: "mine"})
		if got := reasonOf(restore(t, to, dir)); got != "HOME_IN_USE" {
			t.Errorf("%s: %s", name, got)
		}
		if b, err := os.ReadFile(filepath.Join(to, file)); err != nil || string(b) != "mine" {
			t.Errorf("%s is %q, %v", file, b, err)
		}
	}
	to, err := home.Open(filepath.Join(t.TempDir(), "h"))
	if err != nil {
		t.Fatal(err)
	}
	release, err := to.Lock("broker") // it has started and has written nothing yet
	if err != nil {
		t.Fatal(err)
	}
	if got := reasonOf(restore(t, to.Dir, dir)); got != "HOME_IN_USE" {
		t.Errorf("a process runs: %s", got)
	}
	release()
	if _, release, err = to.LockReplica("task"); err != nil {
		t.Fatal(err)
	}
	if got := reasonOf(restore(t, to.Dir, dir)); got != "HOME_IN_USE" {
		t.Errorf("a replica runs: %s", got)
	}
	release()
	// The node that it is a backup of.
	if release, err = h.Lock("broker"); err != nil {
		t.Fatal(err)
	}
	if got := reasonOf(restore(t, to.Dir, dir)); got != "IDENTITY_ALIVE" {
		t.Errorf("the old node runs: %s", got)
	}
	release()
	if err := restore(t, to.Dir, dir); err != nil {
		t.Errorf("nothing runs any more: %v", err)
	}
}

func TestBackupRefuses(t *testing.T) {
	t.Parallel()
	h := node(t)
	try := func(dir string) string {
		_, err := backup.Create(t.Context(), backup.Source{Home: h, Now: time.Now}, dir)
		return reasonOf(err)
	}
	full := t.TempDir()
	write(t, full, map[string]string{"mine": "x"})
	open := t.TempDir()
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]string{full: "BACKUP_NOT_EMPTY", open: "BACKUP_UNSAFE", filepath.Join(full, "mine"): "BACKUP_UNUSABLE", filepath.Join(full, "a", "b"): "BACKUP_UNUSABLE", filepath.Join(h.Dir, "b"): "BACKUP_INSIDE"} {
		if got := try(dir); got != want {
			t.Errorf("%s: %s, want %s", dir, got, want)
		}
	}
	if os.Geteuid() == 0 {
		foreign := t.TempDir()
		if err := os.Chown(foreign, 12345, -1); err != nil {
			t.Fatal(err)
		}
		if got := try(foreign); got != "BACKUP_UNSAFE" {
			t.Errorf("another user's directory: %s", got)
		}
	}
	none, err := home.Open(filepath.Join(t.TempDir(), "none"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := backup.Create(t.Context(), backup.Source{Home: none, Now: time.Now}, filepath.Join(t.TempDir(), "b")); reasonOf(err) != "HOME_NOT_FOUND" {
		t.Errorf("a home without a node: %v", err)
	}
	// A damaged store is said by name, and nothing of a backup is left.
	if err := os.WriteFile(filepath.Join(h.Dir, "state/task/other.db"), []byte("SQLite format 3\x00"+strings.Repeat("nonsense", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "b")
	if got := try(dir); got != "STORE_CORRUPT" {
		t.Errorf("a damaged store: %s", got)
	}
	if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the directory is left: %v", err)
	}
}

// Whoever is interrupted leaves nothing.
func TestBackupIsInterrupted(t *testing.T) {
	t.Parallel()
	h := node(t)
	for _, at := range []int{1, 5, 12} {
		ctx, cancel := context.WithCancel(t.Context())
		calls, dir := 0, t.TempDir()
		_, err := backup.Create(ctx, backup.Source{Home: h, Now: time.Now, Progress: func(string, uint64, uint64) {
			if calls++; calls == at {
				cancel()
			}
		}}, dir)
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("at %d: %v", at, err)
		}
		if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
			t.Errorf("at %d: %v is left, %v", at, entries, err)
		}
	}
}
