package sqlstore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"google.golang.org/grpc/codes"
	"pgregory.net/rapid"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/sqlstore"
)

func migration(sql string) *fstest.MapFile {
	return &fstest.MapFile{Data: []byte("-- +goose Up\n" + sql + "\n")}
}

var (
	v1 = fstest.MapFS{"0001_items.sql": migration("CREATE TABLE items(id INTEGER PRIMARY KEY, body BLOB);")}
	v2 = fstest.MapFS{"sql/0001_items.sql": v1["0001_items.sql"], "sql/0002_note.sql": migration("ALTER TABLE items ADD COLUMN note TEXT;")}
)

func open(t testing.TB, path string, migrations fs.FS) *sqlstore.DB {
	t.Helper()
	db, err := sqlstore.Open(t.Context(), path, migrations)
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

func insert(id int) func(*sqlstore.Tx) error {
	return func(tx *sqlstore.Tx) error {
		_, err := tx.Exec("INSERT INTO items(id) VALUES(?)", id)
		return err
	}
}

func count(t testing.TB, db *sqlstore.DB) (n int) {
	t.Helper()
	if err := db.Read().QueryRowContext(t.Context(), "SELECT count(*) FROM items").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func wantReason(t *testing.T, err error, code codes.Code, reason string) {
	t.Helper()
	f := fault.From(err)
	if f == nil || f.Code != code || f.Reason != reason {
		t.Fatalf("got %v, want %v %s", err, code, reason)
	}
}

func TestCommitIsSeenAndKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a ?#%b.db")
	db, err := sqlstore.Open(t.Context(), path, v1)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Commit(t.Context(), insert(1)); err != nil {
		t.Fatal(err)
	}
	if n := count(t, db); n != 1 {
		t.Errorf("%d rows", n)
	}
	if _, err := db.Read().ExecContext(t.Context(), "DELETE FROM items"); err == nil {
		t.Error("a reader could write")
	}
	db.Later(insert(2))
	if err := errors.Join(db.Close(), db.Close()); err != nil {
		t.Fatal(err)
	}
	wantReason(t, db.Commit(t.Context(), insert(3)), codes.Unavailable, sqlstore.ReasonClosed)
	db.Later(insert(4))
	if _, err := os.Stat(path + "-wal"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Close left the log (%v): the next open takes it for an unclean shutdown", err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if n := count(t, open(t, path, v1)); n != 2 {
		t.Errorf("%d rows after opening again: Close did not flush Later", n)
	}
}

func TestLaterIsWrittenWithoutCompany(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "db"), v1)
	done := make(chan struct{})
	db.Later(func(tx *sqlstore.Tx) error {
		defer close(done)
		return insert(1)(tx)
	})
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatal("not written")
	}
	if err := db.Commit(t.Context(), func(*sqlstore.Tx) error { return nil }); err != nil {
		t.Fatal(err)
	}
	if n := count(t, db); n != 1 {
		t.Errorf("%d rows", n)
	}
}

// holdWriter keeps the writer busy until release is called, so that what is queued meanwhile forms one batch.
func holdWriter(t *testing.T, db *sqlstore.DB) (release func()) {
	held, free := make(chan struct{}), make(chan struct{})
	done := make(chan error, 1)
	once := sync.OnceFunc(func() { close(held) })
	go func() {
		done <- db.Commit(context.Background(), func(*sqlstore.Tx) error { once(); <-free; return nil })
	}()
	<-held
	return func() {
		close(free)
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// Whatever fails, panics or fails without a write, each caller gets its own outcome, and exactly the rows of those
// that got nil are there.
func TestBatchesKeepTheirMembersApart(t *testing.T) {
	db, base := open(t, filepath.Join(t.TempDir(), "db"), v1), 0
	rapid.Check(t, func(rt *rapid.T) {
		base += 1000 // each run has ids of its own
		base := base
		kinds := rapid.SliceOfN(rapid.SampledFrom([]string{"ok", "ok", "ok", "error", "duplicate", "panic", "early", "later"}), 1, 40).Draw(rt, "kinds")
		mine := errors.New("mine")
		release := holdWriter(t, db)
		errs := make([]error, len(kinds))
		var wg sync.WaitGroup
		for i, kind := range kinds {
			fn := func(tx *sqlstore.Tx) error {
				if kind == "early" {
					return mine
				}
				if err := insert(base + i)(tx); err != nil {
					return err
				}
				switch kind {
				case "error":
					return mine
				case "panic":
					panic("boom")
				case "duplicate":
					return insert(base + i)(tx)
				}
				return nil
			}
			if kind == "later" {
				db.Later(fn)
				continue
			}
			wg.Go(func() { errs[i] = db.Commit(context.Background(), fn) })
		}
		release()
		wg.Wait()
		if err := db.Commit(context.Background(), insert(base+999)); err != nil { // also flushes Later
			rt.Fatal(err)
		}
		for i, kind := range kinds {
			var there int
			if err := db.Read().QueryRow("SELECT count(*) FROM items WHERE id = ?", base+i).Scan(&there); err != nil {
				rt.Fatal(err)
			}
			want := map[string]bool{"ok": true, "later": true}[kind]
			if (errs[i] == nil) != (want || kind == "later") || (there == 1) != want {
				rt.Errorf("%d %s: error %v, %d rows", i, kind, errs[i], there)
			}
			switch kind {
			case "error", "early":
				if !errors.Is(errs[i], mine) {
					rt.Errorf("%s: got %v", kind, errs[i])
				}
			case "duplicate":
				if !sqlstore.IsConstraint(errs[i]) {
					rt.Errorf("%s: got %v", kind, errs[i])
				}
			case "panic":
				if fault.From(errs[i]).Code != codes.Internal {
					rt.Errorf("%s: got %v", kind, errs[i])
				}
			}
		}
	})
}

func TestContextEndsWhatHasNotBegun(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "db"), v1)
	release := holdWriter(t, db)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	err := db.Commit(ctx, insert(1)) // gives up in the queue
	release()
	wantReason(t, err, codes.DeadlineExceeded, fault.ReasonDeadline)
	wantReason(t, db.Commit(ctx, insert(1)), codes.DeadlineExceeded, fault.ReasonDeadline)
	if err := db.Commit(t.Context(), insert(2)); err != nil {
		t.Fatal(err)
	}
	if n := count(t, db); n != 1 {
		t.Errorf("%d rows", n)
	}
}

