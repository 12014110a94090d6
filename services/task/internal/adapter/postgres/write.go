package postgres

import (
	"strings"
	"time"

	"github.com/shallot-net/shallot/kit/pgstore"
	"github.com/shallot-net/shallot/services/task/internal/adapter/record"
	"github.com/shallot-net/shallot/services/task/internal/app"
)

// batch is one transaction. What may find a row that is in the way comes first.
func batch(w *app.Writes) *pgstore.Batch {
	b := &pgstore.Batch{}
	writeInbox(b, w.Inbox)
	for i := range w.Tasks {
		writeTask(b, &w.Tasks[i])
	}
	for i := range w.Entries {
		writeEntry(b, &w.Entries[i])
	}
	for i := range w.Jobs {
		writeJob(b, &w.Jobs[i])
	}
	for i := range w.Shards {
		writeShard(b, &w.Shards[i])
	}
	writeEvents(b, w)
	return b
}

// inboxDays is how much of the inbox goes at once, in seconds.
const inboxDays = 3 * 24 * 3600

// insertInbox also looks at the days before, and at those after, in case the clock was set back, or another replica's is late.
const insertInbox = `INSERT INTO inbox (days, id) SELECT $1::bigint, $2::bytea WHERE NOT EXISTS (SELECT 1 FROM inbox WHERE days IN ($1::bigint - 1, $1::bigint + 1) AND id = $2::bytea) ON CONFLICT DO NOTHING`

func writeInbox(b *pgstore.Batch, ids []app.InboxID) {
	days := time.Now().Unix() / inboxDays
	for i := range ids {
		b.Must(app.ErrRepeated, insertInbox, days, ids[i][:])
	}
}

func writeTask(b *pgstore.Batch, w *app.TaskWrite) {
	t := w.Task
	switch {
	case w.Delete:
		b.Exec(`DELETE FROM outbox WHERE task_id = $1`, txt(t.ID))
		b.Exec(`DELETE FROM tasks WHERE id = $1`, txt(t.ID))
	case w.Insert:
		b.Must(app.ErrExists, `INSERT INTO tasks (id, request_id, type, state, created_at, finished_at, search, revision, record, secret, payload, body)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) ON CONFLICT DO NOTHING`,
			txt(t.ID), []byte(t.RequestID), txt(t.Type), int64(t.State), record.Micros(t.CreatedAt), record.Micros(t.FinishedAt), txt(record.SearchTask(t)), int64(t.Revision), record.AppendTask(t),
			w.Secret, w.Payload, w.Body)
	case w.Forget:
		b.Must(app.ErrConflict, `UPDATE tasks SET state = $1, finished_at = $2, search = $3, revision = $4, record = $5, secret = NULL, payload = NULL, body = COALESCE($6, body)
			WHERE id = $7 AND revision = $4 - 1`,
			int64(t.State), record.Micros(t.FinishedAt), txt(record.SearchTask(t)), int64(t.Revision), record.AppendTask(t), w.Body, txt(t.ID))
	default:
		b.Must(app.ErrConflict, `UPDATE tasks SET state = $1, finished_at = $2, search = $3, revision = $4, record = $5 WHERE id = $6 AND revision = $4 - 1`,
			int64(t.State), record.Micros(t.FinishedAt), txt(record.SearchTask(t)), int64(t.Revision), record.AppendTask(t), txt(t.ID))
	}
}

