package sqlstore

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"io"
	"os"

	lib "modernc.org/sqlite/lib"

	"github.com/shallot-net/shallot/kit/fault"
)

// fileHeader begins every file of SQLite.
var fileHeader = []byte("SQLite format 3\x00")

// IsStore tells whether a file is one of SQLite, by its first bytes. A new one, whose pages are all in its log yet, is empty.
func IsStore(path string) (bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	b := make([]byte, len(fileHeader))
	n, err := io.ReadFull(f, b)
	if n == 0 && errors.Is(err, io.EOF) {
		wal, err := os.Stat(path + "-wal")
		return err == nil && wal.Size() > 0, nil
	}
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return false, err
	}
	return bytes.Equal(b[:n], fileHeader), nil
}

// Copy writes what the store at from has committed at one moment to a new file at to (0600), while others, this process or not, may read and write it. It takes as long as reading
// the file does; meanwhile the store's log grows by what is written. The copy has been checked; it is not on disk before somebody syncs it. On an error it is removed.
// The errors are those of Open, but that the migrations are not looked at: a store of any version is copied.
func Copy(ctx context.Context, from, to string) (err error) {
	source := &DB{path: from}
	db, err := sql.Open("sqlite", dsn(from, "busy_timeout(5000)", "cache_size(-1024)", "temp_store(MEMORY)")+"&mode=rw")
	if err != nil {
		return source.fault(err, "read")
	}
	defer db.Close()
	f, err := os.OpenFile(to, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600) // VACUUM INTO takes a file that is empty, and leaves its mode
	if err != nil {
		return err
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			_ = os.Remove(to)
		}
	}()
	target := &DB{path: to}
	if _, err := db.ExecContext(ctx, "VACUUM INTO ?", to); err != nil {
		if ctx.Err() != nil {
			return fault.From(context.Cause(ctx))
		}
		if primary(err) == lib.SQLITE_FULL || target.diskFull() { // the source is not written
			return target.fault(err, "write")
		}
		return source.fault(err, "read")
	}
	return target.check(ctx)
}
