package repository

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/ipfs/boxo/ipld/unixfs/importer/balanced"
	"github.com/ipfs/boxo/ipld/unixfs/importer/helpers"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
	mh "github.com/multiformats/go-multihash"

	app "github.com/shallot-net/shallot/broker/internal/app/content"
	"github.com/shallot-net/shallot/broker/internal/domain/content"
)

// The layout of files: raw leaves of 1 MiB, 1024 links a node. It is Kubo's profile unixfs-v1-2025, so that a file has the same CID here
// and there; and four times fewer blocks than with 256 KiB cost four times fewer round trips. In anonymous mode leaves have 256 KiB (profile.go): there is nobody there to whom the CID
// would have to be the same.
const (
	chunkSize  = 1 << 20
	smallChunk = 256 << 10 // in anonymous mode
	maxLinks   = 1024
)

var builder = cid.V1Builder{Codec: cid.DagProtobuf, MhType: mh.SHA2_256}

// PinFor says for whom content is kept; the zero value pins nothing.
type PinFor struct {
	Owner string
	Keep  time.Duration
	// Readers are the peers that may have it from Persona's host. In open mode everybody may.
	Persona string
	Readers []string
}

// Put stores a file and returns when it, and the pin, are durable. It holds a few chunks in memory, whatever the file's size.
func (s *Store) Put(ctx context.Context, r io.Reader, pin PinFor) (c cid.Cid, size uint64, err error) {
	return s.put(ctx, pin, func(w *sink) (ipld.Node, uint64, error) { return layout(w, r, s.profile.chunk) })
}

// layout makes the nodes of one file.
func layout(w *sink, r io.Reader, leaf int) (root ipld.Node, size uint64, err error) {
	file := &chunker{r: r, leaf: leaf}
	params := helpers.DagBuilderParams{Maxlinks: maxLinks, RawLeaves: true, CidBuilder: builder, Dagserv: w}
	db, err := params.New(file)
	if err != nil {
		return nil, 0, err
	}
	root, err = balanced.Layout(db)
	return root, file.size, err
}

// put stores what make gives to the sink, and pins the root that it returns.
func (s *Store) put(ctx context.Context, pin PinFor, make func(*sink) (ipld.Node, uint64, error)) (c cid.Cid, size uint64, err error) {
	defer func() { s.metrics.done("put", err) }()
	if err := s.checkPin(pin); err != nil { // before the first byte, not after the last
		return cid.Undef, 0, toFault(err, cid.Undef)
	}
	leave, err := s.puts.enter(ctx)
	if err != nil {
		return cid.Undef, 0, err
	}
	defer leave()
	release := s.blocks.Hold()
	defer release()
	w := newSink(ctx, s.blocks)
	defer w.stop()
	root, size, err := make(w)
	if err != nil {
		return cid.Undef, 0, toFault(err, cid.Undef)
	}
	c = canonical(root.Cid())
	last := app.Change{Durable: true}
	if pin.Owner != "" {
		p, err := s.newPin(c.String(), pin, s.cfg.Now())
		if err != nil {
			return cid.Undef, 0, toFault(err, cid.Undef)
		}
		last.Pins = []content.Pin{p}
		s.metrics.pins.WithLabelValues("added").Inc()
	}
	if err := w.finish(last); err != nil {
		return cid.Undef, 0, toFault(err, c)
	}
	s.serve([]cid.Cid{c}, [][]byte{root.RawData()})
	s.advertise(c, pin.Owner)
	s.metrics.flow("put", w.blocks, int(size)) //nolint:gosec // it has been on a disk
	return c, size, nil
}

// Small is one file of a PutMany: one raw block.
type Small struct {
	Data []byte
	Pin  PinFor
}

// PutMany stores small files, all or none, without a sync.
func (s *Store) PutMany(files []Small) (cids []cid.Cid, err error) {
	defer func() { s.metrics.done("put_many", err) }()
	c := app.Change{Blocks: make([]app.Block, 0, len(files))}
	now := s.cfg.Now()
	total := 0
	for _, f := range files {
		if err := s.check(f); err != nil {
			return nil, toFault(err, cid.Undef)
		}
		sum, err := mh.Sum(f.Data, mh.SHA2_256, -1)
		if err != nil {
			return nil, toFault(err, cid.Undef)
		}
		id := cid.NewCidV1(cid.Raw, sum)
		c.Blocks = append(c.Blocks, app.Block{Key: string(sum), Data: f.Data})
		if f.Pin.Owner != "" {
			p, err := s.newPin(id.String(), f.Pin, now)
			if err != nil {
				return nil, toFault(err, cid.Undef)
			}
			c.Pins = append(c.Pins, p)
		}
		cids = append(cids, id)
		total += len(f.Data)
	}
	if err := s.blocks.Commit(c); err != nil {
		return nil, toFault(err, cid.Undef)
	}
	data := make([][]byte, len(files))
	for i, f := range files {
		data[i] = f.Data
	}
	s.serve(cids, data)
	s.metrics.flow("put", len(files), total)
	s.metrics.pins.WithLabelValues("added").Add(float64(len(c.Pins)))
	return cids, nil
}

