package command

import (
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/shallot-net/shallot/cli/internal/tree"
	"github.com/shallot-net/shallot/kit/treepath"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
)

// source is what one --input names: a file, or a directory with its files.
type source struct {
	given, path string
	name        string // what it is called there; "." for a directory whose files go to the top
	listing     *tree.Listing
}

// sources are the files that a task gets.
type sources []source

// sources finds what --input flags name, and refuses before anything is sent what could not be placed. where is how messages call the
// place of a name.
func (l *loader) sources(given []string, where string) (_ sources, err error) {
	var out sources
	defer func() {
		if err != nil {
			out.close()
		}
	}()
	by, all := map[string]string{}, []string(nil)
	for _, g := range given {
		s, err := l.source(g)
		if err != nil {
			return nil, err
		}
		out = append(out, s)
		for _, p := range s.paths() {
			if other, ok := by[p]; ok {
				return nil, usage("--input %s and --input %s would both be %s%s: rename one, or say another name as in --input PATH:NAME", other, g, where, p)
			}
			by[p] = g
			all = append(all, p)
		}
	}
	if err := treepath.CheckAll(all); err != nil {
		return nil, usage("the files of --input cannot be sent together: %v", err)
	}
	return out, nil
}

func (l *loader) source(given string) (source, error) {
	s := source{given: given, path: given}
	info, err := os.Stat(given)
	if i := strings.LastIndexByte(given, ':'); err != nil && i > 0 { // a name with a colon that is there is that file
		s.path, s.name = given[:i], given[i+1:]
		info, err = os.Stat(s.path)
	}
	if s.name == "" {
		if s.name, s.path, err = baseName(given), given, nil; info == nil {
			return s, nil // opening it says why it cannot be read
		}
	}
	dir := err == nil && info.IsDir()
	if bad := treepath.Check(s.name); bad != nil && (s.name != "." || !dir) {
		return s, usage("--input %s would be called %q, and cannot be: %v", given, treepath.Shown(s.name), bad)
	}
	if !dir {
		return s, nil
	}
	if s.listing, err = tree.List(s.path, tree.Options{Hidden: true, MaxFiles: treepath.MaxFiles}); err != nil {
		return s, usage("--input: %v", err)
	}
	if n := len(s.listing.Empty); n > 0 {
		l.line.Stop()
		l.say("--input %s: directories without files are left out (%d)", given, n)
	}
	return s, nil
}

// baseName is the last name of a path, also of one such as "." or "..".
func baseName(p string) string {
	if name := filepath.Base(p); name != "." && name != ".." {
		return name
	}
	if abs, err := filepath.Abs(p); err == nil {
		return filepath.Base(abs)
	}
	return p
}

func (s *source) paths() []string {
	if s.listing == nil {
		return []string{s.name}
	}
	out := make([]string, len(s.listing.Files))
	for i, f := range s.listing.Files {
		out[i] = path.Join(s.name, f.Path)
	}
	return out
}

func (ss sources) close() {
	for _, s := range ss {
		if s.listing != nil {
			s.listing.Close()
		}
	}
}

// send makes blobs of all files and calls add with each.
func (ss sources) send(ctx context.Context, l *loader, add func(name string, b *taskv1.Blob)) error {
	for _, s := range ss {
		if s.listing == nil {
			b, err := l.file(ctx, "--input", s.path)
			if err != nil {
				return err
			}
			add(s.name, b)
			continue
		}
		for _, f := range s.listing.Files {
			b, err := l.fileOf(ctx, s, f)
			if err != nil {
				return err
			}
			add(path.Join(s.name, f.Path), b)
		}
	}
	return nil
}

func (l *loader) fileOf(ctx context.Context, s source, f tree.File) (*taskv1.Blob, error) {
	r, err := s.listing.Open(f)
	if err != nil {
		return nil, fmt.Errorf("cannot read --input %s: %s: %w", s.given, f.Path, err)
	}
	defer r.Close()
	return l.read(ctx, f.Path, r, uint64(max(f.Size, 0)))
}
