package disk

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	app "github.com/shallot-net/shallot/broker/internal/app/content"
	"github.com/shallot-net/shallot/broker/internal/app/content/contenttest"
	"github.com/shallot-net/shallot/kit/logging"
)

func open(t testing.TB, dir string, edit ...func(*Config)) *Store {
	t.Helper()
	cfg := Config{Dir: dir, Log: logging.New(t.Output(), "debug", "text", "test"), PackSize: 1 << 20}
	for _, e := range edit {
		e(&cfg)
	}
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// What is stored is for its owner alone, also what LevelDB makes, and what an earlier version has made readable for all.
func TestFilesAreTheOwners(t *testing.T) {
	dir := t.TempDir()
	check := func(when string) {
		t.Helper()
		files := 0
		if err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			info, err := d.Info()
			if files++; err == nil && info.Mode().Perm()&0o077 != 0 {
				t.Errorf("%s: %s has mode %v", when, d.Name(), info.Mode())
			}
			return err
		}); err != nil || files < 4 {
			t.Errorf("%s: %d files, %v", when, files, err)
		}
	}
	s := open(t, dir)
	check("new")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			err = os.Chmod(path, 0o644)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	index := filepath.Join(dir, "index")
	st, err := openPrivate(index)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	dir = index
	check("of an earlier version")
}

// damage flips a bit in the middle of the block's bytes on disk.
func damage(t testing.TB, s *Store, key string) {
	t.Helper()
	s.mu.RLock()
	at, err := s.lookup(key)
	s.mu.RUnlock()
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(s.packs.path(at.pack), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 1)
	off := int64(at.off) + int64(at.size)/2
	if _, err := f.ReadAt(b, off); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 4
	if _, err := f.WriteAt(b, off); err != nil {
		t.Fatal(err)
	}
}

func TestConformance(t *testing.T) {
	contenttest.Run(t, contenttest.Harness{
		Open: func(t *testing.T) app.Store { return open(t, t.TempDir()) },
		Reopen: func(t *testing.T, s app.Store) app.Store {
			dir := s.(*Store).cfg.Dir
			if err := s.(*Store).Close(); err != nil {
				t.Fatal(err)
			}
			return open(t, dir)
		},
		Damage: func(t *testing.T, s app.Store, key string) { damage(t, s.(*Store), key) },
	})
}