func (s *Store) check(f Small) error {
	if len(f.Data) > content.MaxSmall {
		return &content.InvalidError{Field: "data", Value: sizeText(len(f.Data)), Why: "256 KiB at most: use Put for more"}
	}
	return s.checkPin(f.Pin)
}

func (s *Store) checkPin(pin PinFor) error {
	if pin.Owner != "" {
		_, err := s.newPin("", pin, time.Time{})
		return err
	}
	if len(pin.Readers) > 0 {
		return &content.InvalidError{Field: "readers", Value: pin.Readers[0][:min(len(pin.Readers[0]), 16)], Why: "content is granted as long as it is pinned, and there is no owner to pin it for"}
	}
	return nil
}

// sink takes the nodes that the layout makes and writes them in batches, one of which is written while the next one is filled.
type sink struct {
	ctx    context.Context
	store  app.Store
	blocks int

	batch  []app.Block
	filled int
	work   chan []app.Block
	idle   chan error // outcome of the batch before; one is always due
	done   chan struct{}
}

const sinkBatch = 2 << 20

// Buffers of leaves, for all Puts: a tiny file must not cost a fresh MiB.
var (
	chunks      = sync.Pool{New: func() any { b := make([]byte, chunkSize); return &b }}
	smallChunks = sync.Pool{New: func() any { b := make([]byte, smallChunk); return &b }}
)

var _ ipld.DAGService = (*sink)(nil)

func newSink(ctx context.Context, store app.Store) *sink {
	w := &sink{ctx: ctx, store: store, work: make(chan []app.Block), idle: make(chan error, 1), done: make(chan struct{})}
	w.idle <- nil
	go w.run()
	return w
}

func (w *sink) run() {
	defer close(w.done)
	for batch := range w.work {
		err := w.store.Commit(app.Change{Blocks: batch})
		for _, b := range batch {
			recycle(b.Data)
		}
		w.idle <- err
	}
}

// stop returns when nothing is being written any more: what was written is held no longer than that.
func (w *sink) stop() {
	close(w.work)
	<-w.done
}

// recycle takes a leaf's bytes back: nobody looks at them once they are written.
func recycle(b []byte) {
	switch b = b[:cap(b)]; len(b) {
	case chunkSize:
		chunks.Put(&b)
	case smallChunk:
		smallChunks.Put(&b)
	}
}

// Add keeps the node's bytes until they are written.
func (w *sink) Add(_ context.Context, n ipld.Node) error {
	data := n.RawData()
	w.batch = append(w.batch, app.Block{Key: keyOf(n.Cid()), Data: data})
	w.blocks++
	if w.filled += len(data); w.filled < sinkBatch && len(w.batch) < 1024 {
		return nil
	}
	if err := w.before(); err != nil {
		return err
	}
	w.work <- w.batch
	w.batch, w.filled = nil, 0
	return nil
}

// before waits for the batch that is being written.
func (w *sink) before() error {
	select {
	case err := <-w.idle:
		if err != nil {
			w.idle <- err // also what comes next fails with it
		}
		return err
	case <-w.ctx.Done():
		return context.Cause(w.ctx)
	}
}

// finish writes the rest together with the last change.
func (w *sink) finish(last app.Change) error {
	if err := w.before(); err != nil {
		return err
	}
	w.idle <- nil
	last.Blocks = append(last.Blocks, w.batch...)
	err := w.store.Commit(last)
	for _, b := range w.batch {
		recycle(b.Data)
	}
	return err
}

// AddMany is part of ipld.DAGService.
func (w *sink) AddMany(ctx context.Context, nodes []ipld.Node) error {
	for _, n := range nodes {
		if err := w.Add(ctx, n); err != nil {
			return err
		}
	}
	return nil
}

var errWriteOnly = errors.New("this end only takes nodes")

// Get is not offered: a layout reads nothing back.
func (w *sink) Get(context.Context, cid.Cid) (ipld.Node, error) { return nil, errWriteOnly }

// GetMany is not offered.
func (w *sink) GetMany(context.Context, []cid.Cid) <-chan *ipld.NodeOption {
	ch := make(chan *ipld.NodeOption, 1)
	ch <- &ipld.NodeOption{Err: errWriteOnly}
	close(ch)
	return ch
}

// Remove is not offered.
func (w *sink) Remove(context.Context, cid.Cid) error { return errWriteOnly }

// RemoveMany is not offered.
func (w *sink) RemoveMany(context.Context, []cid.Cid) error { return errWriteOnly }

// chunker cuts the file, into buffers that are used again once they are written.
type chunker struct {
	r    io.Reader
	leaf int
	size uint64
	err  error
}

// Reader is part of chunk.Splitter.
func (c *chunker) Reader() io.Reader { return c.r }

// NextBytes is part of chunk.Splitter.
func (c *chunker) NextBytes() ([]byte, error) {
	if c.err != nil {
		return nil, c.err
	}
	pool := &chunks
	if c.leaf == smallChunk {
		pool = &smallChunks
	}
	b := *pool.Get().(*[]byte)
	n, err := io.ReadFull(c.r, b)
	c.size += uint64(n)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err, c.err = nil, io.EOF
	}
	if err != nil {
		c.err = err
		return nil, err
	}
	return b[:n], nil
}
