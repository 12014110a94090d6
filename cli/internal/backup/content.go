package backup

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/shallot-net/shallot/kit/fault"
)

// indexTries bounds how often an index is copied that changes meanwhile. It changes its set of files once in some ten thousand blocks.
const indexTries = 50

// maxIndexFile bounds what is held of the index's small files.
const maxIndexFile = 64 << 20

// content copies the broker's repository while the broker may write to it: see the package.
func (c *copier) content(dir, to string) error {
	packs, err := openPacks(filepath.Join(dir, "packs"), nil)
	defer func() { packs.close() }()
	if err != nil {
		return err
	}
	index := filepath.Join(dir, "index")
	if _, err := os.Stat(index); gone(err) {
		return nil // no broker has run here
	}
	for try := 1; ; try++ {
		same, err := c.index(index, to+"/index")
		if err != nil {
			return err
		}
		if same {
			break
		}
		if try == indexTries {
			return fault.Unavailable("BACKUP_BUSY", "the content index %s changed whenever it was copied, %d times: try again when the node has less to do, or stop it meanwhile", index, try)
		}
		c.tell(fmt.Sprintf("content index, try %d", try+1), 0, 0)
	}
	if packs, err = openPacks(filepath.Join(dir, "packs"), packs); err != nil {
		return err
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

type openFiles map[string]*os.File

// openPacks opens those that are there and not among those that are open already, which it returns, too.
func openPacks(dir string, all openFiles) (openFiles, error) {
	if all == nil {
		all = openFiles{}
	}
	entries, err := os.ReadDir(dir)
	if gone(err) {
		return all, nil
	}
	if err != nil {
		return all, unusable(dir, "read", err)
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
			return all, unusable(filepath.Join(dir, e.Name()), "read", err)
		}
		all[e.Name()] = f
	}
	return all, nil
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

// index copies a LevelDB as of one moment, or says that it has changed meanwhile. Its tables do not change; its journal and its manifest only grow, and what is at the
// end of the copy of a journal counts as far as it is whole, as after a crash. So a copy is one as long as it is of the set of files that the manifest names: the manifest is read first, and must be
// the same after everything else was copied.
func (c *copier) index(dir, to string) (same bool, err error) {
	if err := os.RemoveAll(c.path(to)); err != nil {
		return false, c.failed(c.path(to), err)
	}
	for rel := range c.files {
		if strings.HasPrefix(rel, to+"/") {
			delete(c.files, rel)
		}
	}
	before, ok, err := readHead(dir)
	if err != nil || !ok {
		return false, err
	}
	now := time.Now()
	for name, data := range map[string][]byte{"CURRENT": before.current, before.name: before.manifest} {
		if err := c.write(to+"/"+name, now, func(w io.Writer) error { _, err := w.Write(data); return err }); err != nil {
			return false, err
		}
	}
	names, err := tables(dir)
	if err != nil {
		return false, err
	}
	for _, name := range names {
		f, err := os.Open(filepath.Join(dir, name))
		if gone(err) {
			return false, nil
		}
		if err != nil {
			return false, unusable(filepath.Join(dir, name), "read", err)
		}
		err = c.put(to+"/"+name, f, -1, now)
		_ = f.Close()
		if err != nil {
			return false, err
		}
	}
	after, ok, err := readHead(dir)
	if err != nil || !ok || !after.equal(before) {
		return false, err
	}
	again, err := tables(dir)
	return err == nil && slices.Equal(names, again), err
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
