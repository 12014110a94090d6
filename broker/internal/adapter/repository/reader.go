package repository

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/boxo/ipld/unixfs"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
)

// reader gives a file's bytes in order, while the blocks to come are being fetched: boxo's own reader asks for ten, waits until they are
// used up, and asks for ten more, so that a line with a long way is idle half of the time.
//
// Every node must have the size that the link to it says, and what has none is skipped. So whoever makes a file of few blocks with paths
// without number at least has to deliver the bytes, and max_size ends it.
type reader struct {
	f      *fetcher
	frames []*frame // from the root down to the node whose leaves are being read
}

const (
	aheadBytes = 12 << 20 // on their way, by the sizes that are announced
	maxAhead   = 32       // children on their way, whatever is announced
	maxDepth   = 64
)

// frame is one node with links, and where reading is among its children.
type frame struct {
	children []child
	at       int // the next one to be read
	skip     uint64
	ring     []chan block // child i arrives in ring[i % len(ring)]
	tokens   chan struct{}
	stop     context.CancelFunc
}

type child struct {
	cid  cid.Cid
	size uint64
}

type block struct {
	data []byte
	err  error
}

var (
	errDepth   = errors.New("it is nested too deeply")
	errSizes   = errors.New("a node does not give the sizes of its parts")
	errNotFile = errors.New("a part of it is not a file")
)

// next returns the bytes that follow, any number of them but none, or io.EOF.
func (r *reader) next() ([]byte, error) {
	for len(r.frames) > 0 {
		fr := r.frames[len(r.frames)-1]
		if fr.at == len(fr.children) {
			fr.stop()
			r.frames = r.frames[:len(r.frames)-1]
			continue
		}
		c, skip := fr.children[fr.at], fr.skip
		var b block
		select {
		case b = <-fr.ring[fr.at%len(fr.ring)]:
		case <-r.f.ctx.Done():
			return nil, r.f.cause(r.f.ctx.Err())
		}
		if b.err != nil {
			return nil, b.err
		}
		fr.at++
		fr.skip = 0
		<-fr.tokens
		data, err := r.enter(c, b.data, skip)
		if err != nil || len(data) > 0 {
			return data, err
		}
	}
	return nil, io.EOF
}

// enter returns a leaf's bytes, or begins with a node's children.
func (r *reader) enter(c child, data []byte, skip uint64) ([]byte, error) {
	n, err := decode(c.cid, data)
	if err != nil {
		return nil, err
	}
	bytes, children, size, err := parts(n)
	if err != nil {
		return nil, err
	}
	if size != c.size {
		return nil, fmt.Errorf("a part has %d bytes where %d were announced", size, c.size)
	}
	if children == nil {
		return bytes[min(skip, uint64(len(bytes))):], nil
	}
	if len(r.frames) == maxDepth {
		return nil, errDepth
	}
	r.push(children, skip)
	return nil, nil
}

// parts takes a node of a file apart: its own bytes, or children that have bytes.
func parts(n ipld.Node) (data []byte, children []child, size uint64, err error) {
	pn, ok := n.(*merkledag.ProtoNode)
	if !ok {
		return n.RawData(), nil, uint64(len(n.RawData())), nil
	}
	fs, err := unixfs.FSNodeFromBytes(pn.Data())
	if err != nil {
		return nil, nil, 0, err
	}
	if t := fs.Type(); t != unixfs.TFile && t != unixfs.TRaw {
		return nil, nil, 0, errNotFile
	}
	links := pn.Links()
	if len(links) == 0 {
		return fs.Data(), nil, uint64(len(fs.Data())), nil
	}
	if fs.NumChildren() != len(links) {
		return nil, nil, 0, errSizes
	}
	children = make([]child, 0, len(links))
	for i, l := range links {
		if n := fs.BlockSize(i); n > 0 {
			children = append(children, child{l.Cid, n})
			if size += n; size < n {
				return nil, nil, 0, errSizes
			}
		}
	}
	return nil, children, size, nil
}

// push begins with a node's children, after the bytes that are to be skipped, and has them fetched.
func (r *reader) push(children []child, skip uint64) {
	for len(children) > 0 && skip >= children[0].size {
		skip -= children[0].size
		children = children[1:]
	}
	// Nodes with links announce all that is below them, so of these the next ones only are on their way.
	var largest uint64 = 1
	for _, c := range children {
		largest = max(largest, c.size)
	}
	room := int(min(max(aheadBytes/largest, 2), maxAhead))
	ctx, stop := context.WithCancel(r.f.ctx)
	fr := &frame{children: children, skip: skip, ring: make([]chan block, room), tokens: make(chan struct{}, room), stop: stop}
	for i := range fr.ring {
		fr.ring[i] = make(chan block, 1)
	}
	r.frames = append(r.frames, fr)
	go fr.fetch(ctx, r.f)
}

func (r *reader) close() {
	for _, fr := range r.frames {
		fr.stop()
	}
}

// fetch has the children brought in order, as many at a time as there are tokens.
func (fr *frame) fetch(ctx context.Context, f *fetcher) {
	for i := 0; i < len(fr.children); {
		select {
		case fr.tokens <- struct{}{}:
		case <-ctx.Done():
			return
		}
		n := 1
		for more := true; more && i+n < len(fr.children) && n < cap(fr.tokens)/2; {
			select {
			case fr.tokens <- struct{}{}:
				n++
			default:
				more = false
			}
		}
		fr.bring(ctx, f, i, i+n)
		i += n
	}
}

// bring delivers the children from i to end: what is on disk at once, the rest as it comes.
func (fr *frame) bring(ctx context.Context, f *fetcher, i, end int) {
	misses := make(map[cid.Cid][]int)
	var ask []cid.Cid
	damaged := make(map[cid.Cid]error)
	for ; i < end; i++ {
		c := fr.children[i].cid
		data, retry, err := f.here(c)
		if retry {
			if misses[c] == nil {
				ask = append(ask, c)
			}
			misses[c] = append(misses[c], i)
			damaged[c] = err
			continue
		}
		fr.give(i, block{data, err})
	}
	if len(ask) == 0 {
		return
	}
	go func() {
		err := f.remote(ctx, ask, func(c cid.Cid, data []byte) error {
			for _, i := range misses[c] {
				fr.give(i, block{data: data})
			}
			delete(misses, c)
			return nil
		})
		for c, at := range misses {
			for _, i := range at {
				fr.give(i, block{err: f.worse(damaged[c], err)})
			}
		}
	}()
}

func (fr *frame) give(i int, b block) { fr.ring[i%len(fr.ring)] <- b }
