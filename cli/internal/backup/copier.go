package backup

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shallot-net/shallot/kit/fault"
)

// Progress is told what is done; total is 0 while it is not known.
type Progress func(what string, done, total uint64)

// copier writes files into a directory and remembers what it wrote.
type copier struct {
	ctx   context.Context
	dir   string
	files map[string]File // by path
	tell  Progress
	what  string
	done  uint64
	total uint64
}

func newCopier(ctx context.Context, dir string, tell Progress) *copier {
	if tell == nil {
		tell = func(string, uint64, uint64) {}
	}
	return &copier{ctx: ctx, dir: dir, files: make(map[string]File), tell: tell}
}

func (c *copier) path(rel string) string { return filepath.Join(c.dir, filepath.FromSlash(rel)) }

// make opens a new file of the archive, 0600.
func (c *copier) make(rel string) (*os.File, error) {
	full := c.path(rel)
	if err := os.MkdirAll(filepath.Dir(full), 0o700); err != nil {
		return nil, c.failed(full, err)
	}
	f, err := os.OpenFile(full, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, c.failed(full, err)
	}
	return f, nil
}

// put copies at most limit bytes of a reader into the archive's file rel, syncs it, and remembers its sum. A limit below zero is none.
func (c *copier) put(rel string, from io.Reader, limit int64, modified time.Time) error {
	if limit >= 0 {
		from = io.LimitReader(from, limit)
	}
	return c.write(rel, modified, func(to io.Writer) error {
		_, err := io.CopyBuffer(to, reader{from}, make([]byte, 256<<10))
		return err
	})
}

// write is put for those who make the bytes themselves.
func (c *copier) write(rel string, modified time.Time, fill func(io.Writer) error) (err error) {
	f, err := c.make(rel)
	if err != nil {
		return err
	}
	defer func() {
		if f != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	w := &summer{c: c, f: f}
	if err := fill(w); err != nil {
		if w.err != nil {
			return c.failed(f.Name(), w.err)
		}
		return err
	}
	err = f.Sync()
	if err == nil {
		err, f = f.Close(), nil
	}
	full := c.path(rel)
	if err == nil {
		err = os.Chtimes(full, modified, modified) // some have their age as a meaning
	}
	if err != nil {
		return c.failed(full, err)
	}
	c.files[rel] = File{Path: rel, Size: w.size, SHA256: w.sum(), Modified: modified.UTC().Round(0)}
	return nil
}

// failed says what the file system of the archive refuses.
func (c *copier) failed(path string, err error) error {
	if full(err) {
		return fault.ResourceExhausted("BACKUP_FULL", "no space left to write %s: free some on its file system, or take another one", path).Because(reason(err))
	}
	return unusable(path, "write", err)
}

// reader hides what else a reader can do, so that all goes through the buffer and is counted.
type reader struct{ io.Reader }

// summer counts and sums what goes into a file.
type summer struct {
	c    *copier
	f    *os.File
	h    hasher
	size int64
	err  error // of writing
}

func (s *summer) Write(b []byte) (int, error) {
	if err := s.c.ctx.Err(); err != nil {
		return 0, fault.From(context.Cause(s.c.ctx))
	}
	n, err := s.f.Write(b)
	s.h.add(b[:n])
	s.size += int64(n)
	s.c.done += uint64(n)
	s.c.tell(s.c.what, s.c.done, s.c.total)
	if err != nil {
		s.err = err
	}
	return n, err
}

func (s *summer) sum() string { return s.h.sum() }

// list is what was written.
func (c *copier) list() []File {
	out := make([]File, 0, len(c.files))
	for _, f := range c.files {
		out = append(out, f)
	}
	return out
}

// sumOf reads a file that is there already, such as one that SQLite made.
func (c *copier) sumOf(rel string, modified time.Time) error {
	full := c.path(rel)
	f, err := os.OpenFile(full, os.O_RDWR, 0)
	if err != nil {
		return c.failed(full, err)
	}
	defer f.Close()
	sum, size, err := c.read(f)
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = os.Chtimes(full, modified, modified)
	}
	if err != nil {
		return c.failed(full, err)
	}
	c.files[rel] = File{Path: rel, Size: size, SHA256: sum, Modified: modified.UTC().Round(0)}
	return nil
}

// read sums a reader.
func (c *copier) read(from io.Reader) (sum string, size int64, err error) {
	var h hasher
	buf := make([]byte, 256<<10)
	for {
		if err := c.ctx.Err(); err != nil {
			return "", 0, fault.From(context.Cause(c.ctx))
		}
		n, err := from.Read(buf)
		h.add(buf[:n])
		size += int64(n)
		c.done += uint64(n)
		c.tell(c.what, c.done, c.total)
		if errors.Is(err, io.EOF) {
			return h.sum(), size, nil
		}
		if err != nil {
			return "", 0, err
		}
	}
}

// syncFolders makes the names of what was written durable.
func (c *copier) syncFolders() error {
	folders := map[string]bool{c.dir: true}
	for rel := range c.files {
		for d := filepath.Dir(c.path(rel)); len(d) > len(c.dir); d = filepath.Dir(d) {
			folders[d] = true
		}
	}
	for d := range folders {
		if err := syncFolder(d); err != nil {
			return c.failed(d, err)
		}
	}
	return nil
}

func syncFolder(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

func gone(err error) bool { return errors.Is(err, fs.ErrNotExist) }

// hasher is a SHA-256 whose zero value is usable.
type hasher struct {
	h interface {
		io.Writer
		Sum([]byte) []byte
	}
}

func (h *hasher) add(b []byte) {
	if h.h == nil {
		h.h = sha256.New()
	}
	_, _ = h.h.Write(b) // never fails
}

func (h *hasher) sum() string {
	h.add(nil)
	return hex.EncodeToString(h.h.Sum(nil))
}
