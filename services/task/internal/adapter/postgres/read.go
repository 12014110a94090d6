package postgres

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/shallot-net/shallot/kit/pgstore"
	"github.com/shallot-net/shallot/services/task/internal/adapter/record"
	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

func missing(err error) error {
	if pgstore.NoRows(err) {
		return app.ErrNotFound
	}
	return err
}

func missed(err error) bool { return errors.Is(err, app.ErrNotFound) }

func (s *Store) blob(ctx context.Context, query string, args ...any) ([]byte, error) {
	var b []byte
	err := s.db.Row(ctx, query, args, &b)
	return b, missing(err)
}

// each gives what scan makes of each row.
func each[T any](ctx context.Context, s *Store, query string, args []any, scan func(pgx.Rows) (T, error)) ([]T, error) {
	var out []T
	err := s.db.Each(ctx, query, args, func() { out = nil }, func(r pgx.Rows) error {
		v, err := scan(r)
		out = append(out, v)
		return err
	})
	return out, err
}

func (s *Store) ids(ctx context.Context, query string, args ...any) ([]string, error) {
	return each(ctx, s, query, args, func(r pgx.Rows) (id string, err error) { return id, r.Scan(&id) })
}

func (s *Store) task(ctx context.Context, query string, args ...any) (*domain.Task, error) {
	b, err := s.blob(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	return record.ReadTask(b)
}

func (s *Store) tasks(ctx context.Context, query string, args ...any) ([]*domain.Task, error) {
	return each(ctx, s, query, args, func(r pgx.Rows) (*domain.Task, error) {
		var b pgtype.DriverBytes
		if err := r.Scan(&b); err != nil {
			return nil, err
		}
		return record.ReadTask(b)
	})
}

func (s *Store) entries(ctx context.Context, query string, args ...any) ([]*domain.Entry, error) {
	return each(ctx, s, query, args, func(r pgx.Rows) (*domain.Entry, error) {
		var b pgtype.DriverBytes
		if err := r.Scan(&b); err != nil {
			return nil, err
		}
		return record.ReadEntry(b)
	})
}

// Task implements consumer.Store.
func (s *Store) Task(ctx context.Context, id string) (*domain.Task, error) {
	return s.task(ctx, `SELECT record FROM tasks WHERE id = $1`, txt(id))
}

// TaskByRequest implements consumer.Store.
func (s *Store) TaskByRequest(ctx context.Context, requestID string) (*domain.Task, error) {
	return s.task(ctx, `SELECT record FROM tasks WHERE request_id = $1`, []byte(requestID))
}

// Secret implements consumer.Store.
func (s *Store) Secret(ctx context.Context, id string) ([]byte, error) {
	return s.blob(ctx, `SELECT secret FROM tasks WHERE id = $1`, txt(id))
}

// Payload implements consumer.Store.
func (s *Store) Payload(ctx context.Context, id string) ([]byte, error) {
	return s.blob(ctx, `SELECT payload FROM tasks WHERE id = $1`, txt(id))
}

// Body implements consumer.Store.
func (s *Store) Body(ctx context.Context, id string) ([]byte, error) {
	return s.blob(ctx, `SELECT body FROM tasks WHERE id = $1`, txt(id))
}

// Share implements consumer.Store.
func (s *Store) Share(ctx context.Context, persona, peer string, sum domain.Hash) (app.ShareRow, error) {
	r := app.ShareRow{Persona: persona, Peer: peer, SHA256: sum}
	var until int64
	err := s.db.Row(ctx, `SELECT cid, key, size, until FROM shares WHERE persona = $1 AND peer = $2 AND sha256 = $3`, []any{txt(persona), txt(peer), sum[:]}, &r.Ref.CID, &r.Ref.Key, &r.Ref.Size, &until)
	r.Until = time.UnixMicro(until)
	return r, missing(err)
}

// OpenTasks implements consumer.Store.
func (s *Store) OpenTasks(ctx context.Context, after string, limit int) ([]*domain.Task, error) {
	return s.tasks(ctx, `SELECT record FROM tasks WHERE finished_at = 0 AND id > $1 ORDER BY id LIMIT $2`, txt(after), limit)
}

// ListTasks implements consumer.Store.
func (s *Store) ListTasks(ctx context.Context, f app.TaskFilter) ([]*domain.Task, error) {
	c := filter(f, "id")
	return s.tasks(ctx, `SELECT record FROM tasks`+c.where()+` ORDER BY created_at DESC, id DESC`+c.limit(f.Limit), c.args...)
}

// ListEntries implements provider.Store.
func (s *Store) ListEntries(ctx context.Context, f app.TaskFilter) ([]*domain.Entry, error) {
	c := filter(f, "task_id")
	return s.entries(ctx, `SELECT record FROM entries`+c.where()+` ORDER BY created_at DESC, task_id DESC`+c.limit(f.Limit), c.args...)
}

// conditions are the terms of a query that is built, with a question mark for each argument.
type conditions struct {
	terms []string
	args  []any
}

func (c *conditions) add(term string, args ...any) {
	for range args {
		c.args = append(c.args, args[0])
		args = args[1:]
		term = strings.Replace(term, "?", "$"+strconv.Itoa(len(c.args)), 1)
	}
	c.terms = append(c.terms, term)
}

func (c *conditions) where() string {
	if len(c.terms) == 0 {
		return ""
	}
	return ` WHERE ` + strings.Join(c.terms, ` AND `)
}

// limit comes last.
func (c *conditions) limit(n int) string {
	c.args = append(c.args, n)
	return ` LIMIT $` + strconv.Itoa(len(c.args))
}

// filter is a list's filter as SQL.
func filter(f app.TaskFilter, id string) *conditions {
	var c conditions
	if len(f.States) > 0 {
		c.add(`state = ANY(?)`, numbers(f.States))
	}
	if f.Type != "" {
		c.add(`type = ?`, txt(f.Type))
	}
	if !f.CreatedAfter.IsZero() {
		c.add(`created_at > ?`, record.Micros(f.CreatedAfter))
	}
	if !f.CreatedBefore.IsZero() {
		c.add(`created_at < ?`, record.Micros(f.CreatedBefore))
	}
	if f.Text != "" {
		escape := strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`)
		c.add(`search LIKE ?`, `%`+escape.Replace(txt(strings.ToLower(f.Text)))+`%`)
	}
	if !f.After.At.IsZero() {
		c.add(`(created_at, `+id+`) < (?, ?)`, record.Micros(f.After.At), txt(f.After.ID))
	}
	return &c
}

// numbers are states as the store has them.
func numbers[T ~uint8](values []T) []int64 {
	out := make([]int64, len(values))
	for i, v := range values {
		out[i] = int64(v)
	}
	return out
}

// FinishedBefore implements consumer.Store.
func (s *Store) FinishedBefore(ctx context.Context, t time.Time, limit int) ([]string, error) {
	return s.ids(ctx, `SELECT id FROM tasks WHERE finished_at > 0 AND finished_at < $1 LIMIT $2`, record.Micros(t), limit)
}

// Releases implements consumer.Store.
func (s *Store) Releases(ctx context.Context, limit int) ([]app.ReleaseRow, error) {
	return each(ctx, s, `SELECT task_id, attempt, persona, peer, addresses FROM releases LIMIT $1`, []any{limit}, func(r pgx.Rows) (app.ReleaseRow, error) {
		var row app.ReleaseRow
		var addresses []byte
		err := r.Scan(&row.TaskID, &row.Attempt, &row.Persona, &row.Peer, &addresses)
		row.Addresses = unlines(addresses)
		return row, err
	})
}

const selectOutbox = `SELECT id, task_id, attempt, persona, peer, addresses, event_id, type, payload, sign, timeout, attach, sealed FROM outbox`

// Outbox implements app.OutboxReader.
func (s *Store) Outbox(ctx context.Context, after uint64, limit int) ([]app.OutboxRow, error) {
	return each(ctx, s, selectOutbox+` WHERE id > $1 ORDER BY id LIMIT $2`, []any{int64(after), limit}, scanOutbox)
}

func scanOutbox(r pgx.Rows) (app.OutboxRow, error) {
	var row app.OutboxRow
	var addresses []byte
	var kind, timeout, attach int64
	err := r.Scan(&row.ID, &row.TaskID, &row.Attempt, &row.Persona, &row.Peer, &addresses, &row.EventID, &kind, &row.Payload, &row.Sign, &timeout, &attach, &row.Sealed)
	row.Addresses, row.Type, row.Timeout, row.Attach = unlines(addresses), domain.EventType(kind), time.Duration(timeout), app.Attach(attach)
	return row, err
}

func keyArgs(k domain.EntryKey) []any { return []any{txt(k.TaskID), int64(k.Attempt), txt(k.Consumer)} }

const ofKey = ` WHERE task_id = $1 AND attempt = $2 AND consumer = $3`

// Entry implements provider.Store.
func (s *Store) Entry(ctx context.Context, k domain.EntryKey) (*domain.Entry, error) {
	b, err := s.blob(ctx, `SELECT record FROM entries`+ofKey, keyArgs(k)...)
	if err != nil {
		return nil, err
	}
	return record.ReadEntry(b)
}

// Entries implements provider.Store.
func (s *Store) Entries(ctx context.Context, taskID string) ([]*domain.Entry, error) {
	return s.entries(ctx, `SELECT record FROM entries WHERE task_id = $1 ORDER BY created_at DESC LIMIT 64`, txt(taskID))
}

// OpenEntries implements provider.Store.
func (s *Store) OpenEntries(ctx context.Context) ([]*domain.Entry, error) {
	return s.entries(ctx, `SELECT record FROM entries WHERE ended_at = 0 ORDER BY created_at`)
}

const afterKey = ` AND (task_id, attempt, consumer) > ($1, $2, $3) ORDER BY task_id, attempt, consumer LIMIT $4`

// KeptEntries implements provider.Store.
func (s *Store) KeptEntries(ctx context.Context, after domain.EntryKey, limit int) ([]*domain.Entry, error) {
	return s.entries(ctx, `SELECT record FROM entries WHERE result IS NOT NULL`+afterKey, append(keyArgs(after), limit)...)
}

// Replicated implements provider.Store.
func (s *Store) Replicated(ctx context.Context, after domain.EntryKey, limit int) ([]*domain.Entry, error) {
	return s.entries(ctx, `SELECT record FROM entries WHERE replica > 0`+afterKey, append(keyArgs(after), limit)...)
}

// Overdue implements provider.Store.
func (s *Store) Overdue(ctx context.Context, now time.Time, limit int) ([]*domain.Entry, error) {
	return s.entries(ctx, `SELECT record FROM entries WHERE forget_at > 0 AND forget_at <= $1 ORDER BY forget_at LIMIT $2`, record.Micros(now), limit)
}

// Material implements provider.Store.
func (s *Store) Material(ctx context.Context, k domain.EntryKey) (app.Material, error) {
	var m app.Material
	err := s.db.Row(ctx, `SELECT sealed_key, ciphertext FROM entries`+ofKey, keyArgs(k), &m.SealedKey, &m.Ciphertext)
	return m, missing(err)
}

// Result implements provider.Store.
func (s *Store) Result(ctx context.Context, k domain.EntryKey) ([]byte, error) {
	return s.blob(ctx, `SELECT result FROM entries`+ofKey, keyArgs(k)...)
}
