package repository

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/boxo/ipld/unixfs"
	"github.com/ipfs/boxo/ipld/unixfs/hamt"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/treepath"
)

// Listed is one thing in a directory.
type Listed struct {
	Path string
	CID  cid.Cid
	Kind string
	Size uint64 // of a file
}

const kindOther = "other"

// List gives what is in a directory to each, a directory before what is in it, and the entries of one in the order of their names.
func (s *Store) List(ctx context.Context, text, path string, recursive bool, src Source, each func(Listed) error) (err error) {
	defer func() { s.metrics.done("list", err) }()
	c, err := parseCID(text)
	if err != nil {
		return err
	}
	leave, err := s.gets.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	f, stop, err := s.newFetcher(ctx, c, src)
	if err != nil {
		return err
	}
	defer stop()
	at, root, err := f.resolve(path)
	if err != nil {
		return toFault(f.cause(err), c)
	}
	l := &lister{f: f, recursive: recursive, each: each, left: maxEntries, blocks: maxEntries}
	if err := l.list("", at, root); err != nil {
		return toFault(malformed(at, f.cause(err)), at)
	}
	return nil
}

// resolve follows a path from the fetcher's root; an empty one is the root itself.
func (f *fetcher) resolve(path string) (cid.Cid, ipld.Node, error) {
	at := f.root
	n, err := f.node(at)
	if err != nil || path == "" {
		return at, n, err
	}
	if err := treepath.Check(path); err != nil {
		return at, nil, fault.InvalidArgument("PATH_INVALID", "the path %q cannot be one in a directory: %v", treepath.Shown(path), err)
	}
	for name := range strings.SplitSeq(path, "/") {
		child, err := f.child(n, name)
		switch {
		case errors.Is(err, errNoDirectory):
			return at, nil, fault.NotFound("PATH_NOT_FOUND", "there is no %q in %s: what should have %q in it is no directory", treepath.Shown(path), f.root, name)
		case errors.Is(err, os.ErrNotExist):
			return at, nil, fault.NotFound("PATH_NOT_FOUND", "there is no %q in %s: nothing there is called %q", treepath.Shown(path), f.root, name)
		case err != nil:
			return at, nil, malformed(at, err)
		}
		if err := checkCID(child); err != nil {
			return at, nil, fault.InvalidArgument("CID_UNSUPPORTED", "%q in %s is %s, which cannot be used: %s", treepath.Shown(path), f.root, child, err)
		}
		at = child
		if n, err = f.node(at); err != nil {
			return at, nil, err
		}
	}
	return canonical(at), n, nil
}

var errNoDirectory = errors.New("it is not a directory")

// child looks a name up in a directory. os.ErrNotExist: there is none.
func (f *fetcher) child(n ipld.Node, name string) (cid.Cid, error) {
	pn, isTrie, err := directoryOf(n)
	if err != nil {
		return cid.Undef, err
	}
	if isTrie {
		t, err := hamt.NewHamtFromDag(merkledag.NewReadOnlyDagService(single{f}), pn)
		if err != nil {
			return cid.Undef, err
		}
		l, err := t.Find(f.ctx, name)
		if err != nil {
			return cid.Undef, err
		}
		return l.Cid, nil
	}
	for _, l := range pn.Links() {
		if l.Name == name {
			return l.Cid, nil
		}
	}
	return cid.Undef, os.ErrNotExist
}

func directoryOf(n ipld.Node) (pn *merkledag.ProtoNode, isTrie bool, err error) {
	pn, ok := n.(*merkledag.ProtoNode)
	if !ok {
		return nil, false, errNoDirectory
	}
	fs, err := unixfs.FSNodeFromBytes(pn.Data())
	if err != nil {
		return nil, false, err
	}
	switch fs.Type() {
	case unixfs.TDirectory:
		return pn, false, nil
	case unixfs.THAMTShard:
		return pn, true, nil
	}
	return nil, false, errNoDirectory
}

// single gives nodes to what looks a name up: as many as a hash has bits at most.
type single struct{ f *fetcher }

// GetMany is not offered: a look-up needs one node after the other.
func (single) GetMany(context.Context, []cid.Cid) <-chan *ipld.NodeOption {
	ch := make(chan *ipld.NodeOption, 1)
	ch <- &ipld.NodeOption{Err: errWriteOnly}
	close(ch)
	return ch
}

// Get fetches one node.
func (r single) Get(_ context.Context, c cid.Cid) (ipld.Node, error) {
	if err := checkCID(c); err != nil {
		return nil, err
	}
	return r.f.node(c)
}

// lister goes through directories. What they are made of comes from others: everything is counted, because a few blocks can be linked so that they
// are a tree without end.
type lister struct {
	f            *fetcher
	recursive    bool
	each         func(Listed) error
	left, blocks int // how much more there may be
}

