package sqlstore

import (
	"database/sql"
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"

	"github.com/shallot-net/shallot/kit/fault"
)

// Reasons of this package's faults; each carries the file's path as Meta["file"].
const (
	ReasonFull    = "STORE_FULL"
	ReasonCorrupt = "STORE_CORRUPT"
	ReasonFailed  = "STORE_FAILED"
	ReasonClosed  = "STORE_CLOSED"
)

// IsConstraint tells whether a statement failed because a row with this key exists, or another constraint of the
// schema holds. Only the statement is undone then.
func IsConstraint(err error) bool { return primary(err) == lib.SQLITE_CONSTRAINT }

// primary is SQLite's result code without its extension, 0 for other errors.
func primary(err error) int {
	var e *sqlite.Error
	if errors.As(err, &e) {
		return e.Code() & 0xff
	}
	return 0
}

// fatal tells whether SQLite has undone, or may have, more than the statement that failed.
func fatal(err error) bool {
	switch primary(err) {
	case lib.SQLITE_FULL, lib.SQLITE_IOERR, lib.SQLITE_NOMEM, lib.SQLITE_CORRUPT, lib.SQLITE_NOTADB, lib.SQLITE_READONLY, lib.SQLITE_BUSY, lib.SQLITE_INTERRUPT:
		return true
	}
	return errors.Is(err, sql.ErrConnDone) || errors.Is(err, sql.ErrTxDone)
}

func (db *DB) corrupt(err error) error {
	return fault.Wrap(err, codes.DataLoss, ReasonCorrupt,
		"%s is damaged and has been left as it is: restore it from a backup together with its -wal file, or move both away to start empty", db.path).With("file", db.path)
}

// fault makes a fault of what SQLite or the file system said; errors of the program's own functions stay as they are.
func (db *DB) fault(err error, doing string) error {
	var own *fault.Error
	if err == nil || errors.As(err, &own) {
		return err
	}
	switch code := primary(err); {
	case code == lib.SQLITE_FULL, errors.Is(err, syscall.ENOSPC), code == lib.SQLITE_IOERR && db.diskFull():
		return fault.Wrap(err, codes.ResourceExhausted, ReasonFull, "no space left to write %s: free some on its file system; what was committed is safe", db.path).With("file", db.path)
	case code == lib.SQLITE_CORRUPT, code == lib.SQLITE_NOTADB:
		return db.corrupt(err)
	case fatal(err), code == lib.SQLITE_CANTOPEN, errors.Is(err, syscall.EACCES), errors.Is(err, syscall.ENOENT):
		return fault.Wrap(err, codes.FailedPrecondition, ReasonFailed, "cannot %s the store %s: check the file, its permissions and that no other process uses it", doing, db.path).With("file", db.path)
	}
	return err
}

func (db *DB) diskFull() bool {
	var st unix.Statfs_t
	return unix.Statfs(db.path, &st) == nil && st.Bavail == 0
}
