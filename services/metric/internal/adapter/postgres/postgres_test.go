package postgres_test

import (
	"testing"
	"time"

	"github.com/shallot-net/shallot/kit/logging"
	"github.com/shallot-net/shallot/kit/pgtest"
	"github.com/shallot-net/shallot/services/metric/internal/adapter/postgres"
	"github.com/shallot-net/shallot/services/metric/internal/app"
	"github.com/shallot-net/shallot/services/metric/internal/app/sharedtest"
	"github.com/shallot-net/shallot/services/metric/internal/app/versionstest"
	"github.com/shallot-net/shallot/services/metric/internal/domain"
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

// Hosts that are gone, and metrics that cannot be fresh any more, do not stay for ever.
func TestWhatIsOldIsDeleted(t *testing.T) {
	t.Parallel()
	server := pgtest.Shared(t)
	database := server.Database(t)
	one := open(t, server, database)
	metric := func(peer string) domain.Metric {
		return domain.Metric{PeerID: peer, Version: 1, Interval: time.Minute, CPU: domain.CPU{Threads: 1}}
	}
	one.SaveKnown([]domain.Known{{Metric: metric("new"), ReceivedAt: time.Now()}, {Metric: metric("old"), ReceivedAt: time.Now().Add(-domain.Longest - time.Hour)}}, nil)
	exchange := func(s *postgres.Store, host string, keep time.Duration) {
		t.Helper()
		if _, err := s.Exchange(t.Context(), host, metric(""), keep, 0); err != nil {
			t.Fatal(err)
		}
	}
	exchange(one, "gone", -2*time.Hour)
	exchange(one, "silent", time.Microsecond)
	if err := one.SaveQueue(t.Context(), domain.Queue{}); err != nil { // what was queued before it is written with it
		t.Fatal(err)
	}
	exchange(open(t, server, database), "here", time.Minute)
	db := server.Connect(t, database)
	for query, want := range map[string]string{
		`SELECT string_agg(host, ' ' ORDER BY host) FROM metric.hosts`:       "here silent",
		`SELECT string_agg(peer_id, ' ' ORDER BY peer_id) FROM metric.known`: "new",
	} {
		var got string
		if err := db.QueryRow(t.Context(), query).Scan(&got); err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", query, got, err, want)
		}
	}
}
