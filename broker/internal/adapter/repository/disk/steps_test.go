package disk

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/syndtr/goleveldb/leveldb/storage"

	app "github.com/shallot-net/shallot/broker/internal/app/content"
	"github.com/shallot-net/shallot/broker/internal/domain/content"
)

var errDead = errors.New("the process is dead")

// steps counts what changes the disk, and lets so many happen: what comes after does not, as if the process had been killed. The
// last one that happens is cut short where it is a write.
type steps struct{ left atomic.Int64 }

func (s *steps) next() (last bool, err error) {
	switch n := s.left.Add(-1); {
	case n < 0:
		return false, errDead
	default:
		return n == 0, nil
	}
}

func (s *steps) do(f func() error) error {
	if _, err := s.next(); err != nil {
		return err
	}
	return f()
}

func (s *steps) write(b []byte, f func([]byte) (int, error)) (int, error) {
	last, err := s.next()
	if err != nil {
		return 0, err
	}
	if last {
		n, _ := f(b[:len(b)/2])
		return n, errDead
	}
	return f(b)
}

type steppedFS struct {
	osFS
	*steps
}

type steppedFile struct {
	File
	*steps
}

func (f steppedFS) open(file File, err error) (File, error) {
	if err != nil {
		return nil, err
	}
	return steppedFile{file, f.steps}, nil
}

func (f steppedFS) Create(path string) (File, error) {
	if _, err := f.next(); err != nil {
		return nil, err
	}
	return f.open(f.osFS.Create(path))
}
func (f steppedFS) OpenAppend(path string) (File, error) { return f.open(f.osFS.OpenAppend(path)) }
func (f steppedFS) Remove(path string) error {
	return f.do(func() error { return f.osFS.Remove(path) })
}
func (f steppedFS) SyncDir(path string) error {
	return f.do(func() error { return f.osFS.SyncDir(path) })
}

func (f steppedFile) WriteAt(b []byte, off int64) (int, error) {
	return f.write(b, func(b []byte) (int, error) { return f.File.WriteAt(b, off) })
}
func (f steppedFile) Datasync() error { return f.do(f.File.Datasync) }
func (f steppedFile) Truncate(n int64) error {
	return f.do(func() error { return f.File.Truncate(n) })
}

type steppedIndex struct {
	storage.Storage
	*steps
}

type steppedWriter struct {
	storage.Writer
	*steps
}

func (i steppedIndex) Create(fd storage.FileDesc) (storage.Writer, error) {
	if _, err := i.next(); err != nil {
		return nil, err
	}
	w, err := i.Storage.Create(fd)
	return steppedWriter{w, i.steps}, err
}
func (i steppedIndex) Remove(fd storage.FileDesc) error {
	return i.do(func() error { return i.Storage.Remove(fd) })
}
func (i steppedIndex) Rename(a, b storage.FileDesc) error {
	return i.do(func() error { return i.Storage.Rename(a, b) })
}
func (i steppedIndex) SetMeta(fd storage.FileDesc) error {
	return i.do(func() error { return i.Storage.SetMeta(fd) })
}
func (w steppedWriter) Write(b []byte) (int, error) { return w.write(b, w.Writer.Write) }
func (w steppedWriter) Sync() error                 { return w.do(w.Writer.Sync) }

// laidOut fills a store: of 40 blocks every third is pinned, and the last four are what a transfer that was cut off has fetched.
func laidOut(t *testing.T, dir string) (pinned, young []uint64) {
	t.Helper()
	s := open(t, dir, func(c *Config) { c.PackSize = 128 << 10 })
	for n := range uint64(40) {
		c := app.Change{Blocks: []app.Block{numbered(n)}}
		if n%3 == 0 {
			c.Pins = []content.Pin{{CID: strconv.FormatUint(n, 10), Owner: "w"}}
			pinned = append(pinned, n)
		}
		if err := s.Commit(c); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return pinned, []uint64{100, 101, 102, 103}
}

// A collection that is killed between any two of its steps has taken nothing that is pinned and nothing of what is being written; and
// the next one ends its work.
func TestCollectionKilledAtEveryStep(t *testing.T) {
	master := t.TempDir()
	pinned, young := laidOut(t, master)
	killed := 0
	for at := int64(1); ; at++ {
		dir := t.TempDir()
		if err := os.CopyFS(dir, os.DirFS(master)); err != nil {
			t.Fatal(err)
		}
		died := collectAndDie(t, dir, at, young)
		s := open(t, dir)
		for _, n := range append(append([]uint64(nil), pinned...), young...) {
			if _, err := s.Get(numbered(n).Key); err != nil {
				t.Fatalf("killed at step %d, block %d: %v", at, n, err)
			}
		}
		col := app.NewCollector(app.CollectorConfig{Store: s, Links: links, Now: time.Now})
		swept, err := col.CollectAll(t.Context())
		if err != nil || swept.Kept != int64(len(pinned)) {
			t.Fatalf("killed at step %d, the next one: %+v, %v", at, swept, err)
		}
		for _, n := range pinned {
			if _, err := s.Get(numbered(n).Key); err != nil {
				t.Fatalf("killed at step %d, block %d after the next one: %v", at, n, err)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if !died {
			break
		}
		killed++
	}
	if killed < 10 {
		t.Errorf("it has only %d steps", killed)
	}
	t.Logf("killed at %d steps", killed)
}

// collectAndDie collects everything while a transfer holds what it has written, and dies at a step.
func collectAndDie(t *testing.T, dir string, at int64, young []uint64) (died bool) {
	t.Helper()
	s := &steps{}
	s.left.Store(1 << 40)
	store, err := Open(Config{Dir: dir, PackSize: 128 << 10, FS: steppedFS{steps: s},
		wrapIndex: func(st storage.Storage) storage.Storage { return steppedIndex{st, s} }})
	if err != nil {
		t.Fatal(err)
	}
	release := store.Hold()
	defer release()
	for _, n := range young {
		if err := store.Commit(app.Change{Blocks: []app.Block{numbered(n)}}); err != nil {
			t.Fatal(err)
		}
	}
	s.left.Store(at)
	col := app.NewCollector(app.CollectorConfig{Store: store, Links: links, Now: time.Now})
	swept, err := col.CollectAll(t.Context())
	died = s.left.Load() <= 0
	if err != nil && !died {
		t.Fatal(fmt.Errorf("it failed alive: %w", err))
	}
	if !died && swept.Moved == 0 {
		t.Error("a collection that moves nothing tests little")
	}
	s.left.Store(0)
	_ = store.Close() // nothing of it reaches the disk
	return died
}
