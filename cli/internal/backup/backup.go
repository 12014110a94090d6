package backup

import (
	"context"
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/shallot-net/shallot/cli/internal/supervisor"
	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/home"
	"github.com/shallot-net/shallot/kit/sqlstore"
	"github.com/shallot-net/shallot/kit/version"
)

// Source is a node that is to be copied.
type Source struct {
	Home     home.Home
	Store    Store    // of services that do not keep their state in the home
	Progress Progress // may be nil
	Now      func() time.Time
}

// Create writes a backup of a node into dir, which is made where missing and must be empty, and returns when all of it is on disk. The node may run. When it fails or ctx ends, what it wrote is
// removed; killed, it leaves a directory that nobody takes for a backup.
func Create(ctx context.Context, s Source, dir string) (_ *Manifest, err error) {
	if err := isNode(s.Home); err != nil {
		return nil, err
	}
	if s.Store.URL == "" {
		err = missing(s.Home)
	} else {
		err = s.Store.config().Check()
	}
	if err != nil {
		return nil, err
	}
	dir, err = filepath.Abs(dir)
	if err != nil {
		return nil, unusable(dir, "use", err)
	}
	if inside(s.Home.Dir, dir) {
		return nil, fault.InvalidArgument("BACKUP_INSIDE", "%s is in the home that it is to be a backup of: name a directory elsewhere, best on another disk", dir)
	}
	made, err := claim(dir)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, discard(dir, made))
		}
	}()
	m := &Manifest{Format: Format, ID: rand.Text(), Version: version.String(), MadeAt: s.Now(), Home: s.Home.Dir, Role: roleOf(s.Home), Mode: modeOf(s.Home)}
	c := newCopier(ctx, dir, s.Progress)
	if err := s.copy(ctx, c, m); err != nil {
		return nil, err
	}
	m.Files = c.list()
	if err := c.syncFolders(); err != nil {
		return nil, err
	}
	if err := m.write(dir); err != nil {
		return nil, c.failed(filepath.Join(dir, manifestName), err)
	}
	if err := os.Remove(filepath.Join(dir, unfinished)); err != nil {
		return nil, c.failed(filepath.Join(dir, unfinished), err)
	}
	return m, syncFolder(dir)
}

// copy goes in the order that makes the parts fit together: see the package.
func (s Source) copy(ctx context.Context, c *copier, m *Manifest) error {
	before, err := walk(ctx, s.Home.Dir)
	if err != nil {
		return err
	}
	for _, f := range before {
		c.total += uint64(f.size)
	}
	c.total += sizeOf(filepath.Join(s.Home.Dir, repositoryFolder, "packs"))
	copied := make(map[string]found, len(before))
	var stores []found
	for _, f := range before {
		is, err := s.file(c, f)
		if err != nil {
			return err
		}
		if copied[f.rel] = f; is {
			stores = append(stores, f)
		}
	}
	for _, f := range stores {
		if err := s.store(ctx, c, f); err != nil {
			return err
		}
	}
	if s.Store.URL != "" {
		if m.Database, err = c.database(ctx, s.Store); err != nil {
			return err
		}
	}
	after, err := walk(ctx, s.Home.Dir)
	if err != nil {
		return err
	}
	for _, f := range after {
		if old, was := copied[f.rel]; was && (old == f || isStore(stores, f.rel)) {
			continue
		}
		is, err := s.file(c, f)
		if err == nil && is {
			err = s.store(ctx, c, f)
		}
		if err != nil {
			return err
		}
	}
	c.what = "content"
	return c.content(filepath.Join(s.Home.Dir, repositoryFolder), path.Join(homeFolder, repositoryFolder))
}

func isStore(stores []found, rel string) bool {
	for _, s := range stores {
		if s.rel == rel {
			return true
		}
	}
	return false
}

// file copies one unless it is a store. One that is gone is no error.
func (s Source) file(c *copier, f found) (store bool, err error) {
	full := filepath.Join(s.Home.Dir, filepath.FromSlash(f.rel))
	if strings.HasSuffix(f.rel, ".db") {
		store, err = sqlstore.IsStore(full)
		switch {
		case gone(err):
			return false, nil
		case err != nil:
			return false, unusable(full, "read", err)
		case store:
			return true, nil
		}
	}
	in, err := os.Open(full)
	if gone(err) {
		return false, nil
	}
	if err != nil {
		return false, unusable(full, "read", err)
	}
	defer in.Close()
	c.what = "files"
	return false, c.put(path.Join(homeFolder, f.rel), in, -1, f.modified)
}

func (s Source) store(ctx context.Context, c *copier, f found) error {
	full := filepath.Join(s.Home.Dir, filepath.FromSlash(f.rel))
	rel := path.Join(homeFolder, f.rel)
	c.what = "stores"
	c.tell(c.what, c.done, c.total)
	to := c.path(rel)
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return c.failed(to, err)
	}
	if err := sqlstore.Copy(ctx, full, to); err != nil {
		return err
	}
	return c.sumOf(rel, f.modified)
}

