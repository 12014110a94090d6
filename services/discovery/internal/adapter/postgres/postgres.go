// Package postgres is discovery's store in PostgreSQL, where several replicas share one peer table.
package postgres

import (
	"context"
	"embed"
	"fmt"
	"log/slog"
	"math"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/shallot-net/shallot/kit/logging"
	"github.com/shallot-net/shallot/kit/pgstore"
	"github.com/shallot-net/shallot/services/discovery/internal/adapter/record"
	"github.com/shallot-net/shallot/services/discovery/internal/app"
	"github.com/shallot-net/shallot/services/discovery/internal/domain"
)

//go:embed migrations
var migrations embed.FS

const (
	schema  = "discovery" // this service's part of the database
	channel = "shallot_discovery"
)

// Store is an app.Store, and what replicas share.
type Store struct {
	*pgstore.Crew
	db  *pgstore.DB
	log *slog.Logger
}

var (
	_ app.Store  = (*Store)(nil)
	_ app.Shared = (*Store)(nil)
)

// Open opens the store that a URL names, with the password in a file; see pgstore.Open for what it waits for and for its errors.
func Open(ctx context.Context, url, passwordFile string, log *slog.Logger) (*Store, error) {
	db, err := pgstore.Open(ctx, pgstore.Config{URL: url, PasswordFile: passwordFile, Schema: schema, Migrations: migrations, Log: log})
	if err != nil {
		return nil, err
	}
	return &Store{db.Crew(channel), db, log}, nil
}

// Close writes what is queued.
func (s *Store) Close() error { return s.db.Close() }

// LoadPeers returns the rows. One that cannot be read any more, written by another version perhaps, is left out: its
// peer will announce itself again.
func (s *Store) LoadPeers(ctx context.Context) ([]domain.Peer, error) {
	out, err := s.Rows(ctx)
	for i := range out {
		out[i].Vouched = false
	}
	return out, err
}

// Rows implements app.Shared.
func (s *Store) Rows(ctx context.Context) ([]domain.Peer, error) { return s.rows(ctx, "") }

// Row implements app.Shared.
func (s *Store) Row(ctx context.Context, id string) (domain.Peer, bool, error) {
	out, err := s.rows(ctx, " WHERE peer_id = $1", id)
	if err != nil || len(out) == 0 {
		return domain.Peer{}, false, err
	}
	return out[0], true, nil
}

func (s *Store) rows(ctx context.Context, where string, args ...any) ([]domain.Peer, error) {
	var out []domain.Peer
	err := s.db.Each(ctx, "SELECT peer_id, state, first_seen, last_seen, vouched, announcement FROM peers"+where+" ORDER BY last_seen DESC", args, func() { out = nil }, func(r pgx.Rows) error {
		var id, state string
		var first, last int64
		var vouched bool
		var signed []byte
		if err := r.Scan(&id, &state, &first, &last, &vouched, &signed); err != nil {
			return err
		}
		p, err := record.ReadPeer(id, state, signed)
		if err != nil {
			s.log.Warn("stored peer left out", logging.Peer(id), logging.Err(err))
			return nil
		}
		p.FirstSeen, p.LastSeen, p.Vouched = time.UnixMicro(first), time.UnixMicro(last), vouched
		out = append(out, p)
		return nil
	})
	return out, err
}

// What replicas tell each other, before the id of a peer where it is one's.
const (
	notePeer = "peer "
	noteSelf = "self"
)

