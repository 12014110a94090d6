package repository

import (
	"context"
	"errors"
	"io"
	"sync"

	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/boxo/ipld/unixfs"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
	"google.golang.org/grpc/codes"

	"github.com/shallot-net/shallot/broker/internal/domain/content"
	"github.com/shallot-net/shallot/kit/fault"
)

// File is an open file.
type File struct {
	Size uint64
	s    *Store
	c    cid.Cid
	r    reader
	f    *fetcher
	stop func()
	read uint64 // up to here, from the file's beginning, rest included
	rest []byte
	err  error
}

// Open finds a file and stands at offset. maxSize 0 is no limit.
func (s *Store) Open(ctx context.Context, text string, src Source, offset, maxSize uint64) (*File, error) {
	return s.OpenPath(ctx, text, "", src, offset, maxSize)
}

// OpenPath is Open for a file in a directory.
func (s *Store) OpenPath(ctx context.Context, text, path string, src Source, offset, maxSize uint64) (_ *File, err error) {
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
	file := &File{s: s, c: c, f: f, r: reader{f: f}, read: offset, stop: sync.OnceFunc(func() { end(); leave() })}
	if err := file.open(path, maxSize); err != nil {
		file.stop()
		return nil, toFault(err, c)
	}
	return file, nil
}

func (o *File) open(path string, maxSize uint64) error {
	c, root, err := o.f.resolve(path)
	if err != nil {
		return err
	}
	o.c = c
	kind, size, err := describe(root)
	if err != nil {
		return malformed(o.c, err)
	}
	if kind == kindDirectory {
		return fault.FailedPrecondition(ReasonIsDirectory, "%s is a directory: name a file in it", o.c)
	}
	o.Size = size
	if maxSize > 0 && o.Size > maxSize {
		return fault.ResourceExhausted(ReasonTooLarge, "%s has %d bytes and may have %d", o.c, o.Size, maxSize)
	}
	if o.read > o.Size {
		return fault.New(codes.OutOfRange, "OFFSET_OUT_OF_RANGE", "the offset %d is past the end of %s, which has %d bytes", o.read, o.c, o.Size)
	}
	first, err := o.r.enter(child{o.c, o.Size}, root.RawData(), o.read)
	if err != nil {
		return malformed(o.c, err)
	}
	o.keep(first)
	return nil
}

// keep holds bytes until they are asked for.
func (o *File) keep(b []byte) {
	o.rest = b
	o.read += uint64(len(b))
	o.s.metrics.bytes.WithLabelValues("got").Add(float64(len(b)))
}

func (o *File) fill() error {
	if len(o.rest) > 0 || o.err != nil {
		return o.err
	}
	b, err := o.r.next()
	switch {
	case err == nil:
		o.keep(b)
	case errors.Is(err, io.EOF) && o.read < o.Size: // the sizes of all parts have been compared: it cannot happen
		o.err = malformed(o.c, io.ErrUnexpectedEOF)
	case errors.Is(err, io.EOF):
		o.err = err
	default:
		o.err = toFault(malformed(o.c, o.f.cause(err)), o.c)
	}
	return o.err
}

// Next returns the bytes that follow, at least one and a block's at most, or io.EOF. They are the caller's until the next call.
func (o *File) Next() ([]byte, error) {
	if err := o.fill(); err != nil {
		return nil, err
	}
	b := o.rest
	o.rest = nil
	return b, nil
}

// Read implements io.Reader.
func (o *File) Read(b []byte) (int, error) {
	if err := o.fill(); err != nil {
		return 0, err
	}
	n := copy(b, o.rest)
	o.rest = o.rest[n:]
	return n, nil
}

// Close ends what is being fetched.
func (o *File) Close() error {
	o.r.close()
	o.stop()
	return nil
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

// malformed is err as the content's own fault, unless it is one of reading it.
func malformed(c cid.Cid, err error) error {
	var (
		known   *fault.Error
		corrupt *content.CorruptError
		torn    *content.TornError
		full    *content.FullError
		quota   *content.QuotaError
	)
	switch {
	case errors.As(err, &known), errors.As(err, &corrupt), errors.As(err, &torn), errors.As(err, &full), errors.As(err, &quota), errors.Is(err, content.ErrNotFound),
		errors.Is(err, content.ErrClosed), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	}
	return fault.InvalidArgument(ReasonMalformed, "%s cannot be read as a file: %s", c, err).Because(err)
}
