package files

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"maps"
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

const (
	// touchParts keeps the order of use across restarts without a write for each use.
	touchParts = time.Minute
	// maxPartNames bounds what knowing a part costs where its bytes are here already; past it an eighth of them goes, the least used first.
	maxPartNames = 16 << 10
)

// Parts implements provider.Parts: a bounded folder with one copy of each content, a file named by its hash, and an empty file for each name that has been
// shown to be of it, NAME.HASH. Nothing is synced: what a crash tears is found by its hash before it is used, and fetched again.
type Parts struct {
	dir      string
	max      int64 // bytes
	maxNames int

	mu     sync.Mutex
	bytes  int64 // of all copies
	copies map[domain.Hash]*partCopy
	names  map[string]*partName
}

type partCopy struct {
	hash    domain.Hash
	size    int64
	used    time.Time
	users   int
	checked bool // it is what its hash says; the file is read-only since
	names   map[string]*partName
}

type partName struct {
	name    string
	of      *partCopy
	used    time.Time
	touched time.Time
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
	c := &Parts{dir: dir, max: max, maxNames: maxPartNames, copies: make(map[domain.Hash]*partCopy), names: make(map[string]*partName)}
	var marks []os.FileInfo
	for _, f := range entries {
		info, err := f.Info()
		_, _, isMark := cutMark(f.Name())
		hash, isCopy := parseHash(f.Name())
		switch {
		case err == nil && info.Mode().IsRegular() && isMark:
			marks = append(marks, info)
		case err == nil && info.Mode().IsRegular() && isCopy:
			c.add(hash, info.Size())
		default:
			_ = os.RemoveAll(filepath.Join(dir, f.Name())) // what a crash left
		}
	}
	for _, info := range marks {
		name, hash, _ := cutMark(info.Name())
		if e := c.copies[hash]; e != nil {
			c.mark(name, e, info.ModTime())
		} else {
			_ = os.Remove(filepath.Join(dir, info.Name()))
		}
	}
	for _, e := range c.copies {
		if len(e.names) == 0 { // nobody can ask for it
			c.remove(e)
		}
	}
	c.evict()
	return c, nil
}

// parseHash reads a hash in lowercase hexadecimal, which is also the form of a part's name.
func parseHash(s string) (h domain.Hash, ok bool) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != sha256.Size || strings.ToLower(s) != s {
		return h, false
	}
	return domain.Hash(b), true
}

func cutMark(file string) (name string, hash domain.Hash, ok bool) {
	name, of, _ := strings.Cut(file, ".")
	hash, ok = parseHash(of)
	if _, named := parseHash(name); !named {
		ok = false
	}
	return name, hash, ok
}

func (c *Parts) path(h domain.Hash) string   { return filepath.Join(c.dir, h.String()) }
func (n *partName) file() string             { return n.name + "." + n.of.hash.String() }
func (c *Parts) markPath(n *partName) string { return filepath.Join(c.dir, n.file()) }

// The lock is held in what follows, or not needed yet.

func (c *Parts) add(h domain.Hash, size int64) *partCopy {
	e := &partCopy{hash: h, size: size, names: make(map[string]*partName)}
	c.copies[h] = e
	c.bytes += size
	return e
}

func (c *Parts) mark(name string, e *partCopy, at time.Time) *partName {
	n := &partName{name: name, of: e, used: at, touched: at}
	c.names[name], e.names[name] = n, n
	if e.used.Before(at) {
		e.used = at
	}
	return n
}

func (c *Parts) unmark(n *partName) {
	delete(c.names, n.name)
	delete(n.of.names, n.name)
	_ = os.Remove(c.markPath(n))
}

// remove takes a copy away, and every name of it.
func (c *Parts) remove(e *partCopy) {
	for _, n := range e.names {
		c.unmark(n)
	}
	delete(c.copies, e.hash)
	c.bytes -= e.size
	_ = os.Remove(c.path(e.hash))
}

// evict removes what was not used longest, but no bytes that are in use.
func (c *Parts) evict() {
	if len(c.names) > c.maxNames {
		names := slices.SortedFunc(maps.Values(c.names), func(a, b *partName) int { return a.used.Compare(b.used) })
		for _, n := range names[:len(names)-c.maxNames+c.maxNames/8] {
			c.unmark(n)
			if len(n.of.names) == 0 && n.of.users == 0 {
				c.remove(n.of)
			}
		}
	}
	if c.bytes <= c.max {
		return
	}
	for _, e := range slices.SortedFunc(maps.Values(c.copies), func(a, b *partCopy) int { return a.used.Compare(b.used) }) {
		if c.bytes <= c.max {
			return
		}
		if e.users == 0 {
			c.remove(e)
		}
	}
}

// Find implements provider.Parts.
func (c *Parts) Find(name string, p domain.Part) (string, func(), error) {
	c.mu.Lock()
	n := c.names[name]
	if n == nil || n.of.hash != p.SHA256 || n.of.size != p.Size {
		c.mu.Unlock()
		return "", nil, app.ErrNotFound
	}
	e := n.of
	e.users++
	n.used = time.Now()
	e.used = n.used
	touch := n.used.Sub(n.touched) > touchParts
	if touch {
		n.touched = n.used
	}
	checked, used := e.checked, n.used
	c.mu.Unlock()
	release := sync.OnceFunc(func() { c.release(e) })
	if touch {
		_ = os.Chtimes(c.markPath(n), used, used)
	}
	sound := checked || hasHash(c.path(e.hash), p.SHA256)
	c.mu.Lock()
	e.checked = e.checked || sound // it may have been kept anew meanwhile
	sound = e.checked
	if !sound && c.copies[e.hash] == e {
		c.remove(e)
	}
	c.mu.Unlock()
	if !sound {
		release()
		return "", nil, app.ErrNotFound
	}
	return c.path(e.hash), release, nil
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

func (c *Parts) release(e *partCopy) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e.users--
	if e.users == 0 && len(e.names) == 0 && c.copies[e.hash] == e {
		c.remove(e)
	}
	c.evict()
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

// Keep implements provider.PartFile. The bytes were written whether there is a copy of them already or not.
func (p *partFile) Keep(name string, part domain.Part) (string, func(), error) {
	if _, ok := parseHash(name); !ok {
		return "", nil, errors.New("a part is kept under a hash in hexadecimal")
	}
	err := errors.Join(p.w.Flush(), p.f.Chmod(0o400))
	err = errors.Join(err, p.f.Close())
	p.done = true
	defer os.Remove(p.f.Name()) // unless it has become the copy
	path := p.c.path(part.SHA256)
	if err != nil {
		return "", nil, named(err, "write", path)
	}
	c := p.c
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.copies[part.SHA256]
	if e == nil || !e.checked { // what was found at the start may be torn
		if err := os.Rename(p.f.Name(), path); err != nil {
			return "", nil, named(err, "write", path)
		}
		if e == nil {
			e = c.add(part.SHA256, p.size)
		}
		c.bytes += p.size - e.size
		e.size, e.checked = p.size, true
	}
	if old := c.names[name]; old != nil && old.of != e {
		c.unmark(old)
	}
	n := c.mark(name, e, time.Now())
	f, err := os.OpenFile(c.markPath(n), os.O_CREATE|os.O_WRONLY, 0o600)
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		c.unmark(n)
		if e.users == 0 && len(e.names) == 0 {
			c.remove(e)
		}
		return "", nil, named(err, "write", c.markPath(n))
	}
	e.users++
	c.evict()
	return path, sync.OnceFunc(func() { c.release(e) }), nil
}