func TestMigrations(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	db, err := sqlstore.Open(t.Context(), path, v1)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(db.Commit(t.Context(), insert(1)), db.Close()); err != nil {
		t.Fatal(err)
	}
	db = open(t, path, v2)
	if err := db.Commit(t.Context(), func(tx *sqlstore.Tx) error {
		_, err := tx.Exec("UPDATE items SET note = 'x' WHERE id = 1")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = sqlstore.Open(t.Context(), path, v1)
	wantReason(t, err, codes.FailedPrecondition, "STORE_NEWER")
}

func TestDamagedFileIsNamedAndLeftAlone(t *testing.T) {
	good := filepath.Join(t.TempDir(), "good")
	db := open(t, good, v1)
	if err := db.Commit(t.Context(), func(tx *sqlstore.Tx) error {
		for i := range 2000 {
			if _, err := tx.Exec("INSERT INTO items(id, body) VALUES(?, randomblob(300))", i); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		"torn":    whole[:len(whole)/2],
		"garbage": bytes.Repeat([]byte("no database "), 1000),
		"page":    append(append(bytes.Clone(whole[:8192]), bytes.Repeat([]byte{0x5a}, 8192)...), whole[16384:]...),
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), name+".db")
			if err := os.WriteFile(path, data, 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := sqlstore.Open(t.Context(), path, v1)
			wantReason(t, err, codes.DataLoss, sqlstore.ReasonCorrupt)
			if f := fault.From(err); f.Meta["file"] != path {
				t.Errorf("names %q", f.Meta["file"])
			}
			if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, data) {
				t.Errorf("the file was changed (%v)", err)
			}
		})
	}
}

// A copy of the files under a live store is what a kill leaves.
func TestCommittedSurvivesAKill(t *testing.T) {
	dir := t.TempDir()
	path, copied := filepath.Join(dir, "db"), filepath.Join(dir, "copy")
	db := open(t, path, v1)
	for i := range 20 {
		if err := db.Commit(t.Context(), insert(i)); err != nil {
			t.Fatal(err)
		}
	}
	for _, suffix := range []string{"", "-wal"} {
		data, err := os.ReadFile(path + suffix)
		if err != nil {
			t.Fatal(err)
		}
		if suffix == "-wal" {
			data = append(data, "the beginning of a frame"...)
		}
		if err := os.WriteFile(copied+suffix, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if n := count(t, open(t, copied, v1)); n != 20 {
		t.Errorf("%d rows, want 20", n)
	}
}

func TestFullDiskIsSaidAndPasses(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "db"), v1)
	limit := func(pages int) {
		if err := db.Commit(t.Context(), func(tx *sqlstore.Tx) error {
			var n int
			return tx.QueryRow(fmt.Sprintf("PRAGMA max_page_count(%d)", pages)).Scan(&n)
		}); err != nil {
			t.Fatal(err)
		}
	}
	limit(10) // SQLite answers as it does when the disk is full
	big := func(tx *sqlstore.Tx) error {
		_, err := tx.Exec("INSERT INTO items(body) VALUES(randomblob(1000000))")
		return err
	}
	for range 2 {
		wantReason(t, db.Commit(t.Context(), big), codes.ResourceExhausted, sqlstore.ReasonFull)
	}
	limit(1 << 20)
	if err := db.Commit(t.Context(), big); err != nil {
		t.Fatal(err)
	}
	if n := count(t, db); n != 1 {
		t.Errorf("%d rows", n)
	}
}

func TestOpenSaysWhatIsInTheWay(t *testing.T) {
	dir := t.TempDir()
	_, err := sqlstore.Open(t.Context(), filepath.Join(dir, "missing", "db"), v1)
	wantReason(t, err, codes.FailedPrecondition, sqlstore.ReasonFailed)
	bad := fstest.MapFS{"0001_bad.sql": migration("CREATE TABEL x(y);")}
	if _, err = sqlstore.Open(t.Context(), filepath.Join(dir, "bad"), bad); err == nil {
		t.Error("a broken migration was accepted")
	}
}