// SavePeers queues the change; it rides the next commit.
func (s *Store) SavePeers(put []domain.Peer, del []string) {
	var b pgstore.Batch
	for _, p := range put {
		b.Exec(`INSERT INTO peers (peer_id, state, first_seen, last_seen, vouched, announcement) VALUES ($1, $2, $3, $4, $5, $6)
			ON CONFLICT (peer_id) DO UPDATE SET state = $2, first_seen = $3, last_seen = $4, vouched = $5, announcement = $6`,
			p.PeerID, string(p.State), p.FirstSeen.UnixMicro(), p.LastSeen.UnixMicro(), p.Vouched, p.Signed)
		s.Tell(&b, notePeer+p.PeerID)
	}
	for _, id := range del {
		b.Exec("DELETE FROM peers WHERE peer_id = $1", id)
		s.Tell(&b, notePeer+id)
	}
	if b.Len() > 0 {
		s.db.Later(&b)
	}
}

// ReserveVersions takes versions durably.
func (s *Store) ReserveVersions(ctx context.Context, n, atLeast uint64) (uint64, error) {
	atLeast = max(atLeast, 1)
	if n > math.MaxInt32 || atLeast > math.MaxInt64-n {
		return 0, fmt.Errorf("versions are used up: %d more from %d", n, atLeast)
	}
	var next int64
	err := s.db.Tx(ctx, func(ctx context.Context, tx pgx.Tx) error {
		return tx.QueryRow(ctx, `INSERT INTO versions (id, next) VALUES (1, $1::bigint + $2::bigint)
			ON CONFLICT (id) DO UPDATE SET next = GREATEST(versions.next, $1) + $2 RETURNING next`, int64(atLeast), int64(n)).Scan(&next)
	})
	if err != nil {
		return 0, err
	}
	return uint64(next) - n, nil
}

// LoadSelf returns what was saved.
func (s *Store) LoadSelf(ctx context.Context) (app.Self, bool, error) {
	var b []byte
	err := s.db.Row(ctx, "SELECT announcement FROM self", nil, &b)
	if pgstore.NoRows(err) {
		return app.Self{}, false, nil
	}
	if err != nil {
		return app.Self{}, false, err
	}
	self, ok := record.ReadSelf(b)
	return self, ok, nil
}

// SaveSelf saves it durably.
func (s *Store) SaveSelf(ctx context.Context, self app.Self) error {
	announcement, err := record.Self(self)
	if err != nil {
		return err
	}
	var b pgstore.Batch
	b.Exec("INSERT INTO self (id, announcement) VALUES (1, $1) ON CONFLICT (id) DO UPDATE SET announcement = $1", announcement)
	s.Tell(&b, noteSelf)
	return s.db.Commit(ctx, &b)
}

// LoadPuzzle implements app.Shared.
func (s *Store) LoadPuzzle(ctx context.Context) (domain.Puzzle, error) {
	var p domain.Puzzle
	err := s.db.Row(ctx, "SELECT nonce, effort FROM puzzle", nil, &p.Nonce, &p.Effort)
	if pgstore.NoRows(err) {
		return domain.Puzzle{}, nil
	}
	if len(p.Nonce) == 0 {
		p.Nonce = nil
	}
	return p, err
}

// SavePuzzle implements app.Shared.
func (s *Store) SavePuzzle(ctx context.Context, p domain.Puzzle) error {
	nonce := p.Nonce
	if nonce == nil {
		nonce = []byte{}
	}
	var b pgstore.Batch
	b.Exec("INSERT INTO puzzle (id, nonce, effort) VALUES (1, $1, $2) ON CONFLICT (id) DO UPDATE SET nonce = $1, effort = $2", nonce, int64(p.Effort))
	s.Tell(&b, noteSelf)
	return s.db.Commit(ctx, &b)
}

// Listen implements app.Shared.
func (s *Store) Listen(ctx context.Context, heard func(app.News)) error {
	return s.Crew.Listen(ctx, func(text string) {
		switch {
		case text == "":
			heard(app.News{Missed: true})
		case text == pgstore.Left:
			heard(app.News{Left: true})
		case text == noteSelf:
			heard(app.News{Self: true})
		case len(text) > len(notePeer) && text[:len(notePeer)] == notePeer:
			heard(app.News{Peer: text[len(notePeer):]})
		}
	})
}