func writeEntry(b *pgstore.Batch, w *app.EntryWrite) {
	e := w.Entry
	if w.Delete {
		b.Exec(`DELETE FROM entries WHERE task_id = $1 AND attempt = $2 AND consumer = $3`, txt(e.TaskID), int64(e.Sub.Attempt), txt(e.Consumer))
		return
	}
	forget := int64(0)
	if e.State.Terminal() {
		forget = record.Micros(e.ForgetAt)
	}
	args := []any{txt(e.TaskID), int64(e.Sub.Attempt), txt(e.Consumer), int64(e.State), record.Micros(e.EndedAt), forget, txt(record.SearchEntry(e)), int64(e.Revision), record.Replicated(e), record.AppendEntry(e)}
	if w.Insert {
		var m app.Material
		if w.Material != nil {
			m = *w.Material
		}
		b.Must(app.ErrExists, `INSERT INTO entries (task_id, attempt, consumer, state, ended_at, forget_at, search, revision, replica, record, type, created_at, sealed_key, ciphertext, result, holder, held_until)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, CASE WHEN $16 = '' THEN 0 ELSE `+now+` + $17 END) ON CONFLICT DO NOTHING`,
			append(args, txt(e.Sub.Type), record.Micros(e.CreatedAt), m.SealedKey, m.Ciphertext, w.Result, w.Holder, w.Lease.Microseconds())...)
		tell(b, w)
		return
	}
	set := `UPDATE entries SET state = $4, ended_at = $5, forget_at = $6, search = $7, revision = $8, replica = $9, record = $10`
	if w.Forget {
		set += `, sealed_key = NULL, ciphertext = NULL`
	}
	switch {
	case w.DropResult:
		set += `, result = NULL`
	case w.Result != nil:
		set += `, result = $11`
		args = append(args, w.Result)
	}
	b.Must(app.ErrConflict, set+` WHERE task_id = $1 AND attempt = $2 AND consumer = $3 AND revision = $8 - 1`, args...)
	tell(b, w)
}

func writeEvents(b *pgstore.Batch, w *app.Writes) {
	for i := range w.Outbox {
		r := &w.Outbox[i]
		b.Exec(`INSERT INTO outbox (id, task_id, attempt, persona, peer, addresses, event_id, type, payload, sign, timeout, attach, sealed)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)`, int64(r.ID), txt(r.TaskID), int64(r.Attempt), txt(r.Persona), txt(r.Peer), lines(r.Addresses), txt(r.EventID), int64(r.Type),
			some(r.Payload), r.Sign, int64(r.Timeout), int64(r.Attach), r.Sealed)
	}
	if len(w.Sent) > 0 {
		ids := make([]int64, len(w.Sent))
		for i, id := range w.Sent {
			ids[i] = int64(id)
		}
		b.Exec(`DELETE FROM outbox WHERE id = ANY($1)`, ids)
	}
	for _, r := range w.Releases {
		b.Exec(`INSERT INTO releases (task_id, attempt, persona, peer, addresses) VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING`,
			txt(r.TaskID), int64(r.Attempt), txt(r.Persona), txt(r.Peer), lines(r.Addresses))
	}
	for _, r := range w.Released {
		b.Exec(`DELETE FROM releases WHERE task_id = $1 AND attempt = $2 AND peer = $3`, txt(r.TaskID), int64(r.Attempt), txt(r.Peer))
	}
	writeShares(b, w)
}

func writeShares(b *pgstore.Batch, w *app.Writes) {
	if !w.ShareEnd.IsZero() {
		b.Exec(`DELETE FROM shares WHERE until <= $1`, record.Micros(w.ShareEnd))
	}
	for i := range w.Shares {
		r := &w.Shares[i]
		b.Exec(`INSERT INTO shares (persona, peer, sha256, cid, key, size, until) VALUES ($1, $2, $3, $4, $5, $6, $7)
			ON CONFLICT (persona, peer, sha256) DO UPDATE SET cid = $4, key = $5, size = $6, until = $7`,
			txt(r.Persona), txt(r.Peer), r.SHA256[:], txt(r.Ref.CID), some(r.Ref.Key), r.Ref.Size, record.Micros(r.Until))
	}
}

// txt is what TEXT takes of a string: no zero bytes, and valid UTF-8. What comes from others has neither to be found again by it, nor to fail a commit.
func txt(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}

// some is never NULL.
func some(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

func lines(ss []string) []byte { return []byte(strings.Join(ss, "\n")) }

func unlines(b []byte) []string {
	if len(b) == 0 {
		return nil
	}
	return strings.Split(string(b), "\n")
}
