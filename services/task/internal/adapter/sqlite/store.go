// Package sqlite keeps tasks and the journal in an embedded SQLite store, with one writer that commits groups.
package sqlite

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"

	"github.com/shallot-net/shallot/kit/sqlstore"
	"github.com/shallot-net/shallot/services/task/internal/adapter/record"
	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/app/consumer"
	"github.com/shallot-net/shallot/services/task/internal/app/provider"
)

//go:embed migrations
var migrations embed.FS

// Store implements the stores of both roles.
type Store struct {
	db                *sqlstore.DB
	commits, failures atomic.Uint64
	task              *sql.Stmt
	entry             *sql.Stmt
}

var (
	_ consumer.Store = (*Store)(nil)
	_ provider.Store = (*Store)(nil)
)

// Open opens the store in the file at path; see sqlstore.Open for its errors.
func Open(ctx context.Context, path string, log *slog.Logger) (*Store, error) {
	db, err := sqlstore.Open(ctx, path, migrations, sqlstore.WithLogger(log))
	if err != nil {
		return nil, err
	}
	s := &Store{db: db}
	s.task, err = db.Read().PrepareContext(ctx, `SELECT record FROM tasks WHERE id = ?`)
	if err == nil {
		s.entry, err = db.Read().PrepareContext(ctx, `SELECT record FROM entries WHERE task_id = ? AND attempt = ? AND consumer = ?`)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("prepare the statements of %s: %w", path, err), s.Close())
	}
	return s, nil
}

// Close commits what is queued and closes the file.
func (s *Store) Close() error {
	for _, st := range []*sql.Stmt{s.task, s.entry} {
		if st != nil {
			st.Close()
		}
	}
	return s.db.Close()
}

// Commits is how many transactions were asked for.
func (s *Store) Commits() uint64 { return s.commits.Load() }

// Failures is how many of them the store could not write, for whatever reason of its own.
func (s *Store) Failures() uint64 { return s.failures.Load() }

// Commit implements app.Committer.
func (s *Store) Commit(ctx context.Context, w *app.Writes) error {
	s.commits.Add(1)
	p := prepare(w)
	err := s.db.Commit(ctx, func(tx *sqlstore.Tx) error { return write(tx, w, p) })
	if app.StoreFailed(ctx, err) {
		s.failures.Add(1)
	}
	return err
}

// Later implements app.Committer.
func (s *Store) Later(w *app.Writes) {
	p := prepare(w)
	s.db.Later(func(tx *sqlstore.Tx) error {
		if err := write(tx, w, p); !errors.Is(err, app.ErrConflict) && !errors.Is(err, app.ErrRepeated) && !errors.Is(err, app.ErrExists) {
			return err
		}
		return nil
	})
}

// prepared is what is encoded before the single writer's turn.
type prepared struct{ tasks, entries, jobs [][]byte }

func prepare(w *app.Writes) (p prepared) {
	p.tasks, p.entries = make([][]byte, len(w.Tasks)), make([][]byte, len(w.Entries))
	for i := range w.Tasks {
		if !w.Tasks[i].Delete {
			p.tasks[i] = record.AppendTask(w.Tasks[i].Task)
		}
	}
	for i := range w.Entries {
		if !w.Entries[i].Delete {
			p.entries[i] = record.AppendEntry(w.Entries[i].Entry)
		}
	}
	if len(w.Jobs) > 0 {
		p.jobs = make([][]byte, len(w.Jobs))
	}
	for i := range w.Jobs {
		if !w.Jobs[i].Delete {
			p.jobs[i] = record.AppendJob(w.Jobs[i].Job)
		}
	}
	return p
}

func missing(err error) error {
	if sqlstore.NoRows(err) {
		return app.ErrNotFound
	}
	return err
}
