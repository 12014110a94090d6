package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shallot-net/shallot/kit/home"
)

// A replica keeps its name over restarts, and no two of a home have the same.
func TestReplicaNames(t *testing.T) {
	t.Parallel()
	h, err := home.Open(filepath.Join(t.TempDir(), "h"))
	if err != nil {
		t.Fatal(err)
	}
	cfg := newSettings()
	cfg.Role, cfg.Store = "provider", "postgres:///x?host=/run"
	name := func() (string, func()) {
		t.Helper()
		dir, unlock, err := lock(cfg, h)
		if err != nil {
			t.Fatal(err)
		}
		n, err := replicaName(dir)
		if err != nil || len(n) != 32 {
			t.Fatalf("%q, %v", n, err)
		}
		return n, unlock
	}
	one, end := name()
	two, endTwo := name()
	if one == two {
		t.Fatal("two replicas have one name")
	}
	end()
	again, end := name()
	if again != one {
		t.Fatalf("%s is %s after a restart", one, again)
	}
	end()
	endTwo()
	cfg.Role = "consumer" // has one home, and one process
	dir, unlock, err := lock(cfg, h)
	if err != nil || dir != h.State(process) {
		t.Fatalf("%s, %v", dir, err)
	}
	defer unlock()
	if _, _, err := lock(cfg, h); err == nil {
		t.Fatal("two consumers have one home")
	}
	bad := t.TempDir()
	if err := os.Mkdir(filepath.Join(bad, "replica"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := replicaName(bad); err == nil || !strings.Contains(err.Error(), bad) {
		t.Fatalf("a name that cannot be read: %v", err)
	}
}
