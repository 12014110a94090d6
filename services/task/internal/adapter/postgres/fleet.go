package postgres

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/shallot-net/shallot/kit/pgstore"
	"github.com/shallot-net/shallot/services/task/internal/adapter/record"
	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/app/provider"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// Fleet is the replicas that share the store, as one of them sees it.
type Fleet struct {
	s    *Store
	name string
}

var _ provider.Fleet = (*Fleet)(nil)

// Fleet gives the view of the replica of this name.
func (s *Store) Fleet(name string) *Fleet { return &Fleet{s: s, name: name} }

// Name implements provider.Fleet.
func (f *Fleet) Name() string { return f.name }

// now is the server's clock, the only one that all replicas have.
const now = `(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::bigint`

// begun is what it showed when the transaction began.
const begun = `(EXTRACT(EPOCH FROM now()) * 1000000)::bigint`

// Beat implements provider.Fleet.
func (f *Fleet) Beat(ctx context.Context, slots int, keep func() []domain.EntryKey, lease time.Duration) (p provider.Pulse, err error) {
	err = f.s.db.Tx(ctx, func(ctx context.Context, tx pgx.Tx) error {
		// Asked when the transaction has begun: what is claimed or journaled from now on is held for longer than a lease from its beginning, and not given back below.
		kept := append(columns(keep()), lease.Microseconds())
		var b pgx.Batch
		b.Queue(`DELETE FROM replicas WHERE until < `+now+` - $1`, (time.Hour).Microseconds())
		b.Queue(`INSERT INTO replicas (name, slots, until) VALUES ($1, $2, `+now+` + $3) ON CONFLICT (name) DO UPDATE SET slots = $2, until = `+now+` + $3`, f.name, slots, lease.Microseconds())
		b.Queue(`UPDATE entries SET held_until = `+now+` + $5 WHERE holder = $1 AND ended_at = 0 AND (task_id, attempt, consumer) IN (SELECT * FROM unnest($2::text[], $3::bigint[], $4::text[]))`,
			append([]any{f.name}, kept...)...)
		b.Queue(`UPDATE entries SET holder = '', held_until = 0 WHERE holder = $1 AND ended_at = 0 AND held_until <= `+begun+` + $5
			AND (task_id, attempt, consumer) NOT IN (SELECT * FROM unnest($2::text[], $3::bigint[], $4::text[]))`,
			append([]any{f.name}, kept...)...)
		b.Queue(`INSERT INTO leases (name, holder, until) VALUES ('lead', $1, `+now+` + $2)
			ON CONFLICT (name) DO UPDATE SET holder = $1, until = `+now+` + $2 WHERE leases.holder = $1 OR leases.until < `+now, f.name, lease.Microseconds())
		b.Queue(`SELECT COALESCE(SUM(slots), 0)::bigint, COUNT(*), (SELECT holder = $1 FROM leases WHERE name = 'lead') FROM replicas WHERE until >= `+now, f.name)
		b.Queue(`SELECT task_id, attempt, consumer FROM entries WHERE holder = $1 AND ended_at = 0 AND cancelled ORDER BY created_at LIMIT 256`, f.name)
		r := tx.SendBatch(ctx, &b)
		for range b.Len() - 2 {
			if _, err := r.Exec(); err != nil {
				_ = r.Close() // says the same
				return err
			}
		}
		if err := r.QueryRow().Scan(&p.Slots, &p.Replicas, &p.Leads); err != nil {
			_ = r.Close() // says the same
			return err
		}
		rows, _ := r.Query() // an error is in rows
		if p.Cancelled, err = pgx.CollectRows(rows, scanKey); err != nil {
			_ = r.Close() // says the same
			return err
		}
		return r.Close()
	})
	return p, err
}

func scanKey(r pgx.CollectableRow) (k domain.EntryKey, err error) {
	err = r.Scan(&k.TaskID, &k.Attempt, &k.Consumer)
	return k, err
}

// free is what nobody works on: of the consumer that has the fewest at work, what has waited longest. Rows that another replica is taking are passed over. What this one has itself is
// not free when its lease is over: the next beat renews it, or gives it back.
const free = `WITH busy AS (
		SELECT consumer, COUNT(*) AS n FROM entries WHERE ended_at = 0 AND holder <> '' AND held_until >= ` + now + ` GROUP BY consumer
	)
	SELECT e.record, e.cancelled, e.sealed_key, e.ciphertext FROM entries e LEFT JOIN busy b ON b.consumer = e.consumer
	WHERE e.ended_at = 0 AND e.replica <> 1 AND (e.holder = '' OR e.held_until < ` + now + ` AND e.holder <> $1)
	ORDER BY COALESCE(b.n, 0), e.created_at LIMIT $2 FOR UPDATE OF e SKIP LOCKED`

const hold = `UPDATE entries SET holder = $1, held_until = ` + now + ` + $2
	WHERE (task_id, attempt, consumer) IN (SELECT * FROM unnest($3::text[], $4::bigint[], $5::text[]))`

