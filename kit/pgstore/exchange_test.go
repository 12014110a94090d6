package pgstore_test

import (
	"errors"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/shallot-net/shallot/kit/pgstore"
	"github.com/shallot-net/shallot/kit/pgtest"
)

// What is written goes by what was read, in one transaction; where a statement fails, nothing of it counts, and the connection is fit for the next one.
func TestExchange(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t)
	database := s.Database(t)
	db := open(t, config(s, database))
	if err := db.Commit(t.Context(), insert(1, "one")); err != nil {
		t.Fatal(err)
	}
	exchange := func(then func(v string) *pgstore.Batch) error {
		var v string
		return db.Exchange(t.Context(), `SELECT v FROM a WHERE id = $1 FOR UPDATE`, []any{1}, func(rows pgx.Rows) (err error) {
			v, err = pgx.CollectOneRow(rows, pgx.RowTo[string])
			return err
		}, func() *pgstore.Batch { return then(v) })
	}
	if err := exchange(func(v string) *pgstore.Batch { return insert(2, v+" more") }); err != nil {
		t.Fatal(err)
	}
	var got string
	if err := db.Row(t.Context(), `SELECT v FROM a WHERE id = 2`, nil, &got); err != nil || got != "one more" {
		t.Fatalf("%q, %v", got, err)
	}
	if err := exchange(func(string) *pgstore.Batch { return nil }); err != nil {
		t.Fatal(err)
	}
	taken := errors.New("taken")
	for what, b := range map[string]*pgstore.Batch{"a statement that cannot be": func() *pgstore.Batch {
		b := insert(3, "three")
		b.Exec(`INSERT INTO nowhere VALUES (1)`)
		return b
	}(), "a Must that does not hold": func() *pgstore.Batch {
		var b pgstore.Batch
		b.Must(taken, `UPDATE a SET v = 'x' WHERE id = 99`)
		return &b
	}()} {
		if err := exchange(func(string) *pgstore.Batch { return b }); err == nil {
			t.Errorf("%s is no error", what)
		}
	}
	if err := db.Exchange(t.Context(), `SELECT nothing`, nil, func(rows pgx.Rows) error { rows.Close(); return rows.Err() }, func() *pgstore.Batch {
		t.Error("asked what follows a query that failed")
		return nil
	}); err == nil {
		t.Error("a query that cannot be is no error")
	}
	s.Stop(t)
	s.Restart(t) // the pool's connections are of the server's earlier life
	if err := exchange(func(v string) *pgstore.Batch { return insert(4, v) }); err != nil {
		t.Fatal(err)
	}
	if n := count(t, db); n != 3 {
		t.Errorf("%d rows", n)
	}
}
