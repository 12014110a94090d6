package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	app "github.com/shallot-net/shallot/broker/internal/app/content"
	"github.com/shallot-net/shallot/broker/internal/app/content/contenttest"
	"github.com/shallot-net/shallot/broker/internal/domain/content"
)

// faultyFS is the operating system's, with a disk that fills and syncs that fail.
type faultyFS struct {
	osFS
	left      atomic.Int64 // bytes that may still be written
	free      atomic.Int64 // what Free says
	failSyncs atomic.Int64
	short     atomic.Bool // a write that does not fit is cut short
}

func newFaultyFS() *faultyFS {
	f := &faultyFS{}
	f.left.Store(1 << 40)
	f.free.Store(1 << 40)
	return f
}

func (f *faultyFS) Free(string) (uint64, error) { return uint64(f.free.Load()), nil }

func (f *faultyFS) wrap(file File, err error) (File, error) {
	if err != nil {
		return nil, err
	}
	return &faultyFile{file, f}, nil
}

func (f *faultyFS) Create(path string) (File, error)     { return f.wrap(f.osFS.Create(path)) }
func (f *faultyFS) OpenAppend(path string) (File, error) { return f.wrap(f.osFS.OpenAppend(path)) }

type faultyFile struct {
	File
	fs *faultyFS
}

func (f *faultyFile) WriteAt(b []byte, off int64) (int, error) {
	left := f.fs.left.Add(-int64(len(b)))
	if left >= 0 {
		return f.File.WriteAt(b, off)
	}
	f.fs.left.Add(int64(len(b)))
	n := 0
	if f.fs.short.Load() {
		n, _ = f.File.WriteAt(b[:len(b)/2], off)
	}
	return n, &fs.PathError{Op: "write", Path: "pack", Err: syscall.ENOSPC}
}

func (f *faultyFile) Datasync() error {
	if f.fs.failSyncs.Add(-1) >= 0 {
		return syscall.EIO
	}
	return f.File.Datasync()
}

func TestDiskFull(t *testing.T) {
	for _, short := range []bool{false, true} {
		t.Run(fmt.Sprint("short=", short), func(t *testing.T) {
			disk := newFaultyFS()
			disk.short.Store(short)
			dir := t.TempDir()
			s := open(t, dir, func(c *Config) { c.FS = disk })
			before := contenttest.Data(1, 500<<10)
			if err := s.Commit(app.Change{Blocks: []app.Block{contenttest.Block(before)}, Durable: true}); err != nil {
				t.Fatal(err)
			}
			disk.left.Store(100 << 10)
			small, large := contenttest.Data(2, 1000), contenttest.Data(3, 500<<10)
			c := app.Change{Blocks: []app.Block{contenttest.Block(small), contenttest.Block(large)}, Pins: []content.Pin{{CID: "a", Owner: "x"}}, Durable: true}
			var full *content.FullError
			if err := s.Commit(c); !errors.As(err, &full) || full.Path != dir {
				t.Fatalf("a full disk: %v", err)
			}
			for _, d := range [][]byte{small, large} {
				if _, err := s.Get(contenttest.Key(d)); !errors.Is(err, content.ErrNotFound) {
					t.Errorf("half of it is there: %v", err)
				}
			}
			if pins, _, _ := s.Pins("", "", "", 10); len(pins) != 0 {
				t.Errorf("the pin is there: %v", pins)
			}
			check := func() {
				t.Helper()
				if _, err := s.Get(contenttest.Key(before)); err != nil {
					t.Errorf("what was good: %v", err)
				}
			}
			check()
			disk.left.Store(1 << 40)
			if err := s.Commit(c); err != nil {
				t.Fatalf("there is space again: %v", err)
			}
			check()
			s = reopen(t, s)
			check()
			if _, err := s.Get(contenttest.Key(large)); err != nil {
				t.Error(err)
			}
		})
	}
}

func reopen(t *testing.T, s *Store) *Store {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return open(t, s.cfg.Dir)
}