// Claim implements provider.Fleet.
func (f *Fleet) Claim(ctx context.Context, limit int, lease time.Duration, begin func(*domain.Entry) *app.EntryWrite) (out []provider.Claimed, err error) {
	scan := func(rows pgx.Rows) (err error) {
		out, err = pgx.CollectRows(rows, scanClaimed)
		return err
	}
	err = f.s.db.Exchange(ctx, free, []any{f.name, limit}, scan, func() *pgstore.Batch {
		var b pgstore.Batch
		keys := make([]domain.EntryKey, len(out))
		for i := range out {
			keys[i] = out[i].Entry.Key()
		}
		if len(keys) > 0 {
			b.Exec(hold, append([]any{f.name, lease.Microseconds()}, columns(keys)...)...)
		}
		for i := range out {
			if out[i].Cancelled {
				continue
			}
			if w := begin(out[i].Entry); w != nil {
				out[i].Entry, out[i].Begun = w.Entry, true
				writeEntry(&b, w)
			}
		}
		return &b
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func scanClaimed(r pgx.CollectableRow) (c provider.Claimed, err error) {
	var b []byte
	if err = r.Scan(&b, &c.Cancelled, &c.Material.SealedKey, &c.Material.Ciphertext); err != nil {
		return c, err
	}
	c.Entry, err = record.ReadEntry(b)
	return c, err
}

// columns are keys for unnest.
func columns(keys []domain.EntryKey) []any {
	ids, attempts, consumers := make([]string, len(keys)), make([]int64, len(keys)), make([]string, len(keys))
	for i, k := range keys {
		ids[i], attempts[i], consumers[i] = txt(k.TaskID), int64(k.Attempt), txt(k.Consumer)
	}
	return []any{ids, attempts, consumers}
}

// Cancel implements provider.Fleet.
func (f *Fleet) Cancel(ctx context.Context, k domain.EntryKey, lease time.Duration) (mine *domain.Entry, err error) {
	err = f.s.db.Tx(ctx, func(ctx context.Context, tx pgx.Tx) error {
		var b []byte
		var holder string
		err := tx.QueryRow(ctx, `UPDATE entries SET cancelled = true,
				holder = CASE WHEN holder = '' OR held_until < `+now+` THEN $4 ELSE holder END,
				held_until = CASE WHEN holder = '' OR held_until < `+now+` THEN `+now+` + $5 ELSE held_until END`+ofKey+` AND ended_at = 0 RETURNING record, holder`,
			append(keyArgs(k), f.name, lease.Microseconds())...).Scan(&b, &holder)
		if pgstore.NoRows(err) { // it has ended
			return nil
		}
		if err != nil {
			return err
		}
		if holder == f.name {
			mine, err = record.ReadEntry(b)
			return err
		}
		_, err = tx.Exec(ctx, `SELECT pg_notify($1, $2)`, channel, note(noteCancel, f.name, k))
		return err
	})
	if err != nil {
		return nil, err
	}
	return mine, nil
}

// Events implements provider.Fleet.
func (f *Fleet) Events(ctx context.Context, k domain.EntryKey) ([]app.OutboxRow, error) {
	return each(ctx, f.s, selectOutbox+` WHERE task_id = $1 AND attempt = $2 AND peer = $3 ORDER BY id LIMIT 64`, keyArgs(k), scanOutbox)
}

// Leave implements provider.Fleet.
func (f *Fleet) Leave(ctx context.Context) error {
	var b pgstore.Batch
	b.Exec(`UPDATE entries SET holder = '', held_until = 0 WHERE holder = $1 AND ended_at = 0`, f.name)
	b.Exec(`DELETE FROM replicas WHERE name = $1`, f.name)
	b.Exec(`DELETE FROM leases WHERE holder = $1`, f.name)
	b.Exec(`SELECT pg_notify($1, $2)`, channel, note(noteLeft, f.name, domain.EntryKey{}))
	return f.s.db.CommitWithin(ctx, &b)
}

// channel is where replicas tell each other of entries.
const channel = "shallot_task"

const (
	noteWaiting = "waiting" // an entry waits for somebody to claim it
	noteRuns    = "runs"
	noteChanged = "changed"
	noteCancel  = "cancel"
	noteLeft    = "left" // a replica has left, and what it had is free
)

// note is short: the server takes 8,000 bytes.
func note(kind, from string, k domain.EntryKey) string {
	return strings.Join([]string{kind, from, txt(k.TaskID), strconv.FormatUint(uint64(k.Attempt), 10), txt(k.Consumer)}, " ")
}

// Listen implements provider.Fleet.
func (f *Fleet) Listen(ctx context.Context, heard func(provider.Note)) error {
	return f.s.db.Listen(ctx, channel, func(text string) {
		if text == "" {
			heard(provider.Note{Missed: true})
			return
		}
		parts := strings.SplitN(text, " ", 5)
		if len(parts) != 5 || parts[1] == f.name {
			return
		}
		attempt, err := strconv.ParseUint(parts[3], 10, 32)
		if err != nil {
			return
		}
		n := provider.Note{Key: domain.EntryKey{TaskID: parts[2], Attempt: uint32(attempt), Consumer: parts[4]}}
		switch parts[0] {
		case noteWaiting:
			n.Waiting = true
		case noteLeft:
			n.Left = true
		case noteRuns:
			n.Runs = true
		case noteChanged:
			n.Changed = true
		case noteCancel:
			n.Cancel = true
		}
		heard(n)
	})
}

// tell says what the other replicas have to hear of an entry's write.
func tell(b *pgstore.Batch, w *app.EntryWrite) {
	switch {
	case w.Told == "":
	case w.Insert:
		if w.Holder == "" && !w.Entry.State.Terminal() {
			b.Exec(`SELECT pg_notify($1, $2)`, channel, note(noteWaiting, w.Told, w.Entry.Key()))
		}
	case w.Entry.State == domain.Running:
		b.Exec(`SELECT pg_notify($1, $2)`, channel, note(noteRuns, w.Told, w.Entry.Key()))
	default:
		b.Exec(`SELECT pg_notify($1, $2)`, channel, note(noteChanged, w.Told, w.Entry.Key()))
	}
}
