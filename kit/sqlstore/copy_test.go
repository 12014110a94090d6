package sqlstore_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/sqlstore"
)

var pairs = fstest.MapFS{"00001_pairs.sql": {Data: []byte("-- +goose Up\nCREATE TABLE a (n INTEGER PRIMARY KEY);\nCREATE TABLE b (n INTEGER PRIMARY KEY);\n")}}

// While somebody writes, copies are taken: each has what was committed before it began, and of each transaction all or nothing.
func TestCopyOfAStoreInUse(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "x.db")
	db, err := sqlstore.Open(t.Context(), path, pairs)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var mu sync.Mutex
	written := 0
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() {
		for n := 1; ; n++ {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			if err := db.Commit(t.Context(), func(tx *sqlstore.Tx) error {
				_, err := tx.Exec("INSERT INTO a VALUES (?)", n)
				if err == nil {
					_, err = tx.Exec("INSERT INTO b VALUES (?)", n)
				}
				return err
			}); err != nil {
				done <- err
				return
			}
			mu.Lock()
			written = n
			mu.Unlock()
		}
	}()
	for i := range 10 {
		mu.Lock()
		least := written
		mu.Unlock()
		to := filepath.Join(dir, "copy"+string(rune('0'+i)))
		if err := sqlstore.Copy(t.Context(), path, to); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(to); err != nil || info.Mode().Perm() != 0o600 {
			t.Fatalf("the copy is %v, %v", info, err)
		}
		if is, err := sqlstore.IsStore(to); !is || err != nil {
			t.Fatalf("the copy is taken for something else: %v", err)
		}
		got, err := sqlstore.Open(t.Context(), to, pairs)
		if err != nil {
			t.Fatal(err)
		}
		var a, b int
		if err := got.Read().QueryRow("SELECT (SELECT count(*) FROM a), (SELECT count(*) FROM b)").Scan(&a, &b); err != nil {
			t.Fatal(err)
		}
		if a != b || a < least {
			t.Errorf("the copy has %d and %d rows, and %d were there", a, b, least)
		}
		if err := got.Close(); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestCopyRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	bad := filepath.Join(dir, "bad.db")
	if err := os.WriteFile(bad, []byte("SQLite format 3\x00"+strings.Repeat("nonsense", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(dir, "to")
	err := sqlstore.Copy(t.Context(), bad, to)
	var f *fault.Error
	if !errors.As(err, &f) || f.Reason != sqlstore.ReasonCorrupt || !strings.Contains(err.Error(), bad) {
		t.Errorf("a damaged store: %v", err)
	}
	if _, err := os.Stat(to); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("something of the copy is there: %v", err)
	}
	if err := sqlstore.Copy(t.Context(), filepath.Join(dir, "none"), to); err == nil || !strings.Contains(err.Error(), "none") {
		t.Errorf("a store that is not there: %v", err)
	}
	if err := os.WriteFile(to, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := sqlstore.Copy(t.Context(), bad, to); !errors.Is(err, os.ErrExist) {
		t.Errorf("a file that is there: %v", err)
	}
	if is, err := sqlstore.IsStore(to); is || err != nil {
		t.Errorf("four bytes are a store: %v, %v", is, err)
	}
}