// isNode refuses what has no node: a backup of nothing would be one.
func isNode(h home.Home) error {
	if whole, err := os.Lstat(home.RestoringFile(h.Dir)); err == nil && whole != nil {
		return fault.FailedPrecondition("HOME_RESTORING", "%s is being restored, or a restore was broken off: give 'shallot restore' again first", h.Dir)
	}
	path := filepath.Join(h.Dir, identity)
	_, err := os.Stat(path)
	switch {
	case gone(err):
		return fault.NotFound("HOME_NOT_FOUND", "there is no node in %s: it has no %s, which a node has from its first start on", h.Dir, identity)
	case err != nil:
		return unusable(path, "look at", err)
	}
	return nil
}

// identity is the node's own key.
const identity = "state/broker/identity.pem"

func roleOf(h home.Home) string {
	if r := supervisor.RecordedRole(h); r != "" {
		return r
	}
	if exists(filepath.Join(h.Dir, "state/discovery")) { // which no consumer has
		return supervisor.Provider
	}
	return ""
}

// modeOf is what the broker's mark says, which is there whoever started the node.
func modeOf(h home.Home) string {
	b, err := os.ReadFile(filepath.Join(h.Dir, "state/broker/mode"))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

func inside(dir, path string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && filepath.IsLocal(rel)
}

// claim makes the directory, or finds it empty, and marks it as unfinished.
func claim(dir string) (made bool, err error) {
	err = os.Mkdir(dir, 0o700)
	switch {
	case err == nil:
		made = true
	case !errors.Is(err, fs.ErrExist):
		if gone(err) {
			return false, fault.NotFound("BACKUP_UNUSABLE", "cannot make %s: there is no directory %s", dir, filepath.Dir(dir))
		}
		return false, unusable(dir, "make", err)
	default:
		if err := usableFor(dir); err != nil {
			return false, err
		}
	}
	f, err := os.OpenFile(filepath.Join(dir, unfinished), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return false, notEmpty(dir)
	}
	if err != nil {
		return made, errors.Join(unusable(dir, "write to", err), removeMade(dir, made))
	}
	if err := errors.Join(f.Sync(), f.Close(), syncFolder(dir)); err != nil {
		return made, errors.Join(unusable(dir, "write to", err), discard(dir, made))
	}
	return made, nil
}

func removeMade(dir string, made bool) error {
	if !made {
		return nil
	}
	return os.Remove(dir)
}

// usableFor looks at a directory that is there.
func usableFor(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return unusable(dir, "look at", err)
	}
	if !info.IsDir() {
		return fault.FailedPrecondition("BACKUP_UNUSABLE", "%s is a file: name a directory", dir)
	}
	if owner, own := ownedBy(info); !own || info.Mode().Perm()&0o022 != 0 {
		return fault.FailedPrecondition("BACKUP_UNSAFE", "%s is not a directory that only this user can write to (its owner is user %d, its mode %o), and a backup has the node's keys: name another one, or one that is made", dir, owner, info.Mode().Perm())
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return unusable(dir, "read", err)
	}
	if len(entries) > 0 && !(len(entries) == 1 && entries[0].Name() == "lost+found") {
		return notEmpty(dir)
	}
	return nil
}

func notEmpty(dir string) error {
	if _, err := os.Lstat(filepath.Join(dir, unfinished)); err == nil {
		return fault.FailedPrecondition("BACKUP_NOT_EMPTY", "%s has a backup that was broken off, or is being made: when nobody makes it, remove the directory", dir)
	}
	return fault.FailedPrecondition("BACKUP_NOT_EMPTY", "%s is not empty: name a new directory for each backup", dir)
}

// discard removes what was written. What says that it is none goes last.
func discard(dir string, made bool) error {
	err := errors.Join(os.RemoveAll(filepath.Join(dir, homeFolder)), os.RemoveAll(filepath.Join(dir, databases)), ignoreGone(os.Remove(filepath.Join(dir, manifestName))))
	if err == nil {
		err = ignoreGone(os.Remove(filepath.Join(dir, unfinished)))
	}
	if err == nil {
		err = removeMade(dir, made)
	}
	if err != nil {
		return fault.FailedPrecondition("BACKUP_UNUSABLE", "what was written of the backup is left in %s: remove it", dir).Because(reason(err))
	}
	return nil
}

func ignoreGone(err error) error {
	if gone(err) {
		return nil
	}
	return err
}

// sizeOf is of the files in a folder, in bytes, as far as they can be seen.
func sizeOf(dir string) (n uint64) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0
	}
	for _, e := range entries {
		if info, err := e.Info(); err == nil {
			n += uint64(info.Size())
		}
	}
	return n
}
