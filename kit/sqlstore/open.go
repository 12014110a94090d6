package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/pressly/goose/v3"
	_ "modernc.org/sqlite" // the driver

	"github.com/shallot-net/shallot/kit/fault"
)

// smallFile is up to what size a store is checked at every open; a larger one only after an unclean shutdown.
const smallFile = 16 << 20

// Option changes how a store is opened.
type Option func(*DB)

// WithLogger is told of failures of Later, which nobody waits for.
func WithLogger(log *slog.Logger) Option { return func(db *DB) { db.log = log } }

// Open opens the store in the file at path, makes it (0600) where missing, checks it, and brings it to the newest
// of the migrations: goose SQL files at the root of the file system or in its only directory. It refuses a file
// that is damaged (DATA_LOSS, STORE_CORRUPT; the file is left as it is) or was written by a newer version
// (FAILED_PRECONDITION, STORE_NEWER). The caller makes sure that one process opens it: see home.Lock.
func Open(ctx context.Context, path string, migrations fs.FS, opts ...Option) (*DB, error) {
	db := &DB{path: path, log: slog.New(slog.DiscardHandler), in: make(chan *write, queueLength),
		wake: make(chan struct{}, 1), closing: make(chan struct{}), done: make(chan struct{})}
	for _, o := range opts {
		o(db)
	}
	if err := prepareFile(path); err != nil {
		return nil, db.fault(err, "open")
	}
	if err := db.check(ctx); err != nil {
		return nil, err
	}
	if err := db.connect(ctx); err != nil {
		return nil, errors.Join(db.fault(err, "open"), db.disconnect())
	}
	if err := db.migrate(ctx, migrations); err != nil {
		return nil, errors.Join(err, db.disconnect())
	}
	if err := db.begin(ctx); err != nil {
		return nil, errors.Join(db.fault(err, "open"), db.disconnect())
	}
	db.lateTimer = time.AfterFunc(time.Hour, db.wakeWriter)
	db.lateTimer.Stop()
	go db.run()
	return db, nil
}

func prepareFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(f.Chmod(0o600), f.Close())
}

func dsn(path string, pragmas ...string) string {
	abs, err := filepath.Abs(path)
	if err != nil {
		abs = path
	}
	q := url.Values{"_pragma": pragmas}
	return (&url.URL{Scheme: "file", Path: abs, RawQuery: q.Encode()}).String()
}

// check reads the file without changing it: a writing connection would fold the log into it when it closes.
func (db *DB) check(ctx context.Context) error {
	info, err := os.Stat(db.path)
	if err != nil {
		return db.fault(err, "open")
	}
	wal, walErr := os.Stat(db.path + "-wal")
	unclean := walErr == nil && wal.Size() > 0
	if info.Size() == 0 && !unclean || info.Size() > smallFile && !unclean {
		return nil
	}
	ro, err := sql.Open("sqlite", dsn(db.path, "query_only(1)", "cache_size(-512)", "busy_timeout(5000)")+"&mode=ro")
	if err != nil {
		return db.fault(err, "check")
	}
	defer ro.Close()
	var result string
	if err := ro.QueryRowContext(ctx, "PRAGMA quick_check(1)").Scan(&result); err != nil {
		return db.fault(err, "check")
	}
	if result != "ok" {
		return db.corrupt(errors.New(result))
	}
	return nil
}

func (db *DB) connect(ctx context.Context) error {
	common := []string{"busy_timeout(5000)", "foreign_keys(1)", "temp_store(MEMORY)"}
	// The log is folded into the file every 16 MiB: what many commits wrote is then copied once.
	writer, err := sql.Open("sqlite", dsn(db.path, append(common, "journal_mode(WAL)", "synchronous(FULL)",
		"cache_size(-2048)", "journal_size_limit(16777216)", "wal_autocheckpoint(4000)")...))
	if err != nil {
		return err
	}
	writer.SetMaxOpenConns(1)
	db.writer = writer
	if err := writer.PingContext(ctx); err != nil {
		return err
	}
	readers, err := sql.Open("sqlite", dsn(db.path, append(common, "query_only(1)", "cache_size(-1024)")...))
	if err != nil {
		return err
	}
	readers.SetMaxOpenConns(2)
	readers.SetMaxIdleConns(2)
	readers.SetConnMaxIdleTime(5 * time.Minute)
	db.readers = readers
	return nil
}

func (db *DB) migrate(ctx context.Context, migrations fs.FS) error {
	p, err := goose.NewProvider(goose.DialectSQLite3, db.writer, root(migrations), goose.WithSlog(slog.New(slog.DiscardHandler)))
	if errors.Is(err, goose.ErrNoMigrations) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the migrations of %s: %w", db.path, err)
	}
	has, err := p.GetDBVersion(ctx)
	if err != nil {
		return db.fault(err, "read the version of")
	}
	sources := p.ListSources()
	if newest := sources[len(sources)-1].Version; has > newest {
		return fault.FailedPrecondition("STORE_NEWER", "%s was written by a newer version of this program (its schema is %d, this program knows up to %d): run that version, or move the file away to start empty", db.path, has, newest).
			With("file", db.path)
	} else if has == newest {
		return nil
	}
	if _, err := p.Up(ctx); err != nil {
		return db.fault(err, "migrate")
	}
	return nil
}

// root finds where the migrations are: an embedded directory keeps its name.
func root(fsys fs.FS) fs.FS {
	if sqls, _ := fs.Glob(fsys, "*.sql"); len(sqls) > 0 {
		return fsys
	}
	if dirs, err := fs.ReadDir(fsys, "."); err == nil && len(dirs) == 1 && dirs[0].IsDir() {
		if sub, err := fs.Sub(fsys, dirs[0].Name()); err == nil {
			return sub
		}
	}
	return fsys
}

func (db *DB) disconnect() error {
	var errs []error
	if db.tx != nil { // database/sql does not close what was prepared on one connection, and SQLite stays open with it
		for _, stmt := range db.tx.stmts {
			errs = append(errs, stmt.Close())
		}
	}
	if db.conn != nil {
		errs = append(errs, db.conn.Close())
	}
	if db.readers != nil { // before the writer: the last to close folds the log into the file
		errs = append(errs, db.readers.Close())
	}
	if db.writer != nil {
		errs = append(errs, db.writer.Close())
	}
	return errors.Join(errs...)
}
