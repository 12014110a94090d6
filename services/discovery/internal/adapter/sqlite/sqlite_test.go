package sqlite_test

import (
	"database/sql"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/shallot-net/shallot/kit/brokerclient"
	"github.com/shallot-net/shallot/kit/brokertest"
	"github.com/shallot-net/shallot/kit/fault"
	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	"github.com/shallot-net/shallot/services/discovery/internal/adapter/broker"
	"github.com/shallot-net/shallot/services/discovery/internal/adapter/sqlite"
	"github.com/shallot-net/shallot/services/discovery/internal/app"
	"github.com/shallot-net/shallot/services/discovery/internal/app/storetest"
	"github.com/shallot-net/shallot/services/discovery/internal/domain"
)

func open(t *testing.T, path string) *sqlite.Store {
	t.Helper()
	s, err := sqlite.Open(t.Context(), path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
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
			Interval: 15 * time.Second, Addresses: []string{"/ip4/192.0.2.1/tcp/1"},
			Capabilities: []domain.Capability{{Type: "wasm", MaxLimits: domain.Limits{Time: time.Minute, Memory: 1}, Attributes: map[string]string{"engine": "wazero"}}}}
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
	storetest.Run(t, func(t *testing.T) storetest.Store {
		path := filepath.Join(t.TempDir(), "discovery.db")
		s := open(t, path)
		return storetest.Store{Store: s, Reopen: func() app.Store {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			s = open(t, path)
			return s
		}}
	}, rows(t))
}

func TestARowThatCannotBeReadIsLeftOut(t *testing.T) {
	path := filepath.Join(t.TempDir(), "discovery.db")
	s := open(t, path)
	good, bad := rows(t)(1), rows(t)(2)
	bad.Signed = []byte("not an event")
	s.SavePeers([]domain.Peer{good, bad}, nil)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	got, err := open(t, path).LoadPeers(t.Context())
	if err != nil || len(got) != 1 || got[0].PeerID != good.PeerID {
		t.Errorf("LoadPeers = %d rows, %v", len(got), err)
	}
}

func TestANewerStoreIsRefusedByName(t *testing.T) {
	path := filepath.Join(t.TempDir(), "discovery.db")
	if err := open(t, path).Close(); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec("INSERT INTO goose_db_version (version_id, is_applied) VALUES (99, 1)"); err != nil {
		t.Fatal(err)
	}
	db.Close()
	_, err = sqlite.Open(t.Context(), path, slog.New(slog.DiscardHandler))
	if err == nil || fault.From(err).Reason != "STORE_NEWER" || !strings.Contains(err.Error(), path) {
		t.Errorf("Open = %v", err)
	}
}
