package executor

import (
	"cmp"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/renameio/v2"
)

// moduleKey is the SHA-256 of a module.
type moduleKey [sha256.Size]byte

func (k moduleKey) String() string { return hex.EncodeToString(k[:]) }

const (
	keyFile  = "key"
	keyBytes = 32
	// maxArtefact bounds one compiled module, in bytes: some four times what the largest module gives.
	maxArtefact = 512 << 20
	// touchEvery keeps the order of use across restarts without a write for each use.
	touchEvery = time.Minute
)

// cache keeps compiled modules on disk. They are machine code that a child will run outside any sandbox, so a file counts
// only with a MAC, under a key that no child can read, over the module's hash, the engine's version and every byte. The
// MAC is in the file's name: one rename brings both. What a program could have written never gets in: the pool
// takes artefacts only from children that have run none, and before they do.
type cache struct {
	dir      string
	key      []byte
	maxBytes int64
	version  string // of the engine, set before first use

	mu      sync.Mutex
	bytes   int64
	entries map[string]*entry // by prefix
}

type entry struct {
	prefix, path string
	mac          []byte
	size         int64
	used         time.Time
	touched      time.Time
	checked      fs.FileInfo // as it was when its MAC was found right
}

func openCache(dir string, maxBytes int64) (*cache, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("cannot make the module cache %s: %w", dir, err)
	}
	key, err := cacheKey(filepath.Join(dir, keyFile))
	if err != nil {
		return nil, err
	}
	c := &cache{dir: dir, key: key, maxBytes: maxBytes, entries: make(map[string]*entry)}
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("cannot read the module cache %s: %w", dir, err)
	}
	for _, f := range files {
		c.admit(f)
	}
	c.evict()
	return c, nil
}

// cacheKey is made once. Losing it loses the cache, nothing else.
func cacheKey(path string) ([]byte, error) {
	key, err := os.ReadFile(path)
	if err == nil && len(key) == keyBytes {
		return key, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cannot read the module cache's key: %w", err)
	}
	key = make([]byte, keyBytes)
	_, _ = rand.Read(key) // never fails
	if err := renameio.WriteFile(path, key, 0o600, renameio.WithTempDir(filepath.Dir(path))); err != nil {
		return nil, fmt.Errorf("cannot write the module cache's key: %w", err)
	}
	return key, nil
}

// admit lists a file that is there at start; its MAC is checked when it is used. What is no artefact is left of an
// interrupted write and removed.
func (c *cache) admit(f fs.DirEntry) {
	if f.Name() == keyFile {
		return
	}
	path := filepath.Join(c.dir, f.Name())
	prefix, macText, ok := cutLast(f.Name(), ".")
	mac, err := hex.DecodeString(macText)
	info, err2 := f.Info()
	if !ok || err != nil || len(mac) != sha256.Size || err2 != nil || !info.Mode().IsRegular() || c.entries[prefix] != nil {
		_ = os.RemoveAll(path)
		return
	}
	c.entries[prefix] = &entry{prefix: prefix, path: path, mac: mac, size: info.Size(), used: info.ModTime(), touched: info.ModTime()}
	c.bytes += info.Size()
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

func (c *cache) prefix(key moduleKey) string {
	v := sha256.Sum256([]byte(c.version))
	return key.String() + "-" + hex.EncodeToString(v[:8])
}

func (c *cache) mac(prefix string) hash.Hash {
	h := hmac.New(sha256.New, c.key)
	h.Write([]byte(prefix))
	h.Write([]byte{0})
	return h
}

// has tells whether there is an artefact, without checking it.
func (c *cache) has(key moduleKey) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.entries[c.prefix(key)] != nil
}

// stage places the artefact at path, checked, and returns its size; fs.ErrNotExist when there is none, or none that is
// good. With link it becomes the same file, which then must be one that the child cannot write.
func (c *cache) stage(key moduleKey, path string, link bool) (int64, error) {
	c.mu.Lock()
	e := c.entries[c.prefix(key)]
	if e == nil {
		c.mu.Unlock()
		return 0, fs.ErrNotExist
	}
	e.used = time.Now()
	touch := e.used.Sub(e.touched) > touchEvery
	if touch {
		e.touched = e.used
	}
	found := *e
	c.mu.Unlock()
	if touch {
		_ = os.Chtimes(found.path, found.used, found.used)
	}
	var err error
	if link {
		err = c.linkTo(e, found, path)
	} else {
		err = c.copyTo(found, path)
	}
	if err != nil {
		c.drop(e)
		_ = os.Remove(path)
		return 0, fmt.Errorf("%w: %w", fs.ErrNotExist, err)
	}
	return found.size, nil
}

