package postgres_test

import (
	"testing"

	"github.com/shallot-net/shallot/kit/logging"
	"github.com/shallot-net/shallot/kit/pgtest"
	"github.com/shallot-net/shallot/services/metric/internal/adapter/postgres"
	"github.com/shallot-net/shallot/services/metric/internal/app"
	"github.com/shallot-net/shallot/services/metric/internal/app/sharedtest"
	"github.com/shallot-net/shallot/services/metric/internal/app/versionstest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func open(t *testing.T, s *pgtest.Server, database string) *postgres.Store {
	t.Helper()
	store, err := postgres.Open(t.Context(), s.URL(database), s.PasswordFile, logging.New(t.Output(), "debug", "text", "test"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	return store
}

func TestVersions(t *testing.T) {
	t.Parallel()
	server := pgtest.Shared(t)
	versionstest.Run(t, func(t *testing.T) versionstest.Store {
		database := server.Database(t)
		return versionstest.Store{Versions: open(t, server, database), Reopen: func() app.Versions { return open(t, server, database) }}
	})
}

func TestShared(t *testing.T) {
	t.Parallel()
	server := pgtest.Shared(t)
	sharedtest.Run(t, func(t *testing.T) (one, two app.Shared) {
		database := server.Database(t)
		return open(t, server, database), open(t, server, database)
	})
}
