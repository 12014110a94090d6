package command

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shallot-net/shallot/kit/home"
)

// What the commands print, for people and for programs, and the exit codes of what they refuse.
func TestBackupAndRestoreCommands(t *testing.T) {
	t.Parallel()
	o := &operator{t, filepath.Join(t.TempDir(), "h")}
	dir := filepath.Join(t.TempDir(), "b")
	if r := o.run("backup", dir); r.code != exitNotFound || !strings.Contains(r.stderr, o.home) {
		t.Errorf("a home that is not there: %+v", r)
	}
	h, err := home.Open(o.home)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(h.State("broker"), "identity.pem"), []byte("a key"), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := o.run("backup"); r.code != exitUsage {
		t.Errorf("no directory: %+v", r)
	}
	if r := o.run("backup", dir, "--store-password-file", "x"); r.code != exitUsage {
		t.Errorf("a password for nothing: %+v", r)
	}
	if r := o.run("backup", dir); r.code != exitOK || !strings.HasPrefix(r.stdout, dir+": 1 files, 5 B") || !strings.Contains(r.stderr, "has the keys of this node") {
		t.Errorf("a backup: %+v", r)
	}
	if r := o.run("backup", dir); r.code != exitState || !strings.Contains(r.stderr, "not empty") {
		t.Errorf("a second one: %+v", r)
	}
	again := &operator{t, filepath.Join(t.TempDir(), "again")}
	if r := again.run("restore", dir, "--store", "postgres://a@/b?host=/run"); r.code != exitUsage || !strings.Contains(r.stderr, "in files") {
		t.Errorf("files into a database: %+v", r)
	}
	r := again.run("restore", dir, "--output", "json")
	if v := r.json(t); r.code != exitOK || v["directory"] != again.home || v["files"] != 1.0 || v["bytes"] != 5.0 || !strings.Contains(r.stderr, "must never run again") {
		t.Errorf("a restore: %+v", r)
	}
	if r := again.run("restore", dir); r.code != exitState || !strings.Contains(r.stderr, "has a node already") {
		t.Errorf("a second one: %+v", r)
	}
}
