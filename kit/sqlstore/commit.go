package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/logging"
)

const (
	maxBatch    = 256
	queueLength = 1024
	laterDelay  = 50 * time.Millisecond // how long a write that nobody waits for may wait for company
)

// DB is an open store. It is safe for concurrent use.
type DB struct {
	path    string
	log     *slog.Logger
	writer  *sql.DB
	readers *sql.DB

	writing sync.Mutex // held by whoever writes: the one who commits at an idle store, else the writer goroutine
	conn    *sql.Conn
	tx      *Tx
	batch   []*write

	in   chan *write
	wake chan struct{} // tells the writer goroutine that there is something to do

	late      sync.Mutex
	laters    []*write
	lateTimer *time.Timer

	senders sync.RWMutex // held for reading while queueing or writing, so that nothing comes after Close has drained
	closed  bool
	closing chan struct{}
	done    chan struct{}
}

const (
	writeQueued int32 = iota
	writeTaken
	writeAbandoned
)

type write struct {
	fn    func(*Tx) error
	state atomic.Int32
	done  chan error // nil: nobody waits, or the one who waits is the one who writes
	late  bool
	err   error
}

// Read is a small pool of connections that cannot write. They see what was committed.
func (db *DB) Read() *sql.DB { return db.readers }

// Path is the store's file.
func (db *DB) Path() string { return db.path }

// Commit runs fn in the writer's transaction and returns when what it wrote is on disk. Functions of several callers
// share one transaction and one sync, in the order in which they were queued; one that returns an error, or panics,
// leaves no trace, gets its error back, and does not disturb the others. fn may run twice: it must have no
// effect but through tx, or set it anew each time. It must not block or call Commit. When ctx ends before fn was begun,
// fn does not run; later Commit waits for the outcome all the same, which takes milliseconds.
func (db *DB) Commit(ctx context.Context, fn func(tx *Tx) error) error {
	w := &write{fn: fn}
	if wrote, err := db.commitHere(ctx, w); wrote || err != nil {
		return err
	}
	w.done = make(chan error, 1)
	if err := db.enqueue(ctx, w); err != nil {
		return err
	}
	select {
	case err := <-w.done:
		return err
	case <-ctx.Done():
		if w.state.CompareAndSwap(writeQueued, writeAbandoned) {
			return fault.From(ctx.Err())
		}
		return <-w.done
	}
}

// commitHere writes in the caller's goroutine when the store is idle: to wake another one and be woken by it costs
// as much as the statements do.
func (db *DB) commitHere(ctx context.Context, w *write) (wrote bool, err error) {
	if ctx.Err() != nil {
		return false, fault.From(ctx.Err())
	}
	db.senders.RLock()
	defer db.senders.RUnlock()
	if db.closed || len(db.in) > 0 || !db.writing.TryLock() {
		return false, nil
	}
	defer db.writing.Unlock()
	db.write(w)
	return true, w.err
}

// Later queues writes that nobody waits for and that may be lost when the process dies: they ride the next commit,
// or make one after 50 ms. Close flushes them; after Close they are dropped. It blocks only while 1,024 wait.
func (db *DB) Later(fn func(tx *Tx) error) {
	w := &write{fn: fn, late: true}
	db.senders.RLock()
	closed := db.closed
	db.senders.RUnlock()
	if closed {
		return
	}
	db.late.Lock()
	full := len(db.laters) >= queueLength
	if !full {
		if db.laters = append(db.laters, w); len(db.laters) == 1 {
			db.lateTimer.Reset(laterDelay)
		}
	}
	db.late.Unlock()
	if full {
		if err := db.enqueue(background, w); err != nil {
			db.log.Debug("write dropped", logging.Err(err))
		}
	}
}

func (db *DB) enqueue(ctx context.Context, w *write) error {
	db.senders.RLock()
	defer db.senders.RUnlock()
	if db.closed {
		return fault.Unavailable(ReasonClosed, "the store %s is closed", db.path)
	}
	select {
	case db.in <- w:
		db.wakeWriter()
		return nil
	case <-ctx.Done():
		return fault.From(ctx.Err())
	}
}

func (db *DB) wakeWriter() {
	select {
	case db.wake <- struct{}{}:
	default:
	}
}