func (l *lister) list(under string, at cid.Cid, n ipld.Node) error {
	pn, isTrie, err := directoryOf(n)
	if errors.Is(err, errNoDirectory) {
		return fault.FailedPrecondition("CONTENT_IS_NO_DIRECTORY", "%s is a file: a directory can be listed", at)
	}
	if err != nil {
		return err
	}
	links := pn.Links()
	if isTrie {
		if links, err = l.trie(pn); err != nil {
			return err
		}
	}
	if l.left -= len(links); l.left < 0 {
		return fault.ResourceExhausted(ReasonTooLarge, "%s has more than %d entries: list its directories one by one", l.f.root, maxEntries)
	}
	links = slices.Clone(links)
	slices.SortFunc(links, func(a, b *ipld.Link) int { return cmp.Compare(a.Name, b.Name) })
	for i, link := range links {
		if i > 0 && links[i-1].Name == link.Name {
			return fmt.Errorf("the name %q is there twice", treepath.Shown(link.Name))
		}
		if err := checkName(under, link.Name); err != nil {
			return err
		}
		if i%window == 0 {
			if err := l.bring(links[i:min(i+window, len(links))]); err != nil {
				return err
			}
		}
		if err := l.entry(under, link); err != nil {
			return err
		}
	}
	return nil
}

func checkName(under, name string) error {
	err := treepath.Check(under + name)
	if err == nil && strings.Contains(name, "/") {
		err = treepath.Error("a name has a slash in it")
	}
	if err != nil {
		return fmt.Errorf("the path %q cannot be one in a directory: %w", treepath.Shown(under+name), err)
	}
	return nil
}

func (l *lister) entry(under string, link *ipld.Link) error {
	e := Listed{Path: under + link.Name, CID: link.Cid, Kind: kindRaw, Size: link.Size}
	if err := checkCID(link.Cid); err != nil {
		e.Kind, e.Size = kindOther, 0
		return l.each(e)
	}
	e.CID = canonical(link.Cid)
	if link.Cid.Type() == cid.Raw {
		return l.each(e)
	}
	if err := l.count(); err != nil {
		return err
	}
	n, err := l.f.node(link.Cid)
	if err != nil {
		return err
	}
	if e.Kind, e.Size, err = describe(n); err != nil {
		e.Kind, e.Size = kindOther, 0
	}
	if err := l.each(e); err != nil || e.Kind != kindDirectory || !l.recursive {
		return err
	}
	return l.list(e.Path+"/", link.Cid, n)
}

func (l *lister) count() error {
	if l.blocks--; l.blocks < 0 {
		return fault.ResourceExhausted(ReasonTooLarge, "%s takes more than %d blocks to be listed", l.f.root, maxEntries)
	}
	return nil
}

// bring fetches together what will be looked at one after the other.
func (l *lister) bring(links []*ipld.Link) error {
	var inner []cid.Cid
	for _, link := range links {
		if link.Cid.Type() == cid.DagProtobuf {
			inner = append(inner, link.Cid)
		}
	}
	return (&walk{f: l.f}).bring(inner)
}

// trie collects the names of a directory that is more than one block. The links of its nodes begin with a number of fixed width; those that are
// nothing else lead to further nodes.
func (l *lister) trie(root *merkledag.ProtoNode) (all []*ipld.Link, err error) {
	fs, err := unixfs.FSNodeFromBytes(root.Data())
	if err != nil {
		return nil, err
	}
	if fs.Fanout() < 2 || fs.Fanout() > 1024 {
		return nil, fmt.Errorf("a directory in parts has a fanout of %d", fs.Fanout())
	}
	width := len(fmt.Sprintf("%X", fs.Fanout()-1))
	todo, seen := []*merkledag.ProtoNode{root}, map[string]bool{}
	for len(todo) > 0 {
		n := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		var parts []cid.Cid
		for _, link := range n.Links() {
			switch {
			case len(link.Name) < width:
				return nil, fmt.Errorf("a part of a directory has the name %q", link.Name)
			case len(link.Name) > width:
				if all = append(all, &ipld.Link{Name: link.Name[width:], Size: link.Size, Cid: link.Cid}); len(all) > maxEntries {
					return nil, fault.ResourceExhausted(ReasonTooLarge, "%s has more than %d entries", l.f.root, maxEntries)
				}
			case seen[keyOf(link.Cid)]:
				return nil, errors.New("two parts of a directory are the same")
			default:
				seen[keyOf(link.Cid)] = true
				parts = append(parts, link.Cid)
			}
		}
		if err := l.parts(parts, &todo); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func (l *lister) parts(parts []cid.Cid, todo *[]*merkledag.ProtoNode) error {
	for next := range slices.Chunk(parts, window) {
		if err := (&walk{f: l.f}).bring(next); err != nil {
			return err
		}
		for _, c := range next {
			if err := l.count(); err != nil {
				return err
			}
			n, err := l.f.node(c)
			if err != nil {
				return err
			}
			pn, isTrie, err := directoryOf(n)
			if err != nil {
				return err
			}
			if !isTrie {
				return errors.New("a part of a directory is none")
			}
			*todo = append(*todo, pn)
		}
	}
	return nil
}
