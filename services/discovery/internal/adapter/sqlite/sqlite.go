// Package sqlite is discovery's store in an embedded database.
package sqlite

import (
	"context"
	"embed"
	"fmt"
	"log/slog"
	"math"
	"time"

	"github.com/shallot-net/shallot/kit/logging"
	"github.com/shallot-net/shallot/kit/sqlstore"
	"github.com/shallot-net/shallot/services/discovery/internal/adapter/record"
	"github.com/shallot-net/shallot/services/discovery/internal/app"
	"github.com/shallot-net/shallot/services/discovery/internal/domain"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Store is an app.Store.
type Store struct {
	db  *sqlstore.DB
	log *slog.Logger
}

var _ app.Store = (*Store)(nil)

// Open opens the file at path, and makes it where missing.
func Open(ctx context.Context, path string, log *slog.Logger) (*Store, error) {
	db, err := sqlstore.Open(ctx, path, migrations, sqlstore.WithLogger(log))
	if err != nil {
		return nil, err
	}
	return &Store{db, log}, nil
}

// Close writes what is queued.
func (s *Store) Close() error { return s.db.Close() }

// LoadPeers returns the rows. One that cannot be read any more, written by another version perhaps, is left out: its
// peer will announce itself again.
func (s *Store) LoadPeers(ctx context.Context) ([]domain.Peer, error) {
	rows, err := s.db.Read().QueryContext(ctx, "SELECT peer_id, state, first_seen, last_seen, announcement FROM peers ORDER BY last_seen DESC")
	if err != nil {
		return nil, fmt.Errorf("read the peer table: %w", err)
	}
	defer rows.Close()
	var out []domain.Peer
	for rows.Next() {
		var id, state string
		var first, last int64
		var signed []byte
		if err := rows.Scan(&id, &state, &first, &last, &signed); err != nil {
			return nil, fmt.Errorf("read the peer table: %w", err)
		}
		p, err := record.ReadPeer(id, state, signed)
		if err != nil {
			s.log.Warn("stored peer left out", logging.Peer(id), logging.Err(err))
			continue
		}
		p.FirstSeen, p.LastSeen = time.UnixMicro(first), time.UnixMicro(last)
		out = append(out, p)
	}
	return out, rows.Err()
}

// SavePeers queues the change; it rides the next commit.
func (s *Store) SavePeers(put []domain.Peer, del []string) {
	s.db.Later(func(tx *sqlstore.Tx) error {
		for _, p := range put {
			if _, err := tx.Exec(`INSERT INTO peers (peer_id, state, first_seen, last_seen, announcement) VALUES (?, ?, ?, ?, ?)
				ON CONFLICT (peer_id) DO UPDATE SET state = excluded.state, first_seen = excluded.first_seen, last_seen = excluded.last_seen, announcement = excluded.announcement`,
				p.PeerID, string(p.State), p.FirstSeen.UnixMicro(), p.LastSeen.UnixMicro(), p.Signed); err != nil {
				return err
			}
		}
		for _, id := range del {
			if _, err := tx.Exec("DELETE FROM peers WHERE peer_id = ?", id); err != nil {
				return err
			}
		}
		return nil
	})
}

// ReserveVersions takes versions durably.
func (s *Store) ReserveVersions(ctx context.Context, n, atLeast uint64) (uint64, error) {
	atLeast = max(atLeast, 1)
	if n > math.MaxInt32 || atLeast > math.MaxInt64-n {
		return 0, fmt.Errorf("versions are used up: %d more from %d", n, atLeast)
	}
	var next int64
	err := s.db.Commit(ctx, func(tx *sqlstore.Tx) error {
		return tx.QueryRow(`INSERT INTO versions (id, next) VALUES (1, ?1 + ?2)
			ON CONFLICT (id) DO UPDATE SET next = max(next, ?1) + ?2 RETURNING next`, int64(atLeast), int64(n)).Scan(&next)
	})
	if err != nil {
		return 0, err
	}
	return uint64(next) - n, nil
}

// LoadSelf returns what was saved.
func (s *Store) LoadSelf(ctx context.Context) (app.Self, bool, error) {
	var b []byte
	err := s.db.Read().QueryRowContext(ctx, "SELECT announcement FROM self").Scan(&b)
	if sqlstore.NoRows(err) {
		return app.Self{}, false, nil
	}
	if err != nil {
		return app.Self{}, false, fmt.Errorf("read this node's own announcement: %w", err)
	}
	self, ok := record.ReadSelf(b)
	return self, ok, nil
}

// SaveSelf saves it durably.
func (s *Store) SaveSelf(ctx context.Context, self app.Self) error {
	b, err := record.Self(self)
	if err != nil {
		return err
	}
	return s.db.Commit(ctx, func(tx *sqlstore.Tx) error {
		_, err := tx.Exec("INSERT INTO self (id, announcement) VALUES (1, ?) ON CONFLICT (id) DO UPDATE SET announcement = excluded.announcement", b)
		return err
	})
}
