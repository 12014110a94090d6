package pgstore

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/logging"
)

const (
	maxGroup    = 256
	queueLength = 1024
	laterDelay  = 50 * time.Millisecond // how long a write that nobody waits for may wait for company
	collisions  = 5                     // how often a group is tried that stands in another process's way
)

// DB is an open store. It is safe for concurrent use.
type DB struct {
	cfg        Config
	where      string
	readers    *pgxpool.Pool
	background context.Context // ends when Close gives up what cannot be finished
	end        context.CancelFunc
	ending     ending

	in      chan *write
	senders sync.RWMutex // held for reading while queueing, so that nothing comes after Close has drained
	closed  bool
	closing chan struct{} // closed when nothing more is taken
	drain   chan struct{} // closed when nothing more can come
	done    chan struct{}

	closeOnce sync.Once

	// Of the writer's goroutine.
	conn   *pgx.Conn
	me     backend
	name   string // of this writer, and how many groups it has begun
	begun  int64
	kept   []*write  // writes that nobody waits for and that the server could not take yet
	away   time.Time // when the server was last found away
	behind bool      // what failed has been logged
}

// Commit writes a batch and returns when the server has it on disk. Batches of several callers share one transaction, in the order in which they came; one whose Must does not hold
// leaves no trace, gets its error back, and does not disturb the others. When ctx ends before it was begun, nothing is written; later Commit waits for the outcome all the same: mostly
// milliseconds, and where the server went away in the middle of a commit, until it has said whether that one counts. On any error but STORE_IN_DOUBT nothing was written; that one comes
// only to a process that ends.
func (db *DB) Commit(ctx context.Context, b *Batch) error {
	_, err := db.CommitRows(ctx, b)
	return err
}

// CommitRows is Commit, and says how many rows the last statement has written.
func (db *DB) CommitRows(ctx context.Context, b *Batch) (int64, error) {
	if ctx.Err() != nil {
		return 0, fault.From(ctx.Err())
	}
	w := &write{batch: b, done: make(chan error, 1)}
	if err := db.enqueue(ctx, w); err != nil {
		return 0, err
	}
	select {
	case err := <-w.done:
		return w.rows, err
	case <-ctx.Done():
		if w.state.CompareAndSwap(writeQueued, writeAbandoned) {
			return 0, fault.From(ctx.Err())
		}
		err := <-w.done
		return w.rows, err
	}
}

// CommitWithin is Commit that waits no longer than ctx: on an error of ctx it may be written or not. It is for what a process does at its end, which has to come.
func (db *DB) CommitWithin(ctx context.Context, b *Batch) error {
	done := make(chan error, 1)
	go func() { done <- db.Commit(ctx, b) }() // Close ends it
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fault.From(ctx.Err())
	}
}

// Later queues a batch that nobody waits for and that may be lost when the process dies: it rides the next commit, or makes one after 50 ms. While the server is away the last 1,024 are
// kept. Errors of a Must are dropped. It blocks only while 1,024 writes wait.
func (db *DB) Later(b *Batch) {
	if err := db.enqueue(db.background, &write{batch: b}); err != nil {
		db.cfg.Log.Debug("write dropped", logging.Err(err))
	}
}

func (db *DB) enqueue(ctx context.Context, w *write) error {
	db.senders.RLock()
	defer db.senders.RUnlock()
	if db.closed {
		return errClosed()
	}
	select {
	case db.in <- w:
		return nil
	case <-ctx.Done():
		return fault.From(ctx.Err())
	case <-db.closing: // else Close would wait for room in the queue
		return errClosed()
	}
}

func errClosed() error { return fault.Unavailable(ReasonClosed, "the store is closed") }

// Close commits what is queued, waiting for the server for three seconds at most, and closes the connections. It may be called twice.
func (db *DB) Close() error {
	db.closeOnce.Do(func() {
		last := time.AfterFunc(closeTimeout, db.end)
		close(db.closing)
		db.senders.Lock()
		db.closed = true
		db.senders.Unlock()
		close(db.drain)
		<-db.done
		last.Stop()
		db.end()
		db.readers.Close()
	})
	return nil
}

// run is the writer.
func (db *DB) run() {
	defer close(db.done)
	defer func() {
		if db.conn != nil {
			closeConn(db.conn)
		}
	}()
	var retry <-chan time.Time
	for {
		select {
		case w := <-db.in:
			db.write(db.collect(w))
		case <-retry:
			db.write(nil)
		case <-db.drain:
			for len(db.in) > 0 {
				db.write(db.collect(<-db.in))
			}
			db.write(nil)
			return
		}
		retry = nil
		if len(db.kept) > 0 {
			retry = time.After(longPause)
		}
	}
}

// collect takes what is queued. What nobody waits for waits a moment for company.
func (db *DB) collect(first *write) []*write {
	var group []*write
	waits := false
	add := func(w *write) {
		if w.state.CompareAndSwap(writeQueued, writeTaken) {
			group = append(group, w)
			waits = waits || !w.late()
		}
	}
	add(first)
	var company <-chan time.Time
	for len(group) < maxGroup {
		select {
		case w := <-db.in:
			add(w)
			continue
		default:
		}
		if waits || len(group) == 0 {
			break
		}
		if company == nil {
			t := time.NewTimer(laterDelay)
			defer t.Stop()
			company = t.C
		}
		select {
		case w := <-db.in:
			add(w)
			continue
		case <-company:
		case <-db.closing:
		}
		break
	}
	return group
}

