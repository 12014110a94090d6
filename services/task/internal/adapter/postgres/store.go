// Package postgres keeps tasks and the journal in PostgreSQL, where several replicas of the service share them.
package postgres

import (
	"context"
	"embed"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/shallot-net/shallot/kit/pgstore"
	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/app/consumer"
	"github.com/shallot-net/shallot/services/task/internal/app/provider"
)

//go:embed migrations
var migrations embed.FS

// schema is this service's part of the database.
const schema = "task"

// Store implements the stores of both roles.
type Store struct {
	db                *pgstore.DB
	commits, failures atomic.Uint64
}

var (
	_ consumer.Store = (*Store)(nil)
	_ provider.Store = (*Store)(nil)
)

// Open opens the store that a URL names, with the password in a file; see pgstore.Open for what it waits for and for its errors.
func Open(ctx context.Context, url, passwordFile string, log *slog.Logger) (*Store, error) {
	db, err := pgstore.Open(ctx, pgstore.Config{URL: url, PasswordFile: passwordFile, Schema: schema, Migrations: migrations, Log: log})
	if err != nil {
		return nil, err
	}
	return &Store{db: db}, nil
}

// Close commits what is queued and closes the connections.
func (s *Store) Close() error { return s.db.Close() }

// Commits is how many transactions were asked for.
func (s *Store) Commits() uint64 { return s.commits.Load() }

// Failures is how many of them the store could not write, for whatever reason of its own.
func (s *Store) Failures() uint64 { return s.failures.Load() }

// Commit implements app.Committer.
func (s *Store) Commit(ctx context.Context, w *app.Writes) error {
	s.commits.Add(1)
	err := s.db.Commit(ctx, batch(w))
	if app.StoreFailed(ctx, err) {
		s.failures.Add(1)
	}
	return err
}

// Later implements app.Committer.
func (s *Store) Later(w *app.Writes) { s.db.Later(batch(w)) }

// Setting returns a value that is made once and then stays, the same one for all replicas: make is called when there is none, and loses when another
// process was faster.
func (s *Store) Setting(ctx context.Context, name string, make func() ([]byte, error)) ([]byte, error) {
	const read = `SELECT value FROM settings WHERE name = $1`
	b, err := s.blob(ctx, read, name)
	if !missed(err) {
		return b, err
	}
	value, err := make()
	if err != nil {
		return nil, err
	}
	var w pgstore.Batch
	w.Exec(`INSERT INTO settings (name, value) VALUES ($1, $2) ON CONFLICT DO NOTHING`, name, value)
	if err := s.db.Commit(ctx, &w); err != nil {
		return nil, err
	}
	return s.blob(ctx, read, name)
}

const pruneInbox = `DELETE FROM inbox WHERE (days, id) IN (SELECT days, id FROM inbox WHERE days < $1 LIMIT $2)`

// pruneBatch bounds how long the writer is kept from others.
const pruneBatch = 1000

// Prune forgets events that were applied before t, up to three days after that: by then nobody repeats them.
func (s *Store) Prune(ctx context.Context, t time.Time) error {
	for {
		var w pgstore.Batch
		w.Exec(pruneInbox, t.Unix()/inboxDays, pruneBatch)
		if n, err := s.db.CommitRows(ctx, &w); err != nil || n < pruneBatch {
			return err
		}
	}
}