// The last of the disk is left to the index and to others; and what makes space is possible without any.
func TestReserve(t *testing.T) {
	disk := newFaultyFS()
	s := open(t, t.TempDir(), func(c *Config) { c.FS = disk; c.Reserve = 10 << 20 })
	d := contenttest.Block(contenttest.Data(1, 1000))
	if err := s.Commit(app.Change{Blocks: []app.Block{d}, Pins: []content.Pin{{CID: "a", Owner: "x"}}}); err != nil {
		t.Fatal(err)
	}
	disk.free.Store(10<<20 - 1)
	s.room.forget()
	var full *content.FullError
	if err := s.Commit(app.Change{Blocks: []app.Block{contenttest.Block(contenttest.Data(2, 1000))}}); !errors.As(err, &full) {
		t.Fatalf("the reserve is written to: %v", err)
	}
	if err := s.Commit(app.Change{Unpins: []content.Pin{{CID: "a", Owner: "x"}}}); err != nil {
		t.Fatalf("unpinning must be possible: %v", err)
	}
	cutoff, err := s.Advance()
	if err != nil {
		t.Fatal(err)
	}
	if done, err := s.Sweep(t.Context(), cutoff, func(string) bool { return false }, false); err != nil || done.Blocks != 1 {
		t.Fatalf("collecting must be possible: %+v, %v", done, err)
	}
}

func TestSyncFails(t *testing.T) {
	disk := newFaultyFS()
	s := open(t, t.TempDir(), func(c *Config) { c.FS = disk })
	d := contenttest.Data(1, 1000)
	disk.failSyncs.Store(1)
	c := app.Change{Blocks: []app.Block{contenttest.Block(d)}, Durable: true}
	if err := s.Commit(c); !errors.Is(err, syscall.EIO) {
		t.Fatalf("a failed sync is reported as done: %v", err)
	}
	if _, err := s.Get(contenttest.Key(d)); !errors.Is(err, content.ErrNotFound) {
		t.Fatalf("it is visible although it is not durable: %v", err)
	}
	if err := s.Commit(c); err != nil {
		t.Fatal(err)
	}
}

func TestSecondProcess(t *testing.T) {
	s := open(t, t.TempDir())
	_, err := Open(Config{Dir: s.cfg.Dir})
	if err == nil || !strings.Contains(err.Error(), s.cfg.Dir) || !strings.Contains(err.Error(), "in use") {
		t.Fatalf("a second one: %v", err)
	}
	var torn *content.TornError
	if errors.As(err, &torn) {
		t.Fatal("a store in use is not a damaged one")
	}
}

func TestTornStore(t *testing.T) {
	find := func(t *testing.T, dir, pattern string) string {
		t.Helper()
		found, err := filepath.Glob(filepath.Join(dir, "index", pattern))
		if err != nil || len(found) == 0 {
			t.Fatalf("no %s: %v", pattern, err)
		}
		return found[len(found)-1]
	}
	write := func(t *testing.T, path string, b []byte) {
		t.Helper()
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, tear := range map[string]func(t *testing.T, dir string){
		"no index":          func(t *testing.T, dir string) { _ = os.RemoveAll(filepath.Join(dir, "index")) },
		"manifest cut":      func(t *testing.T, dir string) { _ = os.Truncate(find(t, dir, "MANIFEST-*"), 3) },
		"manifest garbage":  func(t *testing.T, dir string) { write(t, find(t, dir, "MANIFEST-*"), contenttest.Data(1, 500)) },
		"current garbage":   func(t *testing.T, dir string) { write(t, find(t, dir, "CURRENT"), []byte("nonsense")) },
		"current elsewhere": func(t *testing.T, dir string) { write(t, find(t, dir, "CURRENT"), []byte("MANIFEST-999999\n")) },
		"table gone":        func(t *testing.T, dir string) { _ = os.Remove(find(t, dir, "*.ldb")) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, dir)
			for i := range 3 { // opening again makes tables of journals
				if err := s.Commit(app.Change{Blocks: []app.Block{contenttest.Block(contenttest.Data(uint64(i), 1000))}, Durable: true}); err != nil {
					t.Fatal(err)
				}
				s = reopen(t, s)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			tear(t, dir)
			_, err := Open(Config{Dir: dir})
			var torn *content.TornError
			if !errors.As(err, &torn) || !strings.Contains(err.Error(), filepath.Join(dir, "index")) {
				t.Fatalf("opened a torn store: %v", err)
			}
		})
	}
}

