// Package tree reads the files of a directory that is to be sent, and writes those that somebody else has sent.
package tree

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/shallot-net/shallot/kit/treepath"
)

// File is one file of a directory.
type File struct {
	Path string // relative, with slashes
	Size int64
}

// Listing is what List found, in the order of the paths' names, directory by directory.
type Listing struct {
	Files []File
	// Empty are directories without files, as far down as they go.
	Empty []string
	// Hidden is how many files and directories were left out for their names.
	Hidden int

	root *os.Root
}

// Options say what List takes and how much.
type Options struct {
	// Hidden takes what begins with a dot, too.
	Hidden bool
	// Strict refuses links: their content is not what they are.
	Strict bool
	// MaxFiles bounds how many files there may be.
	MaxFiles int
}

// List finds the regular files below dir. A link is taken for the file that it leads to inside of dir; what leads out of it, links to
// directories, devices and pipes are refused, and so is a path that treepath refuses. Close the listing when its files have been read.
func List(dir string, o Options) (*Listing, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("cannot read the directory %s: %w", dir, cause(err))
	}
	l := &Listing{root: root}
	if err := l.walk(dir, ".", o); err != nil {
		root.Close()
		return nil, err
	}
	return l, nil
}

// Close lets the directory go.
func (l *Listing) Close() error { return l.root.Close() }

// Open opens a file of the listing. It is never one outside of the directory, whatever has changed in it meanwhile.
func (l *Listing) Open(f File) (*os.File, error) {
	r, err := l.root.Open(f.Path)
	if err != nil {
		return nil, cause(err)
	}
	info, err := r.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("it is not a regular file any more")
	}
	if err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// Each implements nodeclient.Tree.
func (l *Listing) Each(file func(path string, r io.Reader) error, empty func(path string) error) error {
	for _, f := range l.Files {
		if err := l.each(f, file); err != nil {
			return err
		}
	}
	for _, p := range l.Empty {
		if err := empty(p); err != nil {
			return err
		}
	}
	return nil
}

func (l *Listing) each(f File, file func(string, io.Reader) error) error {
	r, err := l.Open(f)
	if err != nil {
		return fmt.Errorf("cannot read %q: %w", treepath.Shown(f.Path), err)
	}
	defer r.Close()
	return file(f.Path, r)
}

func (l *Listing) walk(dir, at string, o Options) error {
	if strings.Count(at, "/") > treepath.MaxDepth || len(l.Empty) > o.MaxFiles {
		return fmt.Errorf("the directory %s has too many directories in it, or goes too deep", dir)
	}
	entries, err := fs.ReadDir(l.root.FS(), at)
	if err != nil {
		return fmt.Errorf("cannot read the directory %s: %w", path.Join(dir, at), cause(err))
	}
	found := false
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") && !o.Hidden {
			l.Hidden++
			continue
		}
		found = true
		p := path.Join(at, e.Name())
		if err := treepath.Check(p); err != nil {
			return fmt.Errorf("%q in the directory %s cannot be sent: %w", treepath.Shown(p), dir, err)
		}
		if e.IsDir() {
			if err := l.walk(dir, p, o); err != nil {
				return err
			}
			continue
		}
		info, err := l.root.Stat(p) // follows links, as long as they stay inside
		switch {
		case err != nil:
			return fmt.Errorf("%q in the directory %s cannot be read: %w", treepath.Shown(p), dir, cause(err))
		case !info.Mode().IsRegular() || o.Strict && e.Type()&fs.ModeSymlink != 0:
			return fmt.Errorf("%q in the directory %s is no file (%s): leave it out, or put there a copy of what it stands for", treepath.Shown(p), dir, kind(e.Type()))
		}
		if l.Files = append(l.Files, File{Path: p, Size: info.Size()}); len(l.Files) > o.MaxFiles {
			return fmt.Errorf("the directory %s has more than %d files: pack them into fewer, for example with tar", dir, o.MaxFiles)
		}
	}
	if !found && at != "." {
		l.Empty = append(l.Empty, at)
	}
	return nil
}

func kind(m fs.FileMode) string {
	switch {
	case m&fs.ModeSymlink != 0:
		return "a link"
	case m&fs.ModeNamedPipe != 0:
		return "a pipe"
	case m&fs.ModeSocket != 0:
		return "a socket"
	}
	return "a device"
}

// cause leaves the path out: the message has it already, as the user gave it.
func cause(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}
