package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"time"

	"github.com/shallot-net/shallot/kit/sqlstore"
	"github.com/shallot-net/shallot/services/task/internal/adapter/record"
	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// Task implements consumer.Store.
func (s *Store) Task(ctx context.Context, id string) (*domain.Task, error) {
	var b []byte
	if err := s.task.QueryRowContext(ctx, id).Scan(&b); err != nil {
		return nil, missing(err)
	}
	return record.ReadTask(b)
}

// TaskByRequest implements consumer.Store.
func (s *Store) TaskByRequest(ctx context.Context, requestID string) (*domain.Task, error) {
	b, err := s.blob(ctx, `SELECT record FROM tasks WHERE request_id = ?`, requestID)
	if err != nil {
		return nil, err
	}
	return record.ReadTask(b)
}

func (s *Store) blob(ctx context.Context, query string, args ...any) ([]byte, error) {
	var b []byte
	err := s.db.Read().QueryRowContext(ctx, query, args...).Scan(&b)
	return b, missing(err)
}

// Secret implements consumer.Store.
func (s *Store) Secret(ctx context.Context, id string) ([]byte, error) {
	return s.blob(ctx, `SELECT secret FROM tasks WHERE id = ?`, id)
}

// Payload implements consumer.Store.
func (s *Store) Payload(ctx context.Context, id string) ([]byte, error) {
	return s.blob(ctx, `SELECT payload FROM tasks WHERE id = ?`, id)
}

// Body implements consumer.Store.
func (s *Store) Body(ctx context.Context, id string) ([]byte, error) {
	return s.blob(ctx, `SELECT body FROM tasks WHERE id = ?`, id)
}

// Share implements consumer.Store.
func (s *Store) Share(ctx context.Context, persona, peer string, sum domain.Hash) (app.ShareRow, error) {
	r := app.ShareRow{Persona: persona, Peer: peer, SHA256: sum}
	var until int64
	err := s.db.Read().QueryRowContext(ctx, `SELECT cid, key, size, until FROM shares WHERE persona = ? AND peer = ? AND sha256 = ?`, persona, peer, sum[:]).
		Scan(&r.Ref.CID, &r.Ref.Key, &r.Ref.Size, &until)
	r.Until = time.UnixMicro(until)
	return r, missing(err)
}

