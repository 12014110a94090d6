package backup

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/shallot-net/shallot/cli/internal/supervisor"
	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/home"
	"github.com/shallot-net/shallot/kit/pgstore"
)

// Target is where a node is to be brought back.
type Target struct {
	Dir      string   // its home; made where missing
	Store    Store    // an empty database, for a backup that has one
	Progress Progress // may be nil
}

// restoring is what home.RestoringFile holds: which backup is being written, and where to.
type restoring struct {
	ID    string   `json:"id"`
	Files []string `json:"files"` // in the home
}

// Restore checks all of an archive, and then brings the node back in a home that has none. No process starts on that home before all of it is on disk: a restore that was broken off, or failed, is given again.
// Kept are files of the home that the archive has with other bytes and that are the operator's: config.yaml.
func Restore(ctx context.Context, t Target, dir string) (*Manifest, []string, error) {
	m, err := Check(ctx, dir, t.Progress)
	if err != nil {
		return nil, nil, err
	}
	if err := m.sameKind(t.Store); err != nil {
		return nil, nil, err
	}
	abs, err := filepath.Abs(t.Dir)
	if err != nil {
		return nil, nil, unusable(t.Dir, "use", err)
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, nil, unusable(dir, "use", err)
	}
	if inside(abs, dir) || inside(dir, abs) {
		return nil, nil, fault.InvalidArgument("BACKUP_INSIDE", "the home %s and the backup %s are one in the other: name another --home, or move the backup elsewhere", abs, dir)
	}
	if err := m.aloneOnThisMachine(abs); err != nil {
		return nil, nil, err
	}
	if err := os.MkdirAll(filepath.Join(abs, "state"), 0o700); err != nil {
		return nil, nil, homeUnusable(abs, err)
	}
	release, err := m.lockAll(abs)
	if err != nil {
		return nil, nil, err
	}
	defer release()
	files, again, err := m.begin(abs)
	if err != nil {
		return nil, nil, err
	}
	kept, err := m.fill(ctx, t, abs, dir)
	if err != nil {
		return nil, nil, errors.Join(err, undo(abs, files))
	}
	// From here on it can only be given again: whether the database has it nobody may have heard.
	if err := m.importDatabase(ctx, t.Store, dir, again, t.Progress); err != nil {
		if refused(err) && !again {
			return nil, nil, errors.Join(err, undo(abs, files))
		}
		return nil, nil, err
	}
	return m, kept, finish(abs)
}

// refused tells an import that has not begun.
func refused(err error) bool {
	var f *fault.Error
	return errors.As(err, &f) && (f.Reason == "STORE_IN_USE" || f.Reason == pgstore.ReasonDenied || f.Reason == pgstore.ReasonMissing)
}

// finish says that the home is whole.
func finish(dir string) error {
	if err := os.Remove(home.RestoringFile(dir)); err != nil {
		return homeUnusable(home.RestoringFile(dir), err)
	}
	if err := syncFolder(filepath.Join(dir, "state")); err != nil {
		return homeUnusable(dir, err)
	}
	return nil
}

// undo removes what was written, and then what says so. Where that fails the home stays one that is refused.
func undo(dir string, files []string) error {
	if err := removeFiles(dir, files); err != nil {
		return err
	}
	if err := os.Remove(home.RestoringFile(dir)); err != nil && !gone(err) {
		return homeUnusable(home.RestoringFile(dir), err)
	}
	return nil
}

