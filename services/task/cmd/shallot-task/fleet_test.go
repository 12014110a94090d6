package main

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/home"
	"github.com/shallot-net/shallot/kit/pgtest"
	"github.com/shallot-net/shallot/services/task/internal/adapter/postgres"
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

func TestMain(m *testing.M) { pgtest.Main(m) }

// A consumer's process that is told to end has its tasks until it is closed: what is under way commits before that.
func TestAConsumerLeavesLast(t *testing.T) {
	t.Parallel()
	server := pgtest.Shared(t)
	store, err := postgres.Open(t.Context(), server.URL(server.Database(t)), server.PasswordFile, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	p := &parts{dir: t.TempDir(), store: store, log: slog.New(slog.DiscardHandler), ready: &readiness{set: func(bool) {}}}
	ctx, end := context.WithCancel(t.Context())
	watch, err := p.alone(ctx)
	if err != nil {
		t.Fatal(err)
	}
	other := store.Fleet("other")
	leads := func() bool {
		t.Helper()
		pulse, err := other.Beat(t.Context(), 0, nothing, consumerLease)
		if err != nil {
			t.Fatal(err)
		}
		return pulse.Leads
	}
	end()
	if err := watch(ctx); err != nil {
		t.Fatal(err)
	}
	if leads() {
		t.Error("another process has its tasks before it is closed")
	}
	p.close()
	if !leads() {
		t.Error("it was closed, and another process has to wait for its lease")
	}
}

// One whose tasks another process has ends.
func TestAConsumerThatIsSupersededEnds(t *testing.T) {
	t.Parallel()
	server := pgtest.Shared(t)
	store, err := postgres.Open(t.Context(), server.URL(server.Database(t)), server.PasswordFile, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	p := &parts{dir: t.TempDir(), store: store, log: slog.New(slog.DiscardHandler), ready: &readiness{set: func(bool) {}}}
	watch, err := p.alone(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	name, err := replicaName(p.dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Fleet(name).Leave(t.Context()); err != nil { // as after its lease
		t.Fatal(err)
	}
	if pulse, err := store.Fleet("other").Beat(t.Context(), 0, nothing, time.Hour); err != nil || !pulse.Leads {
		t.Fatalf("%+v, %v", pulse, err)
	}
	if err := watch(t.Context()); fault.From(err).Reason != "NOT_LEADING" {
		t.Errorf("it ended with %v", err)
	}
}
