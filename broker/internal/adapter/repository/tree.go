package repository

import (
	"context"
	"errors"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/ipfs/boxo/ipld/unixfs"
	"github.com/ipfs/boxo/ipld/unixfs/hamt"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/treepath"
)

// The layout of directories is that of Kubo's profile unixfs-v1-2025, too: one block of names up to a size, above it a trie.
const (
	maxDirBlock = 256 << 10
	trieWidth   = 256
)

// Bounds of one directory with all that is in it, and of what its paths take in memory while it is put.
const (
	maxEntries   = 100_000
	maxPathBytes = 16 << 20
)

// Entry begins a file of a directory that is put, or is a directory without files.
type Entry struct {
	Path      string
	Directory bool
	Data      io.Reader // of a file: read to its end before the next entry is asked for
}

// PutDirectory stores a directory of what next gives until io.EOF, and returns when it, and the pin, are durable. Its files are written as they
// come; names and CIDs stay in memory until the end. size is that of all files.
func (s *Store) PutDirectory(ctx context.Context, next func() (Entry, error), pin PinFor) (c cid.Cid, size uint64, err error) {
	return s.put(ctx, pin, func(w *sink) (ipld.Node, uint64, error) {
		t, total := tree{root: &folder{}}, uint64(0)
		for {
			e, err := next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return nil, 0, err
			}
			if err := t.admit(e.Path); err != nil {
				return nil, 0, err
			}
			if e.Directory {
				if _, err := t.folder(e.Path); err != nil {
					return nil, 0, err
				}
				continue
			}
			root, size, err := layout(w, e.Data, s.profile.chunk)
			if err != nil {
				return nil, 0, err
			}
			if err := t.file(e.Path, root); err != nil {
				return nil, 0, err
			}
			total += size
		}
		root, err := t.root.node(w)
		return root, total, err
	})
}

// tree is a directory in the making.
type tree struct {
	root           *folder
	entries, bytes int
}

type folder struct {
	folders map[string]*folder
	files   map[string]*ipld.Link
}

func (t *tree) admit(p string) error {
	if err := treepath.Check(p); err != nil {
		return fault.InvalidArgument("PATH_INVALID", "the path %q cannot be stored: %v", treepath.Shown(p), err)
	}
	t.entries++
	t.bytes += len(p)
	if t.entries > maxEntries || t.bytes > maxPathBytes {
		return fault.ResourceExhausted(ReasonTooLarge, "the directory has more than %d entries, or paths of more than %d MiB: put it in parts", maxEntries, maxPathBytes>>20)
	}
	return nil
}

// folder finds or makes a directory.
func (t *tree) folder(p string) (*folder, error) {
	at := t.root
	if p == "." {
		return at, nil
	}
	for name := range strings.SplitSeq(p, "/") {
		if at.files[name] != nil {
			return nil, fault.InvalidArgument("PATH_INVALID", "%q is a file, and a directory in the path %q", name, treepath.Shown(p))
		}
		next := at.folders[name]
		if next == nil {
			if at.folders == nil {
				at.folders = make(map[string]*folder)
			}
			next = &folder{}
			at.folders[name] = next
		}
		at = next
	}
	return at, nil
}

func (t *tree) file(p string, root ipld.Node) error {
	at, err := t.folder(path.Dir(p))
	if err != nil {
		return err
	}
	name := path.Base(p)
	if at.files[name] != nil || at.folders[name] != nil {
		return fault.InvalidArgument("PATH_INVALID", "the path %q is there twice", treepath.Shown(p))
	}
	link, err := ipld.MakeLink(root)
	if err != nil {
		return err
	}
	if at.files == nil {
		at.files = make(map[string]*ipld.Link)
	}
	at.files[name] = link
	return nil
}

// node writes a directory, those in it first.
func (f *folder) node(w *sink) (ipld.Node, error) {
	links := make(map[string]*ipld.Link, len(f.files)+len(f.folders))
	for name, l := range f.files {
		links[name] = l
	}
	for name, sub := range f.folders {
		n, err := sub.node(w)
		if err != nil {
			return nil, err
		}
		if links[name], err = ipld.MakeLink(n); err != nil {
			return nil, err
		}
	}
	names := make([]string, 0, len(links))
	for name := range links {
		names = append(names, name)
	}
	slices.Sort(names)
	n := unixfs.EmptyDirNode()
	if err := n.SetCidBuilder(builder); err != nil {
		return nil, err
	}
	for _, name := range names {
		if err := n.AddRawLink(name, links[name]); err != nil {
			return nil, err
		}
	}
	if len(n.RawData()) > maxDirBlock {
		return trie(w, names, links)
	}
	return n, w.Add(w.ctx, n)
}

func trie(w *sink, names []string, links map[string]*ipld.Link) (ipld.Node, error) {
	t, err := hamt.NewShard(w, trieWidth)
	if err != nil {
		return nil, err
	}
	t.SetCidBuilder(builder)
	for _, name := range names {
		if err := t.SetLink(w.ctx, name, links[name]); err != nil {
			return nil, err
		}
	}
	return t.Node()
}