// inHome lists what a restore writes to a home, as that is now.
func (m *Manifest) inHome(dir string) (list []string) {
	for _, f := range m.Files {
		rel, ok := f.inHome()
		if !ok || operators(rel) && exists(filepath.Join(dir, rel)) {
			continue
		}
		list = append(list, rel)
	}
	return list
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func removeFiles(dir string, list []string) error {
	for _, f := range list {
		if !filepath.IsLocal(f) {
			continue
		}
		if err := os.Remove(filepath.Join(dir, filepath.FromSlash(f))); err != nil && !gone(err) {
			return homeUnusable(filepath.Join(dir, f), err)
		}
	}
	return nil
}

func homeUnusable(path string, err error) error {
	if full(err) {
		return fault.ResourceExhausted("HOME_FULL", "no space left to write %s: free some on its file system, and give 'shallot restore' again, or remove the home", path).Because(reason(err))
	}
	return fault.FailedPrecondition("HOME_UNUSABLE", "cannot write %s: see who owns it and its directory, and their modes", path).Because(reason(err))
}

// aloneOnThisMachine refuses to make a second node of one identity where the first can be seen to be alive. Where that one is on another machine, nobody can know.
func (m *Manifest) aloneOnThisMachine(to string) error {
	own := m.find(homeFolder + "/" + identity)
	if own == nil || m.Home == "" || m.Home == to {
		return nil
	}
	h, err := home.Find(m.Home)
	if err != nil {
		return nil //nolint:nilerr // it is not on this machine, or gone
	}
	b, err := os.ReadFile(filepath.Join(h.Dir, identity))
	if err != nil || sumOfBytes(b) != own.SHA256 {
		return nil //nolint:nilerr // another node's, or nobody's that this user may see
	}
	if supervisor.Running(h) || someLocked(h.Dir) {
		return fault.FailedPrecondition("IDENTITY_ALIVE", "the node that this is a backup of runs in %s, and two nodes with one identity would take each other's tasks: stop it first, and never start it again", h.Dir)
	}
	return nil
}

func sumOfBytes(b []byte) string {
	var h hasher
	h.add(b)
	return h.sum()
}

// lockNames are of all processes that may have a home.
var lockNames = []string{"supervisor", "broker", "onion", "discovery", "metric", "task", "node", "gateway"}

// always is of processes that every node has.
func always(name string) bool { return name != "onion" && name != "discovery" && name != "metric" }

// has tells whether the archive has a file below a folder of the home.
func (m *Manifest) has(folder string) bool {
	return slices.ContainsFunc(m.Files, func(f File) bool { return strings.HasPrefix(f.Path, homeFolder+"/"+folder) })
}

func someLocked(dir string) bool {
	return replicaOf(dir) != "" || slices.ContainsFunc(lockNames, func(name string) bool { return supervisor.Held(filepath.Join(dir, "state", name, "lock")) })
}

// replicaOf finds the lock of a replica that runs; empty when none does.
func replicaOf(dir string) string {
	locks, _ := filepath.Glob(filepath.Join(dir, "state", "*", "replica-*", "lock"))
	if i := slices.IndexFunc(locks, supervisor.Held); i >= 0 {
		return locks[i]
	}
	return ""
}

// lockAll keeps every process of such a node from the home.
func (m *Manifest) lockAll(dir string) (release func(), err error) {
	h := home.Home{Dir: dir}
	var all []func()
	release = func() {
		for _, r := range all {
			r()
		}
	}
	if held := replicaOf(dir); held != "" {
		return nil, fault.FailedPrecondition("HOME_IN_USE", "a replica of a service runs on this home and holds %s: stop it, or name another --home", held)
	}
	for _, name := range lockNames {
		if !always(name) && !exists(filepath.Join(dir, "state", name)) && !m.has("state/"+name+"/") {
			continue // this node has no such process: nothing must look as if it had
		}
		r, err := h.Lock(name)
		if err != nil {
			release()
			return nil, err
		}
		all = append(all, r)
	}
	return release, nil
}

// begin refuses a home that has a node, and writes down that this one is being restored, with the files that will be written; again tells that it was this backup that was broken off. What a restore that was broken off has left is removed.
func (m *Manifest) begin(dir string) (files []string, again bool, err error) {
	path := home.RestoringFile(dir)
	b, err := os.ReadFile(path)
	switch {
	case err == nil:
		var old restoring
		if err := json.Unmarshal(b, &old); err != nil {
			return nil, false, fault.FailedPrecondition("HOME_RESTORING", "%s cannot be read, which says what a restore was writing that was broken off: remove the home %s", path, dir)
		}
		again = old.ID == m.ID
		if err := removeFiles(dir, old.Files); err != nil {
			return nil, false, err
		}
	case !gone(err):
		return nil, false, homeUnusable(path, err)
	}
	if err := empty(dir); err != nil {
		return nil, false, err
	}
	if err := supervisor.CheckMode(home.Home{Dir: dir}, m.mode()); err != nil {
		return nil, false, err
	}
	files = m.inHome(dir)
	if b, err = json.Marshal(restoring{ID: m.ID, Files: files}); err != nil {
		return nil, false, err
	}
	if err := home.WriteFile(path, b, 0o600); err != nil {
		return nil, false, homeUnusable(path, err)
	}
	return files, again, nil
}

func (m *Manifest) mode() string {
	if m.Mode == "" {
		return supervisor.Open
	}
	return m.Mode
}

// operators are files that an operator puts into a home before there is a node in it.
func operators(rel string) bool { return rel == "config.yaml" }

// empty refuses a home with anything of a node in it.
func empty(dir string) error {
	return filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return homeUnusable(path, err)
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		switch {
		case e.IsDir() && (rel == "run" || rel == "logs" || rel == "tor" || rel == "tls" || rel == "pki" || rel == "join" || e.Name() == "lost+found"):
			return fs.SkipDir
		case e.IsDir(), rel == "run", operators(rel), e.Name() == "lock", strings.HasPrefix(e.Name(), "."), path == home.RestoringFile(dir):
			return nil
		}
		return fault.FailedPrecondition("HOME_IN_USE", "%s has a node already, or a part of one: %s is there; name another --home, or remove what is in this one", dir, path)
	})
}

