package pgstore

import (
	"errors"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Batch is the statements of one write, in order. They are sent together, so none can depend on what another has returned; what has to hold is said by Must.
type Batch struct{ statements []statement }

type statement struct {
	sql  string
	args []any
	none error
}

// Exec adds a statement that may write any number of rows.
func (b *Batch) Exec(sql string, args ...any) { b.Must(nil, sql, args...) }

// Must adds a statement that writes a row: when it writes none, nothing of the batch is written, and none is the error. nil: it may.
func (b *Batch) Must(none error, sql string, args ...any) {
	b.statements = append(b.statements, statement{sql, args, none})
}

// Len is how many statements there are.
func (b *Batch) Len() int { return len(b.statements) }

// write is a batch on its way.
type write struct {
	batch *Batch
	state atomic.Int32
	done  chan error // nil: nobody waits
	rows  int64      // that the last statement has written
	err   error
}

const (
	writeQueued int32 = iota
	writeTaken
	writeAbandoned
)

func (w *write) late() bool { return w.done == nil }

// queue adds a write's statements to those that are sent together.
func (w *write) queue(to *pgx.Batch) {
	for i := range w.batch.statements {
		to.Queue(w.batch.statements[i].sql, w.batch.statements[i].args...)
	}
}

// read takes the answers to a write's statements. err is what the whole group fails with; what is the write's own is in w.err.
func (w *write) read(from pgx.BatchResults) (err error) {
	w.err, w.rows = nil, 0
	for i := range w.batch.statements {
		tag, err := from.Exec()
		if err != nil {
			var said *pgconn.PgError
			if errors.As(err, &said) && !ill(said) {
				w.err = err
				return nil
			}
			return err
		}
		if w.rows = tag.RowsAffected(); w.rows == 0 && w.err == nil {
			w.err = w.batch.statements[i].none
		}
	}
	return nil
}