var errCorrupt = errors.New("a compiled module on disk is not as it was written")

// linkTo checks a file once for as long as it stays the same one.
func (c *cache) linkTo(e *entry, found entry, path string) error {
	info, err := os.Stat(found.path)
	if err != nil {
		return err
	}
	if found.checked == nil || !os.SameFile(info, found.checked) || info.Size() != found.checked.Size() {
		if err := c.verify(found, io.Discard); err != nil {
			return err
		}
		c.mu.Lock()
		e.checked = info
		c.mu.Unlock()
	}
	return linkOrCopy(found.path, path, true)
}

func (c *cache) copyTo(found entry, path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o400)
	if err != nil {
		return err
	}
	return errors.Join(c.verify(found, f), f.Close())
}

func (c *cache) verify(e entry, to io.Writer) error {
	f, err := os.Open(e.path)
	if err != nil {
		return err
	}
	defer f.Close()
	h := c.mac(e.prefix)
	if _, err := io.Copy(io.MultiWriter(h, to), f); err != nil {
		return err
	}
	if !hmac.Equal(h.Sum(nil), e.mac) {
		return errCorrupt
	}
	return nil
}

func (c *cache) drop(e *entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.entries[e.prefix] == e {
		delete(c.entries, e.prefix)
		c.bytes -= e.size
		_ = os.Remove(e.path)
	}
}

// evict removes what was not used longest. The lock is held, or not needed yet.
func (c *cache) evict() {
	if c.bytes <= c.maxBytes {
		return
	}
	byUse := make([]*entry, 0, len(c.entries))
	for _, e := range c.entries {
		byUse = append(byUse, e)
	}
	slices.SortFunc(byUse, func(a, b *entry) int { return cmp.Compare(a.used.UnixNano(), b.used.UnixNano()) })
	for _, e := range byUse {
		if c.bytes <= c.maxBytes {
			return
		}
		delete(c.entries, e.prefix)
		c.bytes -= e.size
		_ = os.Remove(e.path)
	}
}

// artefact is one that is being written. No error ends the run that it comes from: without the cache that is only slower.
type artefact struct {
	c      *cache
	prefix string
	f      *os.File
	h      hash.Hash
	size   int64
	err    error
}

func (c *cache) create(key moduleKey) *artefact {
	a := &artefact{c: c, prefix: c.prefix(key)}
	a.f, a.err = os.CreateTemp(c.dir, "new-")
	a.h = c.mac(a.prefix)
	return a
}

func (a *artefact) write(p []byte) {
	if a.err != nil {
		return
	}
	if a.size += int64(len(p)); a.size > min(maxArtefact, a.c.maxBytes) {
		a.err = fmt.Errorf("the compiled module has more than the %d bytes that the cache may have", a.c.maxBytes)
		return
	}
	a.h.Write(p)
	_, a.err = a.f.Write(p)
}

// commit makes it count. It is not synced: after a crash the MAC tells whether it is whole.
func (a *artefact) commit() error {
	if a.f == nil {
		return a.err
	}
	if a.err == nil {
		a.err = a.f.Chmod(0o400)
	}
	a.err = errors.Join(a.err, a.f.Close())
	mac := a.h.Sum(nil)
	e := &entry{prefix: a.prefix, path: filepath.Join(a.c.dir, a.prefix+"."+hex.EncodeToString(mac)), mac: mac, size: a.size, used: time.Now(), touched: time.Now()}
	if a.err == nil {
		a.err = os.Rename(a.f.Name(), e.path)
	}
	if a.err != nil {
		_ = os.Remove(a.f.Name())
		return a.err
	}
	a.c.mu.Lock()
	defer a.c.mu.Unlock()
	if old := a.c.entries[e.prefix]; old != nil {
		a.c.bytes -= old.size
		if old.path != e.path {
			_ = os.Remove(old.path)
		}
	}
	a.c.entries[e.prefix] = e
	a.c.bytes += e.size
	a.c.evict()
	return nil
}

// discard forgets it.
func (a *artefact) discard() {
	if a.f != nil {
		_ = a.f.Close()
		_ = os.Remove(a.f.Name())
	}
}
