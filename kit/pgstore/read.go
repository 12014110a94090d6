package pgstore

import (
	"context"

	"github.com/jackc/pgx/v5"
)

// Row reads one row. NoRows tells that there is none. It sees what was committed, by whatever process, and blocks for ten seconds at most.
func (db *DB) Row(ctx context.Context, sql string, args []any, to ...any) error {
	return db.read(ctx, func(ctx context.Context) error { return db.readers.QueryRow(ctx, sql, args...).Scan(to...) })
}

// Each gives every row to scan, which must not keep it. It blocks for ten seconds at most. When a connection breaks off, begin is called and the rows come anew.
func (db *DB) Each(ctx context.Context, sql string, args []any, begin func(), scan func(pgx.Rows) error) error {
	return db.read(ctx, func(ctx context.Context) error {
		begin()
		rows, err := db.readers.Query(ctx, sql, args...)
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
	})
}

// read tries once more when a connection of the pool turns out to be of a server's earlier life.
func (db *DB) read(ctx context.Context, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	err := do(ctx)
	if err == nil || NoRows(err) {
		return err
	}
	if severed(err) && ctx.Err() == nil {
		db.readers.Reset()
		err = do(ctx)
	}
	if NoRows(err) {
		return err
	}
	return db.fault(err, "read from")
}
