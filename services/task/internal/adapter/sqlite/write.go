package sqlite

import (
	"database/sql"
	"errors"
	"strings"
	"time"

	"github.com/shallot-net/shallot/kit/sqlstore"
	"github.com/shallot-net/shallot/services/task/internal/adapter/record"
	"github.com/shallot-net/shallot/services/task/internal/app"
)

// write applies one transaction. What may find a row that is in the way comes first.
func write(tx *sqlstore.Tx, w *app.Writes, p prepared) error {
	if err := writeInbox(tx, w.Inbox); err != nil {
		return err
	}
	for i := range w.Tasks {
		if err := writeTask(tx, &w.Tasks[i], p.tasks[i]); err != nil {
			return err
		}
	}
	for i := range w.Entries {
		if err := writeEntry(tx, &w.Entries[i], p.entries[i]); err != nil {
			return err
		}
	}
	for i := range w.Jobs {
		if err := writeJob(tx, &w.Jobs[i], p.jobs[i]); err != nil {
			return err
		}
	}
	for i := range w.Shards {
		if err := writeShard(tx, &w.Shards[i]); err != nil {
			return err
		}
	}
	return writeEvents(tx, w)
}

// inboxDays is how much of the inbox goes at once, in seconds.
const inboxDays = 3 * 24 * 3600

// insertInbox also looks at the days before, and at those after, in case the clock was set back.
const insertInbox = `INSERT INTO inbox (days, id) SELECT ?1, ?2 WHERE NOT EXISTS (SELECT 1 FROM inbox WHERE days IN (?1 - 1, ?1 + 1) AND id = ?2) ON CONFLICT DO NOTHING`

func writeInbox(tx *sqlstore.Tx, ids []app.InboxID) error {
	days := time.Now().Unix() / inboxDays
	for i := range ids {
		if err := one(tx.Exec(insertInbox, days, ids[i][:])); err != nil {
			return orElse(err, app.ErrRepeated)
		}
	}
	return nil
}

// errNoRow is a statement that found nothing to do.
var errNoRow = errors.New("no row was written")

func one(r sql.Result, err error) error {
	if err != nil {
		return err
	}
	if n, err := r.RowsAffected(); err != nil {
		return err
	} else if n == 0 {
		return errNoRow
	}
	return nil
}

// orElse names what errNoRow means.
func orElse(err, meaning error) error {
	if errors.Is(err, errNoRow) {
		return meaning
	}
	return err
}

func writeTask(tx *sqlstore.Tx, w *app.TaskWrite, encoded []byte) error {
	t := w.Task
	switch {
	case w.Delete:
		if _, err := tx.Exec(`DELETE FROM outbox WHERE task_id = ?`, t.ID); err != nil {
			return err
		}
		_, err := tx.Exec(`DELETE FROM tasks WHERE id = ?`, t.ID)
		return err
	case w.Insert:
		err := one(tx.Exec(`INSERT INTO tasks (id, request_id, type, state, created_at, finished_at, search, revision, record, secret, payload, body)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`,
			t.ID, t.RequestID, t.Type, int64(t.State), record.Micros(t.CreatedAt), record.Micros(t.FinishedAt), record.SearchTask(t), int64(t.Revision), encoded, w.Secret, w.Payload, w.Body))
		return orElse(err, app.ErrExists)
	case w.Forget:
		err := one(tx.Exec(`UPDATE tasks SET state = ?, finished_at = ?, search = ?, revision = ?, record = ?, secret = NULL, payload = NULL, body = COALESCE(?, body)
			WHERE id = ? AND revision = ?`, int64(t.State), record.Micros(t.FinishedAt), record.SearchTask(t), int64(t.Revision), encoded, w.Body, t.ID, int64(t.Revision)-1))
		return orElse(err, app.ErrConflict)
	}
	err := one(tx.Exec(`UPDATE tasks SET state = ?, finished_at = ?, search = ?, revision = ?, record = ? WHERE id = ? AND revision = ?`,
		int64(t.State), record.Micros(t.FinishedAt), record.SearchTask(t), int64(t.Revision), encoded, t.ID, int64(t.Revision)-1))
	return orElse(err, app.ErrConflict)
}

