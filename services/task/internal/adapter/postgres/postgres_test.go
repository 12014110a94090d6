package postgres_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/shallot-net/shallot/kit/logging"
	"github.com/shallot-net/shallot/kit/pgtest"
	"github.com/shallot-net/shallot/services/task/internal/adapter/postgres"
	"github.com/shallot-net/shallot/services/task/internal/adapter/storetest"
	"github.com/shallot-net/shallot/services/task/internal/app"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func open(t *testing.T, s *pgtest.Server, database string) *postgres.Store {
	t.Helper()
	store, err := postgres.Open(t.Context(), s.URL(database), s.PasswordFile, logging.New(t.Output(), "debug", "text", "test"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return store
}

func TestConformance(t *testing.T) {
	t.Parallel()
	s := pgtest.Shared(t)
	storetest.Run(t, func(t *testing.T) storetest.Store { return open(t, s, s.Database(t)) })
}

func TestReplicas(t *testing.T) {
	t.Parallel()
	s := pgtest.Shared(t)
	storetest.RunShared(t, func(t *testing.T) (one, two storetest.Store) {
		database := s.Database(t)
		return open(t, s, database), open(t, s, database)
	})
}

func TestPruneForgetsOldEvents(t *testing.T) {
	t.Parallel()
	server := pgtest.Shared(t)
	s := open(t, server, server.Database(t))
	w := &app.Writes{Inbox: []app.InboxID{app.InboxIDOf("peer", "1")}}
	ctx := context.Background()
	for _, step := range []struct {
		prune time.Duration
		want  error
	}{{0, nil}, {-time.Hour, app.ErrRepeated}, {73 * time.Hour, nil}} {
		if step.prune != 0 {
			if err := s.Prune(ctx, time.Now().Add(step.prune)); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Commit(ctx, w); !errors.Is(err, step.want) {
			t.Fatalf("after a prune of %v: %v", step.prune, err)
		}
	}
}
