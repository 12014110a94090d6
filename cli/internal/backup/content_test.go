package backup_test

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/opt"

	"github.com/shallot-net/shallot/cli/internal/backup"
)

// writer does what a broker does with its repository: bytes into a pack, then an entry that says where; now and then what is in the oldest pack is written again and the pack
// removed. Each entry has the pack and the length that the pack must have.
type writer struct {
	dir     string
	db      *leveldb.DB
	written atomic.Int64
}

func newWriter(t *testing.T, dir string) *writer {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(dir, "packs"), 0o700); err != nil {
		t.Fatal(err)
	}
	db, err := leveldb.OpenFile(filepath.Join(dir, "index"), &opt.Options{WriteBuffer: 16 << 10, CompactionTableSize: 16 << 10, Compression: opt.NoCompression})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return &writer{dir: dir, db: db}
}

func (w *writer) pack(id uint32) string {
	return filepath.Join(w.dir, "packs", fmt.Sprintf("%08x.pack", id))
}

func entry(n int64) []byte { return fmt.Appendf(nil, "b%012d", n) }

func place(pack uint32, end int64) []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32(nil, pack), uint64(end))
}

const perPack = 200

func (w *writer) run(stop <-chan struct{}) error {
	pack, size := uint32(1), int64(0)
	f, err := os.OpenFile(w.pack(pack), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { f.Close() }()
	for n := int64(1); ; n++ {
		select {
		case <-stop:
			return nil
		default:
		}
		if _, err := f.Write(make([]byte, 100)); err != nil {
			return err
		}
		size += 100
		if err := w.db.Put(entry(n), place(pack, size), nil); err != nil {
			return err
		}
		w.written.Store(n)
		if n%perPack != 0 {
			continue
		}
		// The next pack begins, and what was in the one before the last moves into it.
		f.Close()
		pack, size = pack+1, 0
		if f, err = os.OpenFile(w.pack(pack), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err != nil {
			return err
		}
		if old := pack - 2; old > 0 && old%2 == 0 {
			if size, err = w.collect(f, old, pack); err != nil {
				return err
			}
		}
	}
}

func (w *writer) collect(f *os.File, old, to uint32) (size int64, err error) {
	it := w.db.NewIterator(nil, nil)
	batch := new(leveldb.Batch)
	for it.Next() {
		if binary.BigEndian.Uint32(it.Value()) == old {
			size += 100
			batch.Put(it.Key(), place(to, size))
		}
	}
	it.Release()
	if _, err := f.Write(make([]byte, size)); err != nil {
		return 0, err
	}
	if err := w.db.Write(batch, nil); err != nil {
		return 0, err
	}
	return size, os.Remove(w.pack(old))
}

// Copies are taken while content is written, moved and collected: each has an index that opens, has all that was there when it began, and whose every entry is in a pack.
func TestContentIsCopiedWhileItChanges(t *testing.T) {
	t.Parallel()
	h := node(t)
	if err := os.RemoveAll(filepath.Join(h.Dir, "state/broker/repository")); err != nil {
		t.Fatal(err)
	}
	w := newWriter(t, filepath.Join(h.Dir, "state/broker/repository"))
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- w.run(stop) }()
	for range 8 {
		least := w.written.Load()
		dir := filepath.Join(t.TempDir(), "b")
		_, err := backup.Create(t.Context(), backup.Source{Home: h, Now: time.Now}, dir)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := backup.Check(t.Context(), dir, nil); err != nil {
			t.Fatal(err)
		}
		checkContent(t, filepath.Join(dir, "home/state/broker/repository"), least)
	}
	close(stop)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// A collection moves everything into a new pack and removes the old one, at each moment between two steps of the copy; and once all is opened, whatever is removed is copied all the same.
func TestContentIsCollectedBetweenSteps(t *testing.T) {
	t.Parallel()
	for moment := 1; moment <= 4; moment++ {
		h := node(t)
		dir := filepath.Join(h.Dir, "state/broker/repository")
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		w := newWriter(t, dir)
		if err := os.WriteFile(w.pack(1), make([]byte, 1000), 0o600); err != nil {
			t.Fatal(err)
		}
		for n := int64(1); n <= 10; n++ {
			if err := w.db.Put(entry(n), place(1, 100*n), nil); err != nil {
				t.Fatal(err)
			}
		}
		calls := 0
		collect := func(what string, _, _ uint64) {
			if what != "content" {
				return
			}
			if calls++; calls != moment {
				return
			}
			f, err := os.OpenFile(w.pack(2), os.O_CREATE|os.O_WRONLY, 0o600)
			if err != nil {
				t.Error(err)
				return
			}
			defer f.Close()
			if _, err := w.collect(f, 1, 2); err != nil {
				t.Error(err)
			}
		}
		to := filepath.Join(t.TempDir(), "b")
		if _, err := backup.Create(t.Context(), backup.Source{Home: h, Now: time.Now, Progress: collect}, to); err != nil {
			t.Fatal(err)
		}
		if calls < moment {
			t.Fatalf("there were only %d moments", calls)
		}
		checkContent(t, filepath.Join(to, "home/state/broker/repository"), 10)
	}
}

func checkContent(t *testing.T, dir string, least int64) {
	t.Helper()
	db, err := leveldb.OpenFile(filepath.Join(dir, "index"), &opt.Options{ErrorIfMissing: true, Strict: opt.DefaultStrict, Compression: opt.NoCompression})
	if err != nil {
		t.Fatalf("the index: %v", err)
	}
	defer db.Close()
	sizes := map[uint32]int64{}
	it := db.NewIterator(nil, nil)
	defer it.Release()
	n := int64(0)
	for it.Next() {
		if n++; string(it.Key()) != string(entry(n)) {
			t.Fatalf("entry %d is %s", n, it.Key())
		}
		pack, end := binary.BigEndian.Uint32(it.Value()), int64(binary.BigEndian.Uint64(it.Value()[4:]))
		if _, known := sizes[pack]; !known {
			info, err := os.Stat(filepath.Join(dir, "packs", fmt.Sprintf("%08x.pack", pack)))
			if err != nil {
				t.Fatalf("entry %d: %v", n, err)
			}
			sizes[pack] = info.Size()
		}
		if end > sizes[pack] {
			t.Fatalf("entry %d ends at %d of %d bytes of pack %d", n, end, sizes[pack], pack)
		}
	}
	if err := it.Error(); err != nil {
		t.Fatal(err)
	}
	if n < least {
		t.Errorf("the copy has %d entries, and %d were there", n, least)
	}
	t.Logf("%d entries, %d when it began", n, least)
}

// A result is kept just before the store is copied, and another one is let go just after: what the copied rows name is in the backup both times.
func TestFilesFitTheirStore(t *testing.T) {
	t.Parallel()
	h := node(t)
	results := filepath.Join(h.Dir, "state/task/results")
	db := openDB(t, filepath.Join(h.Dir, "state/task/task.db"))
	do := func(file func() error, query string) {
		if err := file(); err != nil {
			t.Error(err)
		}
		if _, err := db.Exec(query); err != nil {
			t.Error(err)
		}
	}
	do(func() error { return os.WriteFile(filepath.Join(results, "old"), []byte("old"), 0o600) }, `INSERT INTO tasks VALUES ('old')`)
	calls := 0
	change := func(what string, _, _ uint64) {
		if what != "stores" {
			return
		}
		switch calls++; calls {
		case 1: // before SQLite copies
			do(func() error { return os.WriteFile(filepath.Join(results, "new"), []byte("new"), 0o600) }, `INSERT INTO tasks VALUES ('new')`)
		case 2: // the copy is there, and is summed
			do(func() error { return os.Remove(filepath.Join(results, "old")) }, `DELETE FROM tasks WHERE id = 'old'`)
		}
	}
	dir := filepath.Join(t.TempDir(), "b")
	if _, err := backup.Create(t.Context(), backup.Source{Home: h, Now: time.Now, Progress: change}, dir); err != nil {
		t.Fatal(err)
	}
	if _, err := backup.Check(t.Context(), dir, nil); err != nil || calls < 2 {
		t.Fatalf("%d calls, %v", calls, err)
	}
	for _, name := range []string{"old", "new"} {
		var n int
		if err := openDB(t, filepath.Join(dir, "home/state/task/task.db")).QueryRow(`SELECT count(*) FROM tasks WHERE id = ?`, name).Scan(&n); err != nil || n != 1 {
			t.Errorf("%s has %d rows, %v", name, n, err)
		}
		if b, err := os.ReadFile(filepath.Join(dir, "home/state/task/results", name)); err != nil || string(b) != name {
			t.Errorf("the file of %s is %q, %v", name, b, err)
		}
	}
}
