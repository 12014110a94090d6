package pgstore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/pgstore"
	"github.com/shallot-net/shallot/kit/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

var first = fstest.MapFS{"00001_a.sql": {Data: []byte("-- +goose Up\nCREATE TABLE a (id BIGINT PRIMARY KEY, v TEXT NOT NULL);\n")}}

func second() fstest.MapFS {
	return fstest.MapFS{"00001_a.sql": first["00001_a.sql"], "00002_b.sql": {Data: []byte("-- +goose Up\nALTER TABLE a ADD COLUMN w TEXT;\n")}}
}

// events is a log that tests wait on.
type events struct {
	mu    sync.Mutex
	text  bytes.Buffer
	wrote chan struct{}
}

func newEvents() *events { return &events{wrote: make(chan struct{}, 1)} }

func (e *events) Write(b []byte) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.text.Write(b)
	select {
	case e.wrote <- struct{}{}:
	default:
	}
	return len(b), nil
}

// wait waits until the log has a text.
func (e *events) wait(t *testing.T, text string) {
	t.Helper()
	end := time.After(time.Minute)
	for {
		e.mu.Lock()
		all := e.text.String()
		e.mu.Unlock()
		if strings.Contains(all, text) {
			return
		}
		select {
		case <-e.wrote:
		case <-end:
			t.Fatalf("the log has no %q:\n%s", text, all)
		}
	}
}

func config(s *pgtest.Server, database string) pgstore.Config {
	return pgstore.Config{URL: s.URL(database), PasswordFile: s.PasswordFile, Schema: "part", Migrations: first}
}

