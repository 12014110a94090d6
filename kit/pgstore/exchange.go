package pgstore

import (
	"cmp"
	"context"
	"errors"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/shallot-net/shallot/kit/fault"
)

// Exchange runs a query, gives its rows to scan, and writes the batch that then makes of them, in a transaction of its own beside the writer's groups. It takes two round trips, where Tx takes
// four, and is for what is done often. then is called once, and may give nothing to write. A Must is looked at after the commit: the query has to lock what makes it hold. Where the answer to
// the commit gets lost it is an error, and may have been written. It blocks for ten seconds at most.
func (db *DB) Exchange(ctx context.Context, sql string, args []any, scan func(pgx.Rows) error, then func() *Batch) error {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	conn, err := db.open(ctx, sql, args, scan)
	if severed(err) && ctx.Err() == nil { // of a server's earlier life
		db.readers.Reset()
		conn, err = db.open(ctx, sql, args, scan)
	}
	if err != nil {
		return db.fault(err, "write to")
	}
	defer conn.Release() // a connection that is in a transaction still is closed with that
	b := then()
	if b == nil || b.Len() == 0 {
		_, err := conn.Exec(ctx, `ROLLBACK`)
		return db.fault(err, "write to")
	}
	w := &write{batch: b}
	var all pgx.Batch
	w.queue(&all)
	all.Queue(`COMMIT`)
	r := conn.SendBatch(ctx, &all)
	if err = cmp.Or(w.read(r), w.err); err == nil {
		tag, bad := r.Exec()
		if err = bad; bad == nil && tag.String() != "COMMIT" {
			err = fault.Unavailable(ReasonAway, "PostgreSQL at %s has undone a commit", db.where)
		}
	}
	return db.fault(errors.Join(err, r.Close()), "write to")
}

// open begins a transaction with a query.
func (db *DB) open(ctx context.Context, sql string, args []any, scan func(pgx.Rows) error) (*pgxpool.Conn, error) {
	conn, err := db.readers.Acquire(ctx)
	if err != nil {
		return nil, err
	}
	var b pgx.Batch
	b.Queue(`BEGIN READ WRITE`) // the pool's connections say otherwise by themselves
	b.Queue(sql, args...)
	r := conn.SendBatch(ctx, &b)
	if _, err = r.Exec(); err == nil {
		rows, _ := r.Query() // an error is in rows
		err = scan(rows)
		rows.Close()
		err = cmp.Or(err, rows.Err())
	}
	if err = cmp.Or(err, r.Close()); err != nil {
		conn.Release()
		return nil, err
	}
	return conn, nil
}
