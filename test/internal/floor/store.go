package floor

import (
	"context"
	"database/sql"
	"runtime"

	_ "modernc.org/sqlite" // the driver
)

// store is SQLite with one writer, which commits together what has gathered while the last commit ran.
type store struct {
	conn        *sql.Conn
	begin, end  *sql.Stmt
	submissions chan submission
}

type submission struct {
	stmt *sql.Stmt
	args []any
	done chan struct{}
}

func openStore(path string) *store {
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)")
	must(err)
	conn, err := db.Conn(context.Background())
	must(err)
	_, err = conn.ExecContext(context.Background(), "CREATE TABLE task(id BLOB PRIMARY KEY, secret TEXT, payload BLOB, result BLOB)")
	must(err)
	s := &store{conn: conn, submissions: make(chan submission, 1024)}
	s.begin, s.end = s.prepare("BEGIN IMMEDIATE"), s.prepare("COMMIT")
	go s.write()
	return s
}

func (s *store) prepare(q string) *sql.Stmt {
	st, err := s.conn.PrepareContext(context.Background(), q)
	must(err)
	return st
}

// commit returns when the row is on disk.
func (s *store) commit(stmt *sql.Stmt, args ...any) {
	done := make(chan struct{})
	s.submissions <- submission{stmt, args, done}
	<-done
}

func (s *store) write() {
	exec := func(st *sql.Stmt, args ...any) {
		_, err := st.Exec(args...)
		must(err)
	}
	for first := range s.submissions {
		runtime.Gosched()
		group := []submission{first}
		for len(group) < 256 && len(s.submissions) > 0 {
			group = append(group, <-s.submissions)
		}
		exec(s.begin)
		for _, w := range group {
			exec(w.stmt, w.args...)
		}
		exec(s.end)
		for _, w := range group {
			close(w.done)
		}
	}
}