func open(t *testing.T, c pgstore.Config) *pgstore.DB {
	t.Helper()
	db, err := pgstore.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

const writeTimeout = 15 * time.Second // pgstore's

var errThere = errors.New("it is there already")

func insert(id int, v string) *pgstore.Batch {
	var b pgstore.Batch
	b.Must(errThere, `INSERT INTO a (id, v) VALUES ($1, $2) ON CONFLICT DO NOTHING`, id, v)
	return &b
}

func count(t *testing.T, db *pgstore.DB) (n int) {
	t.Helper()
	if err := db.Row(context.Background(), `SELECT COUNT(*) FROM a`, nil, &n); err != nil {
		t.Fatal(err)
	}
	return n
}

func reason(err error) string {
	var f *fault.Error
	if errors.As(err, &f) {
		return f.Reason
	}
	return fmt.Sprint(err)
}

func TestOneFailureDoesNotDisturbOthers(t *testing.T) {
	t.Parallel()
	s := pgtest.Shared(t)
	db := open(t, config(s, s.Database(t)))
	var wg sync.WaitGroup
	results := make([]error, 200)
	for i := range results {
		wg.Go(func() { results[i] = db.Commit(context.Background(), insert(i/2, "x")) }) // each id twice
	}
	wg.Wait()
	won := 0
	for _, err := range results {
		switch {
		case err == nil:
			won++
		case !errors.Is(err, errThere):
			t.Fatal(err)
		}
	}
	if n := count(t, db); won != 100 || n != 100 {
		t.Fatalf("%d have written, %d rows are there", won, n)
	}
	var whole pgstore.Batch
	whole.Exec(`INSERT INTO a (id, v) VALUES (1000, 'y')`)
	whole.Exec(`INSERT INTO a (id, v) VALUES (1001, NULL)`) // the schema forbids it
	if err := db.Commit(context.Background(), &whole); reason(err) != pgstore.ReasonFailed {
		t.Fatalf("a bad statement: %v", err)
	}
	if n := count(t, db); n != 100 {
		t.Fatalf("half of a batch was written: %d rows", n)
	}
	if rows, err := db.CommitRows(context.Background(), func() *pgstore.Batch {
		var b pgstore.Batch
		b.Exec(`DELETE FROM a WHERE id < 10`)
		return &b
	}()); err != nil || rows != 10 {
		t.Fatalf("%d rows, %v", rows, err)
	}
}

// Two processes that take rows in opposite order stand in each other's way, and both get there.
func TestDeadlocksAreTriedAgain(t *testing.T) {
	t.Parallel()
	s := pgtest.Shared(t)
	name := s.Database(t)
	one, two := open(t, config(s, name)), open(t, config(s, name))
	for id := range 2 {
		if err := one.Commit(context.Background(), insert(id, "")); err != nil {
			t.Fatal(err)
		}
	}
	var wg sync.WaitGroup
	for i, db := range []*pgstore.DB{one, two} {
		wg.Go(func() {
			for range 5 {
				var b pgstore.Batch
				for k := range 2 {
					b.Exec(`UPDATE a SET v = v || 'x' WHERE id = $1`, (k+i)%2)
				}
				if err := db.Commit(context.Background(), &b); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	var n int
	if err := one.Row(context.Background(), `SELECT MIN(LENGTH(v)) FROM a`, nil, &n); err != nil || n != 10 {
		t.Fatalf("%d of 10 updates are there, %v", n, err)
	}
}

// A group stands in others' way until its last try, and then one of its writes fails: the other is written, and not only said to be.
func TestTheLastTryFindsAFailure(t *testing.T) {
	t.Parallel()
	s := pgtest.Shared(t)
	name := s.Database(t)
	db := open(t, config(s, name))
	other := s.Connect(t, name)
	for _, q := range []string{
		`CREATE SEQUENCE part.tries`, // which no rollback sets back
		`CREATE FUNCTION part.collide() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
			IF NEW.id = 1 AND nextval('part.tries') < 5 THEN RAISE deadlock_detected; END IF;
			RETURN NEW; END $$`,
		`CREATE TRIGGER collide BEFORE INSERT ON part.a FOR EACH ROW EXECUTE FUNCTION part.collide()`,
		`BEGIN`,
		`LOCK TABLE part.a`,
	} {
		if _, err := other.Exec(t.Context(), q); err != nil {
			t.Fatalf("%s: %v", q, err)
		}
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := db.Commit(t.Context(), insert(0, "")); err != nil { // keeps the writer while the next two come together
			t.Error(err)
		}
	})
	until(t, "the writer waits", func() (waits bool) {
		err := other.QueryRow(t.Context(), `SELECT EXISTS (SELECT 1 FROM pg_locks WHERE relation = 'part.a'::regclass AND NOT granted)`).Scan(&waits)
		return err == nil && waits
	})
	wg.Go(func() {
		if err := db.Commit(t.Context(), insert(1, "")); err != nil {
			t.Error(err)
		}
	})
	var fails pgstore.Batch // at the last try, whichever of the two comes first
	fails.Must(errThere, `INSERT INTO a (id, v) SELECT 2, '' WHERE (SELECT last_value FROM tries) < 4`)
	db.Later(&fails)
	if _, err := other.Exec(t.Context(), `COMMIT`); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	if n := count(t, db); n != 2 {
		t.Fatalf("%d of 2 rows that were said to be written are there", n)
	}
}

// However many start at once, each migration runs once.
func TestOneMigrates(t *testing.T) {
	t.Parallel()
	s := pgtest.Shared(t)
	c := config(s, s.Database(t))
	c.Migrations = second()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			db, err := pgstore.Open(t.Context(), c)
			if err != nil {
				t.Error(err)
				return
			}
			db.Close()
		})
	}
	wg.Wait()
	db := open(t, c)
	var n int
	if err := db.Row(t.Context(), `SELECT COUNT(*) FROM goose_db_version WHERE version_id > 0`, nil, &n); err != nil || n != 2 {
		t.Fatalf("%d migrations were written down, %v", n, err)
	}
}

// Whoever waits for another one's migration says so.
func TestWaitingForAMigrationIsSaid(t *testing.T) {
	t.Parallel()
	s := pgtest.Shared(t)
	name := s.Database(t)
	holder := s.Connect(t, name)
	h := fnv.New64a()
	_, _ = h.Write([]byte("shallot migrations part"))
	if _, err := holder.Exec(t.Context(), `SELECT pg_advisory_lock($1)`, int64(h.Sum64())); err != nil {
		t.Fatal(err)
	}
	c := config(s, name)
	log := newEvents()
	c.Log = slog.New(slog.NewTextHandler(log, nil))
	opened := make(chan error, 1)
	go func() {
		db, err := pgstore.Open(t.Context(), c)
		if err == nil {
			err = db.Close()
		}
		opened <- err
	}()
	log.wait(t, "this one waits for it")
	if err := errors.Join(holder.Close(t.Context()), <-opened); err != nil {
		t.Fatal(err)
	}
}

func TestOlderIsBroughtAlongNewerIsRefused(t *testing.T) {
	t.Parallel()
	s := pgtest.Shared(t)
	c := config(s, s.Database(t))
	if err := open(t, c).Commit(t.Context(), insert(1, "kept")); err != nil {
		t.Fatal(err)
	}
	c.Migrations = second()
	if n := count(t, open(t, c)); n != 1 {
		t.Fatalf("%d rows after the upgrade", n)
	}
	c.Migrations = first
	_, err := pgstore.Open(t.Context(), c)
	if reason(err) != pgstore.ReasonNewer || !strings.Contains(err.Error(), `"part"`) || !strings.Contains(err.Error(), "at 2, this program knows up to 1") {
		t.Fatalf("a newer schema: %v", err)
	}
}

func TestWhatDoesNotMendItselfIsRefused(t *testing.T) {
	t.Parallel()
	s := pgtest.Shared(t)
	wrong := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(wrong, []byte("guess\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	name := s.Database(t)
	s.Exec(t, `CREATE ROLE guest_`+name+` LOGIN PASSWORD '`+pgtest.Password+`'`)
	for what, c := range map[string]struct {
		change func(*pgstore.Config)
		reason string
		says   string
	}{
		"password":    {func(c *pgstore.Config) { c.PasswordFile = wrong }, pgstore.ReasonDenied, "store_password_file"},
		"no password": {func(c *pgstore.Config) { c.PasswordFile = filepath.Join(t.TempDir(), "none") }, "CONFIG_UNREADABLE", "store_password_file"},
		"database":    {func(c *pgstore.Config) { c.URL = s.URL("nothing") }, pgstore.ReasonMissing, "createdb"},
		"rights":      {func(c *pgstore.Config) { c.URL = strings.Replace(c.URL, pgtest.User, "guest_"+name, 1) }, pgstore.ReasonDenied, "grant"},
		"in the URL": {func(c *pgstore.Config) { c.URL = strings.Replace(c.URL, pgtest.User+"@", pgtest.User+":secret@", 1) },
			"CONFIG_INVALID", "a file of its own"},
		"plain TCP":  {func(c *pgstore.Config) { c.URL = "postgres://u@db.example:5432/x?sslmode=disable" }, "CONFIG_INVALID", "sslmode=verify-full"},
		"unverified": {func(c *pgstore.Config) { c.URL = "postgres://u@db.example:5432/x?sslmode=require" }, "CONFIG_INVALID", "sslmode=verify-full"},
		"preferred":  {func(c *pgstore.Config) { c.URL = "postgres://u@db.example:5432/x" }, "CONFIG_INVALID", "sslmode=verify-full"},
		"no URL":     {func(c *pgstore.Config) { c.URL = "postgres://u:%zz@db" }, "CONFIG_INVALID", "such as postgres://"},
		"parameter":  {func(c *pgstore.Config) { c.URL = "postgres://u@/x?host=/run&connect_timeout=soon" }, "CONFIG_INVALID", "connect_timeout"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			cfg := config(s, name)
			c.change(&cfg)
			db, err := pgstore.Open(t.Context(), cfg)
			if err == nil {
				db.Close()
			}
			if reason(err) != c.reason || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "guess") || strings.Contains(err.Error(), "secret") {
				t.Fatalf("got %v, want %s with %q", err, c.reason, c.says)
			}
		})
	}
}
