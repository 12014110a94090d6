package backup

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/shallot-net/shallot/kit/fault"
)

// indexTries bounds how often an index is looked at that changes meanwhile. It changes its set of files once in some ten thousand blocks, and a look takes a millisecond.
const indexTries = 200

// maxIndexFile bounds what is held of the index's small files.
const maxIndexFile = 64 << 20

// content copies the broker's repository while the broker may write to it: see the package. All files are opened at one moment, and copied afterwards: who has a file open can read it when it is removed.
func (c *copier) content(dir, to string) error {
	if _, err := os.Stat(filepath.Join(dir, "index")); gone(err) {
		return nil // no broker has run here
	}
	packs := openFiles{}
	defer func() { packs.close() }()
	s, err := c.openContent(dir, packs)
	defer s.files.close()
	if err != nil {
		return err
	}
	now := time.Now()
	for name, data := range map[string][]byte{"CURRENT": s.current, s.name: s.manifest} {
		if err := c.write(to+"/index/"+name, now, func(w io.Writer) error { _, err := w.Write(data); return err }); err != nil {
			return err
		}
	}
	for _, name := range s.files.names() {
		if err := c.put(to+"/index/"+name, s.files[name], s.sizes[name], now); err != nil {
			return err
		}
	}
	for _, name := range packs.names() {
		f := packs[name]
		info, err := f.Stat()
		if err != nil {
			return unusable(f.Name(), "look at", err)
		}
		if err := c.put(to+"/packs/"+name, f, info.Size(), info.ModTime()); err != nil {
			return err
		}
	}
	return nil
}

// openContent opens the index, and adds every pack that it names. A collection may move what is in a pack into a new one and remove the old: so packs are opened before the index and once more after it,
// and all again when one was begun meanwhile.
func (c *copier) openContent(dir string, packs openFiles) (snapshot, error) {
	for range indexTries {
		if err := openPacks(filepath.Join(dir, "packs"), packs); err != nil {
			return snapshot{}, err
		}
		before := len(packs)
		c.tell(c.what, c.done, c.total)
		s, err := openIndex(c.ctx, filepath.Join(dir, "index"))
		c.tell(c.what, c.done, c.total)
		if err == nil {
			err = openPacks(filepath.Join(dir, "packs"), packs)
		}
		if err != nil || len(packs) == before {
			return s, err
		}
		s.files.close()
	}
	return snapshot{}, busy(dir)
}

func busy(dir string) error {
	return fault.Unavailable("BACKUP_BUSY", "the content in %s changed whenever it was looked at, %d times: try again when the node has less to do, or stop it meanwhile", dir, indexTries)
}

type openFiles map[string]*os.File

// openPacks opens those that are there and not open already.
func openPacks(dir string, all openFiles) error {
	entries, err := os.ReadDir(dir)
	if gone(err) {
		return nil
	}
	if err != nil {
		return unusable(dir, "read", err)
	}
	for _, e := range entries {
		if all[e.Name()] != nil || !strings.HasSuffix(e.Name(), ".pack") || !e.Type().IsRegular() {
			continue
		}
		f, err := os.Open(filepath.Join(dir, e.Name()))
		if gone(err) {
			continue
		}
		if err != nil {
			return unusable(filepath.Join(dir, e.Name()), "read", err)
		}
		all[e.Name()] = f
	}
	return nil
}

func (o openFiles) names() (names []string) {
	for n := range o {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

func (o openFiles) close() {
	for _, f := range o {
		_ = f.Close()
	}
}

// snapshot is a LevelDB as of one moment.
type snapshot struct {
	head
	files openFiles
	sizes map[string]int64 // in bytes, at that moment
}

// openIndex opens the files of a LevelDB as of one moment. Its tables do not change; its journals and its manifest only grow, and what is at the end of the copy of a journal counts as far as
// it is whole, as after a crash. So a moment is one at which the set of files is that of the manifest: that is read before and after, and must be the same.
func openIndex(ctx context.Context, dir string) (s snapshot, err error) {
	for range indexTries {
		if err := ctx.Err(); err != nil {
			return s, fault.From(context.Cause(ctx))
		}
		s.files.close()
		var same bool
		if s, same, err = tryIndex(dir); err != nil || same {
			return s, err
		}
	}
	return s, busy(dir)
}

func tryIndex(dir string) (s snapshot, same bool, err error) {
	var ok bool
	if s.head, ok, err = readHead(dir); err != nil || !ok {
		return s, false, err
	}
	names, err := tables(dir)
	if err != nil {
		return s, false, err
	}
	s.files, s.sizes = make(openFiles, len(names)), make(map[string]int64, len(names))
	for _, name := range names {
		f, err := os.Open(filepath.Join(dir, name))
		if gone(err) {
			return s, false, nil
		}
		if err != nil {
			return s, false, unusable(filepath.Join(dir, name), "read", err)
		}
		s.files[name] = f
		info, err := f.Stat()
		if err != nil {
			return s, false, unusable(f.Name(), "look at", err)
		}
		s.sizes[name] = info.Size()
	}
	after, ok, err := readHead(dir)
	if err != nil || !ok || !after.equal(s.head) {
		return s, false, err
	}
	again, err := tables(dir)
	return s, err == nil && slices.Equal(names, again), err
}

// head is what says which files a LevelDB has.
type head struct {
	current, manifest []byte
	name              string // of the manifest
}

func (h head) equal(o head) bool {
	return string(h.current) == string(o.current) && string(h.manifest) == string(o.manifest)
}

func readHead(dir string) (h head, ok bool, err error) {
	read := func(name string) ([]byte, error) {
		f, err := os.Open(filepath.Join(dir, name))
		if err != nil {
			return nil, err
		}
		defer f.Close()
		b, err := io.ReadAll(io.LimitReader(f, maxIndexFile+1))
		if err == nil && len(b) > maxIndexFile {
			err = errors.New("it is too large")
		}
		return b, err
	}
	if h.current, err = read("CURRENT"); err == nil {
		h.name = strings.TrimSpace(string(h.current))
		if !strings.HasPrefix(h.name, "MANIFEST-") || strings.ContainsAny(h.name, `/\`) {
			return h, false, unusable(filepath.Join(dir, "CURRENT"), "understand", errors.New("it names no manifest"))
		}
		h.manifest, err = read(h.name)
	}
	if gone(err) {
		return h, false, nil
	}
	if err != nil {
		return h, false, unusable(dir, "read", err)
	}
	return h, true, nil
}

// tables are the files with entries: journals and tables, in order of age.
func tables(dir string) (names []string, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, unusable(dir, "read", err)
	}
	for _, e := range entries { // sorted, and numbers have the same length
		switch filepath.Ext(e.Name()) {
		case ".log", ".ldb", ".sst":
			names = append(names, e.Name())
		}
	}
	return names, nil
}
