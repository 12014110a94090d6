package repository

import (
	"context"
	"errors"
	"io"
	"sync"

	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/boxo/ipld/unixfs"
	uio "github.com/ipfs/boxo/ipld/unixfs/io"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
	"google.golang.org/grpc/codes"

	"github.com/shallot-net/shallot/kit/fault"
)

// File is an open file. Read fails with faults; Close ends what is being fetched.
type File struct {
	Size uint64
	s    *Store
	c    cid.Cid
	r    uio.DagReader
	f    *fetcher
	stop func()
	read uint64 // up to here, from the file's beginning
	err  error
}

// Open finds a file and stands at offset. maxSize 0 is no limit.
func (s *Store) Open(ctx context.Context, text string, src Source, offset, maxSize uint64) (_ *File, err error) {
	defer func() { s.metrics.done("get", err) }()
	c, err := parseCID(text)
	if err != nil {
		return nil, err
	}
	leave, err := s.gets.enter(ctx)
	if err != nil {
		return nil, err
	}
	f, end, err := s.newFetcher(ctx, c, src)
	if err != nil {
		leave()
		return nil, err
	}
	stop := sync.OnceFunc(func() { end(); leave() })
	file := &File{s: s, c: c, f: f, stop: stop, read: offset}
	if err := file.open(maxSize); err != nil {
		stop()
		return nil, toFault(err, c)
	}
	return file, nil
}

func (o *File) open(maxSize uint64) error {
	root, err := o.f.Get(o.f.ctx, o.c)
	if err != nil {
		return err
	}
	if kind, _, err := describe(root); err != nil {
		return malformed(o.c, err)
	} else if kind == kindDirectory {
		return fault.FailedPrecondition(ReasonIsDirectory, "%s is a directory: name a file in it", o.c)
	}
	if o.r, err = uio.NewDagReader(o.f.ctx, root, o.f); err != nil {
		return malformed(o.c, err)
	}
	o.Size = o.r.Size()
	if maxSize > 0 && o.Size > maxSize {
		return fault.ResourceExhausted(ReasonTooLarge, "%s has %d bytes and may have %d", o.c, o.Size, maxSize)
	}
	if o.read > o.Size {
		return fault.New(codes.OutOfRange, "OFFSET_OUT_OF_RANGE", "the offset %d is past the end of %s, which has %d bytes", o.read, o.c, o.Size)
	}
	if o.read > 0 {
		if _, err := o.r.Seek(int64(o.read), io.SeekStart); err != nil {
			return o.f.cause(err)
		}
	}
	return nil
}

// Read fills b as far as the file goes. A file that turns out longer or shorter than it says is an error: its end would be a lie.
func (o *File) Read(b []byte) (int, error) {
	if o.err != nil {
		return 0, o.err
	}
	n, err := o.r.CtxReadFull(o.f.ctx, b)
	o.read += uint64(n)
	switch {
	case o.read > o.Size:
		n, err = 0, malformed(o.c, errors.New("it is longer than it says"))
	case errors.Is(err, io.EOF) && o.read < o.Size:
		n, err = 0, malformed(o.c, errors.New("it is shorter than it says"))
	case err != nil && !errors.Is(err, io.EOF):
		err = toFault(o.f.cause(err), o.c)
	}
	if err != nil {
		o.err = err
	}
	o.s.metrics.bytes.WithLabelValues("got").Add(float64(n))
	return n, err
}

// Close may be called at any time.
func (o *File) Close() error {
	o.stop()
	return o.r.Close()
}

const (
	kindFile      = "file"
	kindDirectory = "directory"
	kindRaw       = "raw"
)

// describe says what a root is, and the file's size.
func describe(n ipld.Node) (kind string, size uint64, err error) {
	switch n := n.(type) {
	case *merkledag.RawNode:
		return kindRaw, uint64(len(n.RawData())), nil
	case *merkledag.ProtoNode:
		fs, err := unixfs.FSNodeFromBytes(n.Data())
		if err != nil {
			return "", 0, err
		}
		switch fs.Type() {
		case unixfs.TFile, unixfs.TRaw:
			return kindFile, fs.FileSize(), nil
		case unixfs.TDirectory, unixfs.THAMTShard:
			return kindDirectory, 0, nil
		}
		return "", 0, errors.New("it is neither a file nor a directory")
	}
	return "", 0, errors.New("it is no node of a file or directory")
}

func malformed(c cid.Cid, err error) error {
	var known *fault.Error
	if errors.As(err, &known) {
		return known
	}
	return fault.InvalidArgument(ReasonMalformed, "%s cannot be read as a file: %s", c, err).Because(err)
}