// each runs a query and gives every row to scan.
func (s *Store) each(ctx context.Context, query string, args []any, scan func(*sql.Rows) error) error {
	rows, err := s.db.Read().QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := scan(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

func (s *Store) tasks(ctx context.Context, query string, args ...any) ([]*domain.Task, error) {
	var out []*domain.Task
	err := s.each(ctx, query, args, func(r *sql.Rows) error {
		var b sql.RawBytes
		if err := r.Scan(&b); err != nil {
			return err
		}
		t, err := record.ReadTask(b)
		out = append(out, t)
		return err
	})
	return out, err
}

func (s *Store) entries(ctx context.Context, query string, args ...any) ([]*domain.Entry, error) {
	var out []*domain.Entry
	err := s.each(ctx, query, args, func(r *sql.Rows) error {
		var b sql.RawBytes
		if err := r.Scan(&b); err != nil {
			return err
		}
		e, err := record.ReadEntry(b)
		out = append(out, e)
		return err
	})
	return out, err
}

// OpenTasks implements consumer.Store.
func (s *Store) OpenTasks(ctx context.Context, after string, limit int) ([]*domain.Task, error) {
	return s.tasks(ctx, `SELECT record FROM tasks WHERE finished_at = 0 AND id > ? ORDER BY id LIMIT ?`, after, limit)
}

// ListTasks implements consumer.Store.
func (s *Store) ListTasks(ctx context.Context, f app.TaskFilter) ([]*domain.Task, error) {
	where, args := conditions(f, "id")
	return s.tasks(ctx, `SELECT record FROM tasks`+where+` ORDER BY created_at DESC, id DESC LIMIT ?`, args...)
}

// ListEntries implements provider.Store.
func (s *Store) ListEntries(ctx context.Context, f app.TaskFilter) ([]*domain.Entry, error) {
	where, args := conditions(f, "task_id")
	return s.entries(ctx, `SELECT record FROM entries`+where+` ORDER BY created_at DESC, task_id DESC LIMIT ?`, args...)
}

// conditions is a list's filter as SQL; the last argument is the limit.
func conditions(f app.TaskFilter, id string) (string, []any) {
	var terms []string
	var args []any
	add := func(term string, a ...any) {
		terms = append(terms, term)
		args = append(args, a...)
	}
	if len(f.States) > 0 {
		in := make([]any, len(f.States))
		for i, st := range f.States {
			in[i] = int64(st)
		}
		add(`state IN (?`+strings.Repeat(`, ?`, len(in)-1)+`)`, in...)
	}
	if f.Type != "" {
		add(`type = ?`, f.Type)
	}
	if !f.CreatedAfter.IsZero() {
		add(`created_at > ?`, record.Micros(f.CreatedAfter))
	}
	if !f.CreatedBefore.IsZero() {
		add(`created_at < ?`, record.Micros(f.CreatedBefore))
	}
	if f.Text != "" {
		escape := strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`)
		add(`search LIKE ? ESCAPE '\'`, `%`+escape.Replace(strings.ToLower(f.Text))+`%`)
	}
	if !f.After.At.IsZero() {
		add(`(created_at, `+id+`) < (?, ?)`, record.Micros(f.After.At), f.After.ID)
	}
	args = append(args, f.Limit)
	if len(terms) == 0 {
		return "", args
	}
	return ` WHERE ` + strings.Join(terms, ` AND `), args
}

// FinishedBefore implements consumer.Store.
func (s *Store) FinishedBefore(ctx context.Context, t time.Time, limit int) ([]string, error) {
	var out []string
	err := s.each(ctx, `SELECT id FROM tasks WHERE finished_at > 0 AND finished_at < ? LIMIT ?`, []any{record.Micros(t), limit}, func(r *sql.Rows) error {
		var id string
		err := r.Scan(&id)
		out = append(out, id)
		return err
	})
	return out, err
}

// Releases implements consumer.Store.
func (s *Store) Releases(ctx context.Context, limit int) ([]app.ReleaseRow, error) {
	var out []app.ReleaseRow
	err := s.each(ctx, `SELECT task_id, attempt, persona, peer, addresses FROM releases LIMIT ?`, []any{limit}, func(r *sql.Rows) error {
		var row app.ReleaseRow
		var addresses string
		err := r.Scan(&row.TaskID, &row.Attempt, &row.Persona, &row.Peer, &addresses)
		row.Addresses = unlines(addresses)
		out = append(out, row)
		return err
	})
	return out, err
}

// Outbox implements app.OutboxReader.
func (s *Store) Outbox(ctx context.Context, after uint64, limit int) ([]app.OutboxRow, error) {
	var out []app.OutboxRow
	err := s.each(ctx, `SELECT id, task_id, attempt, persona, peer, addresses, event_id, type, payload, sign, timeout, attach, sealed FROM outbox WHERE id > ? ORDER BY id LIMIT ?`,
		[]any{int64(after), limit}, func(r *sql.Rows) error {
			var row app.OutboxRow
			var addresses string
			err := r.Scan(&row.ID, &row.TaskID, &row.Attempt, &row.Persona, &row.Peer, &addresses, &row.EventID, &row.Type, &row.Payload, &row.Sign, &row.Timeout, &row.Attach, &row.Sealed)
			row.Addresses = unlines(addresses)
			out = append(out, row)
			return err
		})
	return out, err
}

// Entry implements provider.Store.
func (s *Store) Entry(ctx context.Context, k domain.EntryKey) (*domain.Entry, error) {
	var b []byte
	if err := s.entry.QueryRowContext(ctx, k.TaskID, k.Attempt, k.Consumer).Scan(&b); err != nil {
		return nil, missing(err)
	}
	return record.ReadEntry(b)
}

// Entries implements provider.Store.
func (s *Store) Entries(ctx context.Context, taskID string) ([]*domain.Entry, error) {
	return s.entries(ctx, `SELECT record FROM entries WHERE task_id = ? ORDER BY created_at DESC LIMIT 64`, taskID)
}

// OpenEntries implements provider.Store.
func (s *Store) OpenEntries(ctx context.Context) ([]*domain.Entry, error) {
	return s.entries(ctx, `SELECT record FROM entries WHERE ended_at = 0 ORDER BY created_at`)
}

// KeptEntries implements provider.Store.
func (s *Store) KeptEntries(ctx context.Context, after domain.EntryKey, limit int) ([]*domain.Entry, error) {
	return s.entries(ctx, `SELECT record FROM entries WHERE result IS NOT NULL AND (task_id, attempt, consumer) > (?, ?, ?) ORDER BY task_id, attempt, consumer LIMIT ?`,
		after.TaskID, after.Attempt, after.Consumer, limit)
}

const selectReplicated = `SELECT record FROM entries WHERE replica > 0 AND (task_id, attempt, consumer) > (?, ?, ?) ORDER BY task_id, attempt, consumer LIMIT ?`

// Replicated implements provider.Store.
func (s *Store) Replicated(ctx context.Context, after domain.EntryKey, limit int) ([]*domain.Entry, error) {
	return s.entries(ctx, selectReplicated, after.TaskID, after.Attempt, after.Consumer, limit)
}

// Overdue implements provider.Store.
func (s *Store) Overdue(ctx context.Context, now time.Time, limit int) ([]*domain.Entry, error) {
	return s.entries(ctx, `SELECT record FROM entries WHERE forget_at > 0 AND forget_at <= ? ORDER BY forget_at LIMIT ?`, record.Micros(now), limit)
}

// Material implements provider.Store.
func (s *Store) Material(ctx context.Context, k domain.EntryKey) (app.Material, error) {
	var m app.Material
	err := s.db.Read().QueryRowContext(ctx, `SELECT sealed_key, ciphertext FROM entries WHERE task_id = ? AND attempt = ? AND consumer = ?`, k.TaskID, k.Attempt, k.Consumer).
		Scan(&m.SealedKey, &m.Ciphertext)
	return m, missing(err)
}

// Result implements provider.Store.
func (s *Store) Result(ctx context.Context, k domain.EntryKey) ([]byte, error) {
	return s.blob(ctx, `SELECT result FROM entries WHERE task_id = ? AND attempt = ? AND consumer = ?`, k.TaskID, k.Attempt, k.Consumer)
}

// Setting returns a value that is made once and then stays: make is called when there is none, and loses when another
// process was faster.
func (s *Store) Setting(ctx context.Context, name string, make func() ([]byte, error)) ([]byte, error) {
	const read = `SELECT value FROM settings WHERE name = ?`
	if b, err := s.blob(ctx, read, name); err == nil || !errors.Is(err, app.ErrNotFound) {
		return b, err
	}
	value, err := make()
	if err != nil {
		return nil, err
	}
	err = s.db.Commit(ctx, func(tx *sqlstore.Tx) error {
		_, err := tx.Exec(`INSERT INTO settings (name, value) VALUES (?, ?) ON CONFLICT DO NOTHING`, name, value)
		return err
	})
	if err != nil {
		return nil, err
	}
	return s.blob(ctx, read, name)
}

const pruneInbox = `DELETE FROM inbox WHERE (days, id) IN (SELECT days, id FROM inbox WHERE days < ? LIMIT ?)`

// pruneBatch bounds how long the writer is kept from others.
const pruneBatch = 1000

// Prune forgets events that were applied before t, up to three days after that: by then nobody repeats them.
func (s *Store) Prune(ctx context.Context, t time.Time) error {
	for {
		n := int64(0)
		err := s.db.Commit(ctx, func(tx *sqlstore.Tx) error {
			r, err := tx.Exec(pruneInbox, t.Unix()/inboxDays, pruneBatch)
			if err != nil {
				return err
			}
			n, err = r.RowsAffected()
			return err
		})
		if err != nil || n < pruneBatch {
			return err
		}
	}
}