// write commits a group, behind what was kept from before, and tells everybody how it went.
func (db *DB) write(group []*write) {
	group = append(db.kept, group...)
	db.kept = nil
	if len(group) == 0 {
		return
	}
	err := db.commit(group)
	db.noteHealth(err)
	for _, w := range group {
		switch {
		case w.late() && err != nil && Waits(err):
			db.kept = append(db.kept, w)
		case w.late():
			if bad := errors.Join(err, w.err); bad != nil {
				db.cfg.Log.Debug("a write that nobody waits for failed", logging.Err(bad))
			}
		case err != nil:
			w.done <- err
		default:
			w.done <- db.fault(w.err, "write to")
		}
	}
	if over := len(db.kept) - queueLength; over > 0 {
		db.cfg.Log.Warn("writes that nobody waits for are lost: too many wait for the store", "writes", over)
		db.kept = append([]*write(nil), db.kept[over:]...)
	}
}

// noteHealth says once that the store has failed, and once that it works again.
func (db *DB) noteHealth(err error) {
	switch {
	case err != nil && !db.behind:
		db.cfg.Log.Warn("the store cannot be written; it is tried again", logging.Err(err))
	case err == nil && db.behind:
		db.cfg.Log.Info("the store can be written again")
	}
	db.behind = err != nil
}

// commit writes a group. err is what all of it fails with; otherwise each has its own.
func (db *DB) commit(group []*write) error {
	redo := false
	for try := 0; ; {
		stale, again, err := db.try(group, redo)
		switch {
		case again: // once at most, and it is not how a group may end: it has no error, and is not written
			redo = true
		case (stale && try == 0 || collided(err)) && try < collisions-1:
			try++
		default:
			return db.fault(err, "write to")
		}
	}
}

// writer gives the writer's connection. fresh: it was made now.
func (db *DB) writer(ctx context.Context) (fresh bool, err error) {
	if db.conn != nil && !db.conn.IsClosed() {
		return false, nil
	}
	db.conn = nil
	if since := time.Since(db.away); since < firstPause { // many wait, and none of them can be served: ask now and then
		if !wait(db.background, firstPause-since) {
			return true, fault.Unavailable(ReasonAway, "the store is being closed, and PostgreSQL at %s is away", db.where)
		}
	}
	if db.conn, err = db.connect(ctx); err == nil {
		if db.me, err = whoServes(ctx, db.conn); err != nil {
			closeConn(db.conn)
		}
	}
	if err != nil {
		db.conn, db.away = nil, time.Now()
	}
	return true, err
}

// try runs a group in one transaction. Without savepoints, which cost a round trip for each write, it asks to be run again with them once a write has failed. stale: the connection was
// of a server's earlier life, and nothing was written.
func (db *DB) try(group []*write, savepoints bool) (stale, again bool, err error) {
	ctx, cancel := db.patience()
	defer cancel()
	fresh, err := db.writer(ctx)
	if err != nil {
		return false, false, err
	}
	defer func() {
		if err != nil && !db.conn.IsClosed() {
			db.rollback(ctx)
		}
		stale = err != nil && !fresh && db.conn.IsClosed() && !errors.Is(err, errUnknown)
	}()
	if err := db.send(ctx, group, savepoints); err != nil {
		return false, false, err
	}
	failed := 0
	for _, w := range group {
		if w.err != nil {
			failed++
		}
	}
	if failed > 0 && !savepoints {
		db.rollback(ctx)
		return false, len(group) > 1, nil
	}
	if failed == len(group) {
		db.rollback(ctx)
		return false, false, nil
	}
	return false, false, db.finish(ctx)
}

// send runs the group's statements in a transaction that is left open, and marks it.
func (db *DB) send(ctx context.Context, group []*write, savepoints bool) (err error) {
	db.begun++
	var b pgx.Batch
	b.Queue(`BEGIN`)
	b.Queue(markGroup, db.name, db.begun)
	if !savepoints {
		for _, w := range group {
			w.queue(&b)
		}
	}
	r := db.conn.SendBatch(ctx, &b)
	if _, err = r.Exec(); err == nil {
		_, err = r.Exec()
	}
	for i := 0; err == nil && !savepoints && i < len(group); i++ {
		if err = group[i].read(r); group[i].err != nil {
			break // what follows was not run, or is not to count
		}
	}
	closing := r.Close()
	if err == nil && severed(closing) {
		err = closing
	}
	for i := 0; err == nil && savepoints && i < len(group); i++ {
		err = db.sendOne(ctx, group[i])
	}
	return err
}

// sendOne runs one write's statements so that they can be undone alone.
func (db *DB) sendOne(ctx context.Context, w *write) error {
	var b pgx.Batch
	b.Queue(`SAVEPOINT w`)
	w.queue(&b)
	r := db.conn.SendBatch(ctx, &b)
	_, err := r.Exec()
	if err == nil {
		err = w.read(r)
	}
	closing := r.Close()
	if err == nil && severed(closing) {
		err = closing
	}
	if err != nil || w.err == nil {
		return err
	}
	_, err = db.conn.Exec(ctx, `ROLLBACK TO SAVEPOINT w`)
	return err
}

func (db *DB) rollback(ctx context.Context) {
	if _, err := db.conn.Exec(ctx, `ROLLBACK`); err != nil {
		closeConn(db.conn)
	}
}

// finish commits. When no answer comes it finds out what became of it: "on an error nothing was written" has to hold.
func (db *DB) finish(ctx context.Context) error {
	tag, err := db.conn.Exec(ctx, `COMMIT`)
	var said *pgconn.PgError
	switch {
	case err == nil && tag.String() == "COMMIT":
		return nil
	case err == nil:
		return fault.Unavailable(ReasonAway, "PostgreSQL at %s has undone a commit", db.where)
	case errors.As(err, &said) && !severed(err):
		return err
	}
	closeConn(db.conn)
	return db.ask(err)
}