func writeEntry(tx *sqlstore.Tx, w *app.EntryWrite, encoded []byte) error {
	e := w.Entry
	if w.Delete {
		_, err := tx.Exec(`DELETE FROM entries WHERE task_id = ? AND attempt = ? AND consumer = ?`, e.TaskID, int64(e.Sub.Attempt), e.Consumer)
		return err
	}
	forget := int64(0)
	if e.State.Terminal() {
		forget = record.Micros(e.ForgetAt)
	}
	if w.Insert {
		var m app.Material
		if w.Material != nil {
			m = *w.Material
		}
		err := one(tx.Exec(`INSERT INTO entries (task_id, attempt, consumer, type, state, created_at, ended_at, forget_at, search, revision, replica, record, sealed_key, ciphertext, result)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`, e.TaskID, int64(e.Sub.Attempt), e.Consumer, e.Sub.Type, int64(e.State),
			record.Micros(e.CreatedAt), record.Micros(e.EndedAt), forget, record.SearchEntry(e), int64(e.Revision), record.Replicated(e), encoded, m.SealedKey, m.Ciphertext, w.Result))
		return orElse(err, app.ErrExists)
	}
	set := `UPDATE entries SET state = ?, ended_at = ?, forget_at = ?, search = ?, revision = ?, replica = ?, record = ?`
	switch {
	case w.Forget && w.DropResult:
		set += `, sealed_key = NULL, ciphertext = NULL, result = NULL`
	case w.DropResult:
		set += `, result = NULL`
	case w.Forget && w.Result != nil:
		set += `, sealed_key = NULL, ciphertext = NULL, result = ?`
	case w.Forget:
		set += `, sealed_key = NULL, ciphertext = NULL`
	case w.Result != nil:
		set += `, result = ?`
	}
	args := []any{int64(e.State), record.Micros(e.EndedAt), forget, record.SearchEntry(e), int64(e.Revision), record.Replicated(e), encoded}
	if w.Result != nil && !w.DropResult {
		args = append(args, w.Result)
	}
	args = append(args, e.TaskID, int64(e.Sub.Attempt), e.Consumer, int64(e.Revision)-1)
	return orElse(one(tx.Exec(set+` WHERE task_id = ? AND attempt = ? AND consumer = ? AND revision = ?`, args...)), app.ErrConflict)
}

func writeEvents(tx *sqlstore.Tx, w *app.Writes) error {
	for i := range w.Outbox {
		r := &w.Outbox[i]
		_, err := tx.Exec(`INSERT INTO outbox (id, task_id, attempt, persona, peer, addresses, event_id, type, payload, sign, timeout, attach, sealed)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`, int64(r.ID), r.TaskID, int64(r.Attempt), r.Persona, r.Peer, lines(r.Addresses), r.EventID, int64(r.Type),
			r.Payload, flag(r.Sign), int64(r.Timeout), int64(r.Attach), r.Sealed)
		if err != nil {
			return err
		}
	}
	for _, id := range w.Sent {
		if _, err := tx.Exec(`DELETE FROM outbox WHERE id = ?`, int64(id)); err != nil {
			return err
		}
	}
	for _, r := range w.Releases {
		if _, err := tx.Exec(`INSERT INTO releases (task_id, attempt, persona, peer, addresses) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`,
			r.TaskID, int64(r.Attempt), r.Persona, r.Peer, lines(r.Addresses)); err != nil {
			return err
		}
	}
	for _, r := range w.Released {
		if _, err := tx.Exec(`DELETE FROM releases WHERE task_id = ? AND attempt = ? AND peer = ?`, r.TaskID, int64(r.Attempt), r.Peer); err != nil {
			return err
		}
	}
	return writeShares(tx, w)
}

func writeShares(tx *sqlstore.Tx, w *app.Writes) error {
	if !w.ShareEnd.IsZero() {
		if _, err := tx.Exec(`DELETE FROM shares WHERE until <= ?`, record.Micros(w.ShareEnd)); err != nil {
			return err
		}
	}
	for i := range w.Shares {
		r := &w.Shares[i]
		if _, err := tx.Exec(`INSERT OR REPLACE INTO shares (persona, peer, sha256, cid, key, size, until) VALUES (?, ?, ?, ?, ?, ?, ?)`,
			r.Persona, r.Peer, r.SHA256[:], r.Ref.CID, r.Ref.Key, r.Ref.Size, record.Micros(r.Until)); err != nil {
			return err
		}
	}
	return nil
}

func flag(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

func lines(ss []string) string { return strings.Join(ss, "\n") }

func unlines(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, "\n")
}
