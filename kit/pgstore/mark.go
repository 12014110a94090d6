package pgstore

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"
	"google.golang.org/grpc/codes"

	"github.com/shallot-net/shallot/kit/logging"
)

// Every group marks itself in its own transaction, so that it can be told afterwards whether it counts. PostgreSQL's own answer, pg_xact_status, is none after a crash: what
// was not on disk gives its number to the next transaction of anybody, whose end would be taken for this one's.
const (
	marks = `CREATE TABLE IF NOT EXISTS pgstore_writers (name TEXT NOT NULL PRIMARY KEY, begun BIGINT NOT NULL, at TIMESTAMPTZ NOT NULL)`
	// Of processes that have ended. One that has written nothing for so long marks itself anew.
	forgetMarks = `DELETE FROM pgstore_writers WHERE at < now() - INTERVAL '7 days'`
	markGroup   = `INSERT INTO pgstore_writers (name, begun, at) VALUES ($1, $2, now()) ON CONFLICT (name) DO UPDATE SET begun = $2, at = now()`
	readMark    = `SELECT begun FROM pgstore_writers WHERE name = $1`
)

// backend is the server's process of one connection.
type backend struct {
	pid   int32
	start string
}

func whoServes(ctx context.Context, conn *pgx.Conn) (b backend, err error) {
	err = conn.QueryRow(ctx, `SELECT pid, backend_start::text FROM pg_stat_activity WHERE pid = pg_backend_pid()`).Scan(&b.pid, &b.start)
	return b, err
}

// ask blocks until the server can be asked what became of the group that was begun last, and has an answer; or until the process has ended for some seconds, with errUnknown.
func (db *DB) ask(cause error) error {
	db.cfg.Log.Warn("the store went away in the middle of a commit; what became of it is asked for", logging.Err(db.fault(cause, "write to")))
	for pause := firstPause; ; pause = min(2*pause, longPause) {
		committed, sure, err := db.status()
		switch {
		case err == nil && committed:
			return nil
		case err == nil && sure:
			return db.wrap(cause, codes.Unavailable, ReasonAway, "PostgreSQL at %s went away before a commit; nothing of it was written", db.where)
		}
		if !wait(db.ending.near, pause) {
			return errors.Join(errUnknown, err)
		}
	}
}

// status asks for the group, and ends what the server still does for the connection that is gone: until then it is not sure that the group does not count.
func (db *DB) status() (committed, sure bool, err error) {
	ctx, cancel := context.WithTimeout(db.ending.near, writeTimeout)
	defer cancel()
	conn, err := db.connect(ctx)
	if err != nil {
		return false, false, err
	}
	defer closeConn(conn)
	there := 0 // looked at before the mark: what is not there any more has done all that it will
	if err = conn.QueryRow(ctx, `SELECT COUNT(*) FROM pg_stat_activity WHERE pid = $1 AND backend_start::text = $2`, db.me.pid, db.me.start).Scan(&there); err != nil {
		return false, false, err
	}
	begun := int64(0)
	if err = conn.QueryRow(ctx, readMark, db.name).Scan(&begun); err != nil && !NoRows(err) {
		return false, false, err
	}
	if begun >= db.begun || there == 0 {
		return begun >= db.begun, true, nil
	}
	_, err = conn.Exec(ctx, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = $1 AND backend_start::text = $2`, db.me.pid, db.me.start)
	return false, false, err
}
