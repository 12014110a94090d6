package sqlite_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/shallot-net/shallot/kit/logging"
	"github.com/shallot-net/shallot/services/task/internal/adapter/sqlite"
	"github.com/shallot-net/shallot/services/task/internal/adapter/storetest"
	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

func open(t *testing.T, path string) *sqlite.Store {
	t.Helper()
	s, err := sqlite.Open(context.Background(), path, logging.New(t.Output(), "debug", "text", "test"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestConformance(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(t *testing.T) storetest.Store {
		s := open(t, filepath.Join(t.TempDir(), "task.db"))
		t.Cleanup(func() {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
		return s
	})
}

func TestStateSurvivesAndIsPrivate(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "task.db")
	s := open(t, path)
	task := domain.NewTask(domain.Task{ID: app.NewID(), RequestID: "r", Type: "sum"}, time.Now())
	task.Revision = 1
	if err := s.Commit(context.Background(), &app.Writes{Tasks: []app.TaskWrite{{Task: task, Insert: true}}}); err != nil {
		t.Fatal(err)
	}
	s.Later(&app.Writes{Releases: []app.ReleaseRow{{TaskID: task.ID, Attempt: 1}}})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("the file's mode is %v, %v", info.Mode(), err)
	}
	s = open(t, path)
	defer s.Close()
	if _, err := s.Task(context.Background(), task.ID); err != nil {
		t.Fatal(err)
	}
	if rows, err := s.Releases(context.Background(), 10); err != nil || len(rows) != 1 {
		t.Fatalf("what was to be written later: %v, %v", rows, err)
	}
}

func TestPruneForgetsOldEvents(t *testing.T) {
	t.Parallel()
	s := open(t, filepath.Join(t.TempDir(), "task.db"))
	defer s.Close()
	w := &app.Writes{Inbox: []app.InboxID{app.InboxIDOf("peer", "1")}}
	ctx := context.Background()
	if err := s.Commit(ctx, w); err != nil {
		t.Fatal(err)
	}
	if err := s.Prune(ctx, time.Now().Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	if err := s.Commit(ctx, w); err == nil {
		t.Fatal("a young event was forgotten")
	}
	if err := s.Prune(ctx, time.Now().Add(73*time.Hour)); err != nil {
		t.Fatal(err)
	}
	if err := s.Commit(ctx, w); err != nil {
		t.Fatalf("an old event is still known: %v", err)
	}
}
