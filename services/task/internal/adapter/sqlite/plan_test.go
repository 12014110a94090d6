package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shallot-net/shallot/services/task/internal/app"
)

// What runs for every task, or over all of a store, finds its rows by a key.
func TestQueriesUseKeys(t *testing.T) {
	t.Parallel()
	s, err := Open(t.Context(), filepath.Join(t.TempDir(), "task.db"), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	entry := []any{"id", 1, "peer"}
	for query, args := range map[string][]any{
		insertInbox:                             {1, []byte("id")},
		pruneInbox:                              {1, 10},
		`SELECT record FROM tasks WHERE id = ?`: {"id"},
		`SELECT record FROM tasks WHERE request_id = ?`:                                                        {"id"},
		`SELECT record FROM tasks WHERE finished_at = 0 AND id > ? ORDER BY id LIMIT ?`:                        {"id", 1},
		`SELECT record FROM tasks ORDER BY created_at DESC, id DESC LIMIT ?`:                                   {1},
		`SELECT id FROM tasks WHERE finished_at > 0 AND finished_at < ? LIMIT ?`:                               {1, 1},
		`SELECT record FROM entries WHERE task_id = ? AND attempt = ? AND consumer = ?`:                        entry,
		`SELECT record FROM entries WHERE ended_at = 0 ORDER BY created_at`:                                    nil,
		`SELECT record FROM entries WHERE forget_at > 0 AND forget_at <= ? ORDER BY forget_at LIMIT ?`:         {1, 1},
		`SELECT id FROM outbox WHERE id > ? ORDER BY id LIMIT ?`:                                               {1, 1},
		`UPDATE entries SET result = NULL WHERE task_id = ? AND attempt = ? AND consumer = ? AND revision = 1`: entry,
		`UPDATE tasks SET secret = NULL WHERE id = ? AND revision = 1`:                                         {"id"},
		`DELETE FROM releases WHERE task_id = ? AND attempt = ? AND peer = ?`:                                  entry,
		selectReplicated: {"id", 1, "peer", 1},
	} {
		plan := explain(t, s, query, args)
		for _, step := range plan {
			if strings.HasPrefix(step, "SCAN") && !strings.Contains(step, "USING") && !strings.Contains(step, "CONSTANT ROW") || strings.Contains(step, "TEMP B-TREE") {
				t.Errorf("%s\n\t%s", query, strings.Join(plan, "\n\t"))
			}
		}
		if len(plan) == 0 {
			t.Errorf("%s has no plan", query)
		}
	}
}

func explain(t *testing.T, s *Store, query string, args []any) (steps []string) {
	t.Helper()
	err := s.each(t.Context(), `EXPLAIN QUERY PLAN `+query, args, func(r *sql.Rows) error {
		var id, parent, unused int
		var step string
		err := r.Scan(&id, &parent, &unused, &step)
		steps = append(steps, step)
		return err
	})
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return steps
}

// A store of the first version is brought along: what it has applied, it still recognises.
func TestOlderStoreKeepsItsInbox(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "task.db")
	first, err := os.ReadFile("migrations/00001_tasks.sql")
	if err != nil {
		t.Fatal(err)
	}
	known, old := app.InboxIDOf("peer", "known"), app.InboxIDOf("peer", "old")
	hour := time.Now().Unix() / 3600
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	for _, do := range []struct {
		query string
		args  []any
	}{
		{string(first), nil},
		{`CREATE TABLE goose_db_version (id INTEGER PRIMARY KEY AUTOINCREMENT, version_id INTEGER NOT NULL, is_applied INTEGER NOT NULL, tstamp TIMESTAMP DEFAULT (datetime('now')))`, nil},
		{`INSERT INTO goose_db_version (version_id, is_applied) VALUES (0, 1), (1, 1)`, nil},
		{`INSERT INTO inbox (id, at) VALUES (?, ?), (?, ?)`, []any{known[:], hour, old[:], hour - 200}},
	} {
		if _, err := db.Exec(do.query, do.args...); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.Context(), path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx := context.Background()
	if err := s.Commit(ctx, &app.Writes{Inbox: []app.InboxID{known}}); !errors.Is(err, app.ErrRepeated) {
		t.Fatalf("an event that was applied before the upgrade: %v", err)
	}
	if err := s.Prune(ctx, time.Now().Add(-72*time.Hour)); err != nil {
		t.Fatal(err)
	}
	if err := s.Commit(ctx, &app.Writes{Inbox: []app.InboxID{old}}); err != nil {
		t.Fatalf("an event that was pruned: %v", err)
	}
}
