package pgstore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/logging"
)

const (
	firstPause = 250 * time.Millisecond
	longPause  = 5 * time.Second // between tries to reach a server that is away
)

// Open opens the store and brings it to the newest of the migrations, which one process does while the others wait. It blocks while the server is away, full or takes no writes,
// and says so in the log, until ctx ends. ctx is the process's: once it has ended, a server that is away is waited for for three seconds more, also by those who commit. What does not go by itself is an error: STORE_DENIED, STORE_MISSING, STORE_NEWER, CONFIG_INVALID.
func Open(ctx context.Context, cfg Config) (*DB, error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	db := &DB{cfg: cfg, in: make(chan *write, queueLength), closing: make(chan struct{}), drain: make(chan struct{}), done: make(chan struct{}), name: strings.ToLower(rand.Text())}
	db.background, db.end = context.WithCancel(context.Background())
	db.watchEnd(ctx)
	p, err := cfg.parse()
	if err != nil {
		return nil, err
	}
	db.where = where(p)
	for pause := firstPause; ; pause = min(2*pause, longPause) {
		err := db.prepare(ctx)
		if err == nil {
			break
		}
		if err = db.fault(err, "set up"); !Waits(err) || ctx.Err() != nil {
			return nil, err
		}
		db.cfg.Log.Warn("the store cannot be used yet; it is tried again until it can", logging.Err(err))
		if !wait(ctx, pause) {
			return nil, err
		}
	}
	if err := db.openReaders(ctx); err != nil {
		return nil, db.fault(err, "open")
	}
	go db.run()
	return db, nil
}

// where is what messages call the server.
func where(p *pgx.ConnConfig) string {
	if strings.HasPrefix(p.Host, "/") {
		return p.Host
	}
	return net.JoinHostPort(p.Host, strconv.Itoa(int(p.Port)))
}

func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// openReaders makes the pool; it connects when somebody reads.
func (db *DB) openReaders(ctx context.Context) error {
	c, err := pgxpool.ParseConfig(db.cfg.URL)
	if err != nil {
		return err
	}
	if c.ConnConfig, err = db.cfg.parse(); err != nil {
		return err
	}
	c.ConnConfig.RuntimeParams["default_transaction_read_only"] = "on"
	c.MaxConns, c.MinConns = Readers, 0
	c.MaxConnIdleTime, c.MaxConnLifetime = 5*time.Minute, time.Hour
	c.BeforeConnect = func(_ context.Context, to *pgx.ConnConfig) error { // what is in files may have changed
		now, err := db.cfg.parse()
		if err != nil {
			return err
		}
		to.Password, to.TLSConfig, to.Fallbacks = now.Password, now.TLSConfig, now.Fallbacks
		return nil
	}
	db.readers, err = pgxpool.NewWithConfig(ctx, c)
	return err
}

// prepare makes the schema and migrates it, alone: others that start at the same time wait for its lock, which goes with the connection.
func (db *DB) prepare(ctx context.Context) error {
	conn, err := db.connect(ctx)
	if err != nil {
		return err
	}
	defer closeConn(conn)
	if err := db.alone(ctx, conn); err != nil {
		return err
	}
	var exists bool
	if err := conn.QueryRow(ctx, `SELECT EXISTS (SELECT 1 FROM pg_namespace WHERE nspname = $1)`, db.cfg.Schema).Scan(&exists); err != nil {
		return err
	}
	if !exists {
		if _, err := conn.Exec(ctx, `CREATE SCHEMA `+pgx.Identifier{db.cfg.Schema}.Sanitize()); err != nil {
			return err
		}
	}
	for _, sql := range []string{marks, forgetMarks} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return err
		}
	}
	return db.migrate(ctx)
}

// alone takes the lock of a schema's migrations. Whoever has it may take as long as it needs; who waits says so now and then.
func (db *DB) alone(ctx context.Context, conn *pgx.Conn) error {
	h := fnv.New64a()
	_, _ = h.Write([]byte("shallot migrations " + db.cfg.Schema))
	_, err := conn.Exec(ctx, `SELECT pg_advisory_lock($1)`, int64(h.Sum64()))
	var said *pgconn.PgError
	if errors.As(err, &said) && said.Code == stateLock {
		return fault.Unavailable(ReasonAway, "another process is bringing the schema %q of PostgreSQL at %s up to date, and this one waits for it", db.cfg.Schema, db.where)
	}
	return err
}

func (db *DB) migrate(ctx context.Context) error {
	c, err := db.cfg.parse()
	if err != nil {
		return err
	}
	c.RuntimeParams["statement_timeout"] = "0"
	pool := stdlib.OpenDB(*c)
	defer pool.Close()
	p, err := goose.NewProvider(goose.DialectPostgres, pool, root(db.cfg.Migrations), goose.WithSlog(slog.New(slog.DiscardHandler)))
	if errors.Is(err, goose.ErrNoMigrations) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the migrations of %s: %w", db.cfg.Schema, err)
	}
	has, err := p.GetDBVersion(ctx)
	if err != nil {
		return err
	}
	sources := p.ListSources()
	newest := sources[len(sources)-1].Version
	if has > newest {
		return fault.FailedPrecondition(ReasonNewer, "the schema %q of PostgreSQL at %s was written by a newer version of this program (it is at %d, this program knows up to %d): run that version, or name another database in store",
			db.cfg.Schema, db.where, has, newest).With("store", db.where)
	}
	if has == newest {
		return nil
	}
	_, err = p.Up(ctx)
	return err
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

func closeConn(c *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = c.Close(ctx) // it is done with, whatever the server says
}