// What a power cut does to bytes that were never synced: the index has the place, the pack does not have the record.
func TestLostUnsyncedBytes(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	safe, lost, zeroed := contenttest.Data(1, 1000), contenttest.Data(2, 1000), contenttest.Data(3, 1000)
	for i, d := range [][]byte{safe, zeroed, lost} {
		if err := s.Commit(app.Change{Blocks: []app.Block{contenttest.Block(d)}, Durable: i == 0}); err != nil {
			t.Fatal(err)
		}
	}
	at, err := s.lookup(contenttest.Key(zeroed))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	path := s.packs.path(at.pack)
	end := int64(at.off + at.size)
	if err := os.Truncate(path, end-int64(at.size)-50); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, end); err != nil { // zeros
		t.Fatal(err)
	}
	s = open(t, dir)
	for _, d := range [][]byte{lost, zeroed} {
		if _, err := s.Get(contenttest.Key(d)); !errors.Is(err, content.ErrNotFound) {
			t.Errorf("lost bytes: %v", err)
		}
	}
	for _, d := range [][]byte{safe, lost, zeroed} { // their owner puts them again
		if err := s.Commit(app.Change{Blocks: []app.Block{contenttest.Block(d)}}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Get(contenttest.Key(d)); err != nil {
			t.Error(err)
		}
	}
}

// A journal that refused a write takes no more until it is opened again; that happens by itself once there is space.
func TestIndexHeals(t *testing.T) {
	disk := newFaultyFS()
	s := open(t, t.TempDir(), func(c *Config) { c.FS = disk })
	d := contenttest.Block(contenttest.Data(1, 1000))
	if err := s.Commit(app.Change{Blocks: []app.Block{d}}); err != nil {
		t.Fatal(err)
	}
	s.broken = syscall.ENOSPC
	disk.free.Store(0)
	var full *content.FullError
	if err := s.Commit(app.Change{Pins: []content.Pin{{CID: "a", Owner: "x"}}}); !errors.As(err, &full) {
		t.Fatalf("no space, and yet: %v", err)
	}
	if _, err := s.Get(d.Key); err != nil {
		t.Fatalf("reading goes on: %v", err)
	}
	disk.free.Store(1 << 40)
	if err := s.Commit(app.Change{Pins: []content.Pin{{CID: "a", Owner: "x"}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(d.Key); err != nil || s.broken != nil {
		t.Fatal(err, s.broken)
	}
}

func TestPacksAreGivenBack(t *testing.T) {
	s := open(t, t.TempDir(), func(c *Config) { c.PackSize = 16 << 20 })
	var keep, drop []string
	for i := range 64 {
		b := contenttest.Block(contenttest.Data(uint64(i), 1<<20))
		if err := s.Commit(app.Change{Blocks: []app.Block{b}}); err != nil {
			t.Fatal(err)
		}
		if i < 48 && i%16 != 0 || i >= 60 {
			drop = append(drop, b.Key)
		} else {
			keep = append(keep, b.Key)
		}
	}
	used := s.Used()
	kept := make(map[string]bool)
	for _, k := range keep {
		kept[k] = true
	}
	cutoff, err := s.Advance()
	if err != nil {
		t.Fatal(err)
	}
	done, err := s.Sweep(t.Context(), cutoff, func(k string) bool { return kept[k] }, false)
	if err != nil {
		t.Fatal(err)
	}
	if done.Blocks != int64(len(drop)) || done.Moved != 3<<20 {
		t.Errorf("swept %+v", done)
	}
	if now := s.Used(); used-now < 40<<20 {
		t.Errorf("packs took %d MiB and take %d MiB", used>>20, now>>20)
	}
	s = reopen(t, s)
	for _, k := range keep {
		if _, err := s.Get(k); err != nil {
			t.Fatal(err)
		}
	}
}
