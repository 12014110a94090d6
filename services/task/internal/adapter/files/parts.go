package files

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/app/provider"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// touchParts keeps the order of use across restarts without a write for each use.
const touchParts = time.Minute

// Parts implements provider.Parts: a bounded folder of files, each named by who may ask for it. Nothing is synced: what a crash
// tears is found by its hash before it is used, and fetched again.
type Parts struct {
	dir string
	max int64 // bytes

	mu    sync.Mutex
	bytes int64
	files map[string]*partEntry
}

type partEntry struct {
	size    int64
	used    time.Time
	touched time.Time
	users   int
	checked bool // it is what its hash says; the file is read-only since
}

var _ provider.Parts = (*Parts)(nil)

// NewParts keeps at most max bytes in dir, and what is in use.
func NewParts(dir string, max int64) (*Parts, error) {
	if err := makeDir(dir); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, named(err, "read the directory", dir)
	}
	c := &Parts{dir: dir, max: max, files: make(map[string]*partEntry)}
	for _, f := range entries {
		info, err := f.Info()
		if err != nil || !isPartName(f.Name()) || !info.Mode().IsRegular() {
			_ = os.RemoveAll(filepath.Join(dir, f.Name())) // what a crash left
			continue
		}
		c.files[f.Name()] = &partEntry{size: info.Size(), used: info.ModTime(), touched: info.ModTime()}
		c.bytes += info.Size()
	}
	c.evict()
	return c, nil
}

func isPartName(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == sha256.Size && strings.ToLower(s) == s
}

func (c *Parts) path(name string) string { return filepath.Join(c.dir, name) }

// Find implements provider.Parts.
func (c *Parts) Find(name string, p domain.Part) (string, func(), error) {
	c.mu.Lock()
	e := c.files[name]
	if e == nil || e.size != p.Size {
		c.mu.Unlock()
		return "", nil, app.ErrNotFound
	}
	e.users++
	e.used = time.Now()
	touch := e.used.Sub(e.touched) > touchParts
	if touch {
		e.touched = e.used
	}
	checked, used := e.checked, e.used
	c.mu.Unlock()
	release := sync.OnceFunc(func() { c.release(e) })
	if touch {
		_ = os.Chtimes(c.path(name), used, used)
	}
	if !checked && !hasHash(c.path(name), p.SHA256) {
		c.drop(name, e)
		release()
		return "", nil, app.ErrNotFound
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	e.checked = true
	return c.path(name), release, nil
}

func hasHash(path string, want domain.Hash) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	h := sha256.New()
	_, err = io.Copy(h, f)
	return err == nil && domain.Hash(h.Sum(nil)) == want
}

func (c *Parts) release(e *partEntry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e.users--
	c.evict()
}

func (c *Parts) drop(name string, e *partEntry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.files[name] == e {
		delete(c.files, name)
		c.bytes -= e.size
		_ = os.Remove(c.path(name))
	}
}

// evict removes what was not used longest, but nothing that is in use. The lock is held, or not needed yet.
func (c *Parts) evict() {
	if c.bytes <= c.max {
		return
	}
	names := make([]string, 0, len(c.files))
	for n, e := range c.files {
		if e.users == 0 {
			names = append(names, n)
		}
	}
	slices.SortFunc(names, func(a, b string) int { return c.files[a].used.Compare(c.files[b].used) })
	for _, n := range names {
		if c.bytes <= c.max {
			return
		}
		c.bytes -= c.files[n].size
		delete(c.files, n)
		_ = os.Remove(c.path(n))
	}
}

// Create implements provider.Parts.
func (c *Parts) Create() (provider.PartFile, error) {
	f, err := os.CreateTemp(c.dir, temporary+"*") // 0600
	if err != nil {
		return nil, named(err, "make a file in", c.dir)
	}
	return &partFile{c: c, pending: pending{f: f, w: bufio.NewWriterSize(f, 64<<10)}}, nil
}

type partFile struct {
	pending
	c    *Parts
	size int64
}

func (p *partFile) Write(b []byte) (int, error) {
	n, err := p.pending.Write(b)
	p.size += int64(n)
	return n, err
}

// Keep implements provider.PartFile.
func (p *partFile) Keep(name string) (string, func(), error) {
	if !isPartName(name) {
		return "", nil, errors.New("a part is kept under a hash in hexadecimal")
	}
	err := errors.Join(p.w.Flush(), p.f.Chmod(0o400))
	err = errors.Join(err, p.f.Close())
	path := p.c.path(name)
	if err != nil {
		_ = os.Remove(p.f.Name())
		p.done = true
		return "", nil, named(err, "write", path)
	}
	p.c.mu.Lock()
	defer p.c.mu.Unlock()
	if err := os.Rename(p.f.Name(), path); err != nil {
		return "", nil, named(err, "write", path)
	}
	p.done = true
	if old := p.c.files[name]; old != nil { // who uses it has its file open, or a link
		p.c.bytes -= old.size
	}
	now := time.Now()
	e := &partEntry{size: p.size, used: now, touched: now, users: 1, checked: true}
	p.c.files[name] = e
	p.c.bytes += p.size
	p.c.evict()
	return path, sync.OnceFunc(func() { p.c.release(e) }), nil
}
