package backup

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/shallot-net/shallot/kit/fault"
)

// Check reads an archive as a whole: it returns its manifest when all files are there and have the sums that it says, and no others are. It takes as long as reading all of it.
func Check(ctx context.Context, dir string, tell Progress) (*Manifest, error) {
	m, err := Read(dir)
	if err != nil {
		return nil, err
	}
	c := newCopier(ctx, dir, tell)
	c.what, c.total = "checking", uint64(m.Size())
	for _, f := range m.Files {
		if err := c.check(f); err != nil {
			return nil, err
		}
	}
	return m, noMore(dir, m)
}

func (c *copier) check(f File) error {
	full := c.path(f.Path)
	in, err := openInside(c.dir, f.Path)
	if err != nil {
		return archived(full, err)
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return unusable(full, "look at", err)
	}
	if !info.Mode().IsRegular() || info.Size() != f.Size {
		return damaged(full, "has %d bytes instead of %d", info.Size(), f.Size)
	}
	sum, _, err := c.read(in)
	if err != nil {
		return archived(full, err)
	}
	if sum != f.SHA256 {
		return damaged(full, "does not have the checksum of the manifest")
	}
	return nil
}

// openInside opens a file of an archive. A link that leads out of it is refused.
func openInside(dir, rel string) (*os.File, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return root.Open(filepath.FromSlash(rel))
}

func archived(path string, err error) error {
	var own *fault.Error
	switch {
	case errors.As(err, &own):
		return err
	case gone(err):
		return damaged(path, "is missing")
	}
	return unusable(path, "read", err)
}

// noMore finds files that the manifest does not have: they were put there afterwards.
func noMore(dir string, m *Manifest) error {
	known := make(map[string]bool, len(m.Files)+2)
	for _, f := range m.Files {
		known[f.Path] = true
	}
	known[manifestName], known[unfinished] = true, true
	return filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return unusable(path, "read", err)
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		switch {
		case e.IsDir() && rel == "lost+found":
			return fs.SkipDir
		case e.IsDir(), known[filepath.ToSlash(rel)]:
			return nil
		}
		return damaged(path, "is no part of the backup")
	})
}

// inHome is the path of an archived file in a home; false for those of a database.
func (f File) inHome() (string, bool) { return strings.CutPrefix(f.Path, homeFolder+"/") }
