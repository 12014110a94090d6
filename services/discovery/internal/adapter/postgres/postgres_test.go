package postgres_test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/shallot-net/shallot/kit/brokerclient"
	"github.com/shallot-net/shallot/kit/brokertest"
	"github.com/shallot-net/shallot/kit/logging"
	"github.com/shallot-net/shallot/kit/pgtest"
	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	"github.com/shallot-net/shallot/services/discovery/internal/adapter/broker"
	"github.com/shallot-net/shallot/services/discovery/internal/adapter/postgres"
	"github.com/shallot-net/shallot/services/discovery/internal/app"
	"github.com/shallot-net/shallot/services/discovery/internal/app/storetest"
	"github.com/shallot-net/shallot/services/discovery/internal/domain"
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

// rows makes peers whose announcements are really signed.
func rows(t *testing.T) func(n int) domain.Peer {
	net := brokertest.NewNetwork()
	made := map[int]domain.Peer{}
	return func(n int) domain.Peer {
		if p, ok := made[n]; ok {
			return p
		}
		b := net.Add()
		a := domain.Announcement{PeerID: b.PeerID(), Version: uint64(n), Role: domain.RoleProvider, SealingKey: "age1pq1" + strings.Repeat("q", 1950),
			Interval: 15 * time.Second, Addresses: []string{"/ip4/192.0.2.1/tcp/1"}, Capabilities: []domain.Capability{{Type: "wasm"}}}
		ev, err := brokerclient.NewEvent(eventv1.EventType_EVENT_TYPE_ANNOUNCEMENT, broker.Encode(a))
		if err != nil {
			t.Fatal(err)
		}
		signed, err := proto.Marshal(b.SignEvent(ev))
		if err != nil {
			t.Fatal(err)
		}
		made[n] = domain.Peer{Announcement: a, Signed: signed, State: domain.Available,
			FirstSeen: time.UnixMicro(1_700_000_000_000_001), LastSeen: time.UnixMicro(1_700_000_001_000_002)}
		return made[n]
	}
}

func TestConformance(t *testing.T) {
	t.Parallel()
	server := pgtest.Shared(t)
	storetest.Run(t, func(t *testing.T) storetest.Store {
		database := server.Database(t)
		s := open(t, server, database)
		return storetest.Store{Store: s, Reopen: func() app.Store {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			s = open(t, server, database)
			return s
		}}
	}, rows(t))
}

func TestReplicas(t *testing.T) {
	t.Parallel()
	server := pgtest.Shared(t)
	storetest.RunShared(t, func(t *testing.T) (one, two storetest.SharedStore) {
		database := server.Database(t)
		return open(t, server, database), open(t, server, database)
	}, rows(t))
}
