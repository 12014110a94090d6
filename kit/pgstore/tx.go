package pgstore

import (
	"context"

	"github.com/jackc/pgx/v5"
)

// Tx runs do in a transaction of its own, beside the writer's groups: for what has to read what it writes. do must not keep tx, may have no other effect, and is run once. Where the answer to
// the commit gets lost it is an error, and may have been written. It blocks for ten seconds at most.
func (db *DB) Tx(ctx context.Context, do func(ctx context.Context, tx pgx.Tx) error) error {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	tx, err := db.begin(ctx)
	if err != nil {
		return db.fault(err, "write to")
	}
	defer func() { _ = tx.Rollback(ctx) }() // after Commit it does nothing
	if err := do(ctx, tx); err != nil {
		return db.fault(err, "write to")
	}
	return db.fault(tx.Commit(ctx), "write to")
}

func (db *DB) begin(ctx context.Context) (pgx.Tx, error) {
	options := pgx.TxOptions{AccessMode: pgx.ReadWrite} // the pool's connections say otherwise by themselves
	tx, err := db.readers.BeginTx(ctx, options)
	if severed(err) && ctx.Err() == nil {
		db.readers.Reset()
		tx, err = db.readers.BeginTx(ctx, options)
	}
	return tx, err
}