// fill writes the files.
func (m *Manifest) fill(ctx context.Context, t Target, to, from string) (kept []string, err error) {
	c := newCopier(ctx, to, t.Progress)
	c.what, c.total = "restoring", uint64(m.Size())
	for _, f := range m.Files {
		rel, ok := f.inHome()
		if !ok {
			continue
		}
		in, err := openInside(from, f.Path)
		if err != nil {
			return nil, archived(filepath.Join(from, f.Path), err)
		}
		keep, err := c.restore(f, rel, in)
		_ = in.Close()
		if err != nil {
			return nil, inHomeWords(err)
		}
		if keep {
			kept = append(kept, rel)
		}
	}
	if err := c.syncFolders(); err != nil {
		return nil, inHomeWords(err)
	}
	return kept, nil
}

// restore writes one file. Its sum is looked at again: it is what gets into the home that counts.
func (c *copier) restore(f File, rel string, in *os.File) (keep bool, err error) {
	if operators(rel) {
		there, err := os.ReadFile(c.path(rel))
		if err == nil {
			old, err := readAll(in, f.Size)
			return err == nil && !bytes.Equal(there, old), err
		}
		if !gone(err) {
			return false, unusable(c.path(rel), "read", err)
		}
	}
	if err := c.put(rel, in, -1, f.Modified); err != nil {
		return false, err
	}
	if got := c.files[rel]; got.SHA256 != f.SHA256 {
		return false, damaged(f.Path, "changed while it was restored")
	}
	return false, nil
}

func readAll(in io.Reader, size int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(in, size))
	if err != nil {
		return nil, fmt.Errorf("read the backup: %w", err)
	}
	return b, nil
}

func full(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }

// inHomeWords has what the file system refused said of a home instead of an archive.
func inHomeWords(err error) error {
	var f *fault.Error
	if errors.As(err, &f) && f.Reason == "BACKUP_FULL" {
		return fault.ResourceExhausted("HOME_FULL", "%s; then give 'shallot restore' again, which begins anew", f.Message)
	}
	return err
}
