package tree

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"

	"github.com/shallot-net/shallot/kit/treepath"
)

// Empty tells whether a directory can be made at dir, without making it: nothing is there, or an empty directory. Asking early spares the
// work whose result could not be kept.
func Empty(dir string) error {
	switch filepath.Base(dir) {
	case ".", "..", string(filepath.Separator):
		return fmt.Errorf("the directory %s cannot be replaced: name one that is not there yet", dir)
	}
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("cannot write the directory %s: %w", dir, cause(err))
	case len(entries) > 0:
		return fmt.Errorf("the directory %s is not empty: name one that is not there yet", dir)
	}
	return nil
}

// Write makes the directory dir with the files, whole or not at all: it is filled under a name that begins with a dot, beside dir, and gets
// its name at the end. What a killed process leaves has that other name. empty are directories without files. fill is called for each file in order, and has to write as many
// bytes as the file says. The paths are taken for hostile: what treepath refuses is refused here before anything is made, and no file is
// made through a link or outside of dir.
func Write(dir string, files []File, empty []string, fill func(f File, w io.Writer) error) error {
	paths := make([]string, len(files))
	for i, f := range files {
		paths[i] = f.Path
	}
	if err := checkAll(paths, empty); err != nil {
		return fmt.Errorf("nothing was written to %s: %w", dir, err)
	}
	if err := Empty(dir); err != nil {
		return err
	}
	dir = filepath.Clean(dir)
	if err := os.MkdirAll(filepath.Dir(dir), 0o777); err != nil {
		return fmt.Errorf("cannot write the directory %s: %w", dir, cause(err))
	}
	temporary := filepath.Join(filepath.Dir(dir), ".shallot-"+rand.Text())
	if err := os.Mkdir(temporary, 0o777); err != nil { // as the user's umask has it: who may look into it is not for this command to say
		return fmt.Errorf("cannot write the directory %s: %w", dir, cause(err))
	}
	defer os.RemoveAll(temporary) // not there any more when all went well
	if err := fillAll(temporary, files, empty, fill); err != nil {
		return err
	}
	if there, err := os.Stat(dir); err == nil { // who may look into it has been said
		if err := os.Chmod(temporary, there.Mode().Perm()); err != nil {
			return fmt.Errorf("cannot write the directory %s: %w", dir, cause(err))
		}
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) { // an empty one; what has come into it meanwhile stays
		return fmt.Errorf("cannot replace the directory %s: %w", dir, cause(err))
	}
	if err := os.Rename(temporary, dir); err != nil {
		return fmt.Errorf("cannot write the directory %s: %w", dir, err)
	}
	return nil
}

// checkAll: a directory without files is in no file's way, and no file in its.
func checkAll(files, empty []string) error {
	return treepath.CheckMost(slices.Concat(files, empty), MaxFiles)
}

// MaxFiles bounds what one call of Write makes.
const MaxFiles = 100_000

func fillAll(dir string, files []File, empty []string, fill func(File, io.Writer) error) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for _, d := range empty {
		if err := root.MkdirAll(d, 0o777); err != nil {
			return fmt.Errorf("cannot make the directory %q: %w", treepath.Shown(d), cause(err))
		}
	}
	for _, f := range files {
		if err := writeFile(root, f, fill); err != nil {
			return fmt.Errorf("cannot write %q: %w", treepath.Shown(f.Path), err)
		}
	}
	return nil
}

func writeFile(root *os.Root, f File, fill func(File, io.Writer) error) error {
	if d := path.Dir(f.Path); d != "." {
		if err := root.MkdirAll(d, 0o777); err != nil {
			return cause(err)
		}
	}
	out, err := root.OpenFile(f.Path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return cause(err)
	}
	w := &exactly{w: out, left: f.Size}
	err = fill(f, w)
	if err == nil && w.left > 0 {
		err = fmt.Errorf("%d bytes of %d are missing", w.left, f.Size)
	}
	if err == nil {
		err = out.Sync()
	}
	return errors.Join(err, out.Close())
}

// exactly takes no more than was said.
type exactly struct {
	w    io.Writer
	left int64
}

func (e *exactly) Write(p []byte) (int, error) {
	if int64(len(p)) > e.left {
		return 0, fmt.Errorf("there are more bytes than were announced")
	}
	n, err := e.w.Write(p)
	e.left -= int64(n)
	return n, err
}