// Close commits what is queued and closes the file. It may be called twice.
func (db *DB) Close() error {
	db.senders.Lock() // the writer goroutine still takes from the queue, so those who hold it for reading get on
	was := db.closed
	db.closed = true
	db.senders.Unlock()
	if was {
		<-db.done
		return nil
	}
	close(db.closing)
	<-db.done
	db.lateTimer.Stop()
	return db.disconnect()
}

func (db *DB) begin(ctx context.Context) error {
	conn, err := db.writer.Conn(ctx)
	if err != nil {
		return err
	}
	db.conn = conn
	db.tx = &Tx{conn: conn, stmts: make(map[string]*sql.Stmt)}
	return nil
}

// run is the writer goroutine, which writes what found the store busy.
func (db *DB) run() {
	defer close(db.done)
	for {
		select {
		case <-db.wake:
			db.writeQueue()
		case <-db.closing:
			db.writeQueue()
			return
		}
	}
}

func (db *DB) writeQueue() {
	for {
		db.writing.Lock()
		db.write(nil)
		db.writing.Unlock()
		if len(db.in) == 0 {
			return
		}
	}
}

// write commits one batch: writes that nobody waited for, then first, then what is queued.
func (db *DB) write(first *write) {
	runtime.Gosched() // those about to write join this batch instead of waiting for the next
	db.late.Lock()
	batch := append(db.batch[:0], db.laters...)
	clear(db.laters)
	db.laters = db.laters[:0]
	db.late.Unlock()
	if first != nil {
		batch = append(batch, first)
	}
	for n := 0; n < maxBatch && len(db.in) > 0; n++ { // only the holder of the lock takes from the queue
		if w := <-db.in; w.state.CompareAndSwap(writeQueued, writeTaken) {
			batch = append(batch, w)
		}
	}
	db.commit(batch)
	clear(batch)
	db.batch = batch[:0]
}

func (db *DB) commit(batch []*write) {
	if len(batch) == 0 {
		return
	}
	redo, err := db.try(batch, false)
	if redo {
		_, err = db.try(batch, true)
	}
	for _, w := range batch {
		if err != nil {
			w.err = err
		}
		if w.err != nil {
			w.err = db.fault(w.err, "write to")
		}
		switch {
		case w.done != nil:
			w.done <- w.err
		case w.err != nil && w.late:
			db.log.Error("write that nobody waits for failed", logging.Err(w.err))
		}
	}
}

// try runs a batch in one transaction. Without savepoints, which cost two statements for each function, it asks to
// be run again with them once a function that wrote has failed. err fails the whole batch.
func (db *DB) try(batch []*write, savepoints bool) (redo bool, err error) {
	if err := db.tx.run("BEGIN IMMEDIATE"); err != nil {
		return false, err
	}
	defer func() {
		if redo || err != nil {
			_ = db.tx.run("ROLLBACK") // fails when SQLite has done it already
		}
	}()
	for _, w := range batch {
		if savepoints {
			if err := db.tx.run("SAVEPOINT w"); err != nil {
				return false, err
			}
		}
		db.tx.wrote = false
		w.err = call(w.fn, db.tx)
		if fatal(w.err) {
			return false, w.err
		}
		if w.err != nil && db.tx.wrote {
			if !savepoints {
				return len(batch) > 1, onlyOne(batch, w.err)
			}
			if err := db.tx.run("ROLLBACK TO w"); err != nil {
				return false, err
			}
		}
		if savepoints {
			if err := db.tx.run("RELEASE w"); err != nil {
				return false, err
			}
		}
	}
	return false, db.tx.run("COMMIT")
}

// onlyOne is the batch's error when the batch is the function that failed.
func onlyOne(batch []*write, err error) error {
	if len(batch) == 1 {
		return err
	}
	return nil
}

func call(fn func(*Tx) error, tx *Tx) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fault.Wrap(fmt.Errorf("panic: %v\n%s", p, debug.Stack()), codes.Internal, fault.ReasonInternal, "internal error")
		}
	}()
	return fn(tx)
}

// NoRows tells the error of a QueryRow that found nothing.
func NoRows(err error) bool { return errors.Is(err, sql.ErrNoRows) }
