package sqlstore

import (
	"context"
	"database/sql"
)

// maxStatements bounds the prepared statements that are kept; a program has far fewer unless it builds its queries.
const maxStatements = 256

// Tx is the writer's connection inside a transaction. It is valid only while the function that got it runs, in that
// goroutine. Rows must be closed before the next statement.
type Tx struct {
	conn  *sql.Conn
	stmts map[string]*sql.Stmt
	wrote bool
}

// Statements run without a caller's context: the driver would start a goroutine for each to watch it, and a
// statement is short.
var background = context.Background()

func (tx *Tx) stmt(query string) (*sql.Stmt, error) {
	if s, ok := tx.stmts[query]; ok {
		return s, nil
	}
	s, err := tx.conn.PrepareContext(background, query)
	if err != nil {
		return nil, err
	}
	if len(tx.stmts) >= maxStatements {
		for q, old := range tx.stmts {
			_ = old.Close()
			delete(tx.stmts, q)
			break
		}
	}
	tx.stmts[query] = s
	return s, nil
}

// Exec runs a statement, prepared once per text.
func (tx *Tx) Exec(query string, args ...any) (sql.Result, error) {
	s, err := tx.stmt(query)
	if err != nil {
		return nil, err
	}
	tx.wrote = true
	return s.ExecContext(background, args...)
}

// QueryRow is for one row. Like Query it may write ("INSERT ... RETURNING").
func (tx *Tx) QueryRow(query string, args ...any) *sql.Row {
	s, err := tx.stmt(query)
	tx.wrote = true
	if err != nil {
		return tx.conn.QueryRowContext(background, query, args...) // gives the same error when it is scanned
	}
	return s.QueryRowContext(background, args...)
}

// Query is for many rows.
func (tx *Tx) Query(query string, args ...any) (*sql.Rows, error) {
	s, err := tx.stmt(query)
	if err != nil {
		return nil, err
	}
	tx.wrote = true
	return s.QueryContext(background, args...)
}

func (tx *Tx) run(control string) error {
	s, err := tx.stmt(control)
	if err != nil {
		return err
	}
	_, err = s.ExecContext(background)
	return err
}
