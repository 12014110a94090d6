package sqlstore_test

import (
	"crypto/rand"
	"database/sql"
	"path/filepath"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/shallot-net/shallot/kit/sqlstore"
)

const (
	benchTable  = "CREATE TABLE rows(id BLOB PRIMARY KEY, key TEXT, body BLOB, state TEXT);"
	benchInsert = "INSERT INTO rows(id, key, body, state) VALUES(?, ?, ?, 'SUBMITTED')"
)

func benchRow() []any {
	id := make([]byte, 16)
	_, _ = rand.Read(id)
	return []any{id, string(make([]byte, 80)), make([]byte, 1024)}
}

// The floors are the same rows through database/sql alone: one statement that commits by itself, and one
// transaction of 64.
func BenchmarkCommit(b *testing.B) {
	b.Run("one", func(b *testing.B) {
		db := benchStore(b)
		for b.Loop() {
			commitRow(b, db)
		}
	})
	b.Run("one-floor", func(b *testing.B) {
		insert, _, _ := bare(b)
		for b.Loop() {
			exec(b, insert, benchRow()...)
		}
	})
	b.Run("row-of-64", func(b *testing.B) {
		db := benchStore(b)
		var wg sync.WaitGroup
		work := make(chan struct{})
		for range 64 {
			wg.Go(func() {
				for range work {
					commitRow(b, db)
				}
			})
		}
		for b.Loop() {
			work <- struct{}{}
		}
		close(work)
		wg.Wait()
	})
	b.Run("row-of-64-floor", func(b *testing.B) {
		insert, begin, commit := bare(b)
		n := 0
		for b.Loop() {
			if n%64 == 0 {
				exec(b, begin)
			}
			exec(b, insert, benchRow()...)
			if n++; n%64 == 0 {
				exec(b, commit)
			}
		}
	})
}

func benchStore(b *testing.B) *sqlstore.DB {
	return open(b, filepath.Join(b.TempDir(), "db"), fstest.MapFS{"1_rows.sql": migration(benchTable)})
}

func commitRow(b *testing.B, db *sqlstore.DB) {
	row := benchRow()
	if err := db.Commit(b.Context(), func(tx *sqlstore.Tx) error {
		_, err := tx.Exec(benchInsert, row...)
		return err
	}); err != nil {
		b.Error(err)
	}
}

func exec(b *testing.B, s *sql.Stmt, args ...any) {
	if _, err := s.Exec(args...); err != nil {
		b.Fatal(err)
	}
}

func bare(b *testing.B) (insert, begin, commit *sql.Stmt) {
	db, err := sql.Open("sqlite", "file:"+filepath.Join(b.TempDir(), "db")+"?_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = db.Close() })
	conn, err := db.Conn(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	if _, err := conn.ExecContext(b.Context(), benchTable); err != nil {
		b.Fatal(err)
	}
	prepare := func(q string) *sql.Stmt {
		s, err := conn.PrepareContext(b.Context(), q)
		if err != nil {
			b.Fatal(err)
		}
		return s
	}
	return prepare(benchInsert), prepare("BEGIN IMMEDIATE"), prepare("COMMIT")
}
