package repository

import (
	"bytes"
	"context"
	"errors"

	bstore "github.com/ipfs/boxo/blockstore"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
	mh "github.com/multiformats/go-multihash"

	app "github.com/shallot-net/shallot/broker/internal/app/content"
	"github.com/shallot-net/shallot/broker/internal/domain/content"
)

// blockstore is the store as bitswap sees it. Blocks whose name holds their bytes are not stored.
type blockstore struct {
	s       *Store
	persona string
}

var _ bstore.Blockstore = (*blockstore)(nil)

func identity(c cid.Cid) ([]byte, bool) {
	d, err := mh.Decode(c.Hash())
	if err != nil || d.Code != mh.IDENTITY {
		return nil, false
	}
	return d.Digest, true
}

// empty says whether a CID is that of no bytes at all: nobody needs to be asked for those, and a Kubo would never send them.
func empty(c cid.Cid) bool {
	p := c.Prefix()
	if p.MhType == mh.IDENTITY {
		return false
	}
	sum, err := mh.Sum(nil, p.MhType, p.MhLength)
	return err == nil && bytes.Equal(sum, c.Hash())
}

func missing(err error, c cid.Cid) error {
	if errors.Is(err, content.ErrNotFound) {
		return ipld.ErrNotFound{Cid: c}
	}
	return err
}

func (b *blockstore) Has(ctx context.Context, c cid.Cid) (bool, error) {
	if !b.may(ctx, c) {
		return false, nil
	}
	if _, ok := identity(c); ok {
		return true, nil
	}
	_, err := b.s.blocks.Size(keyOf(c))
	if errors.Is(err, content.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// Get reads what bitswap has planned to send, after GetSize.
func (b *blockstore) Get(_ context.Context, c cid.Cid) (blocks.Block, error) {
	if data, ok := identity(c); ok {
		return blocks.NewBlockWithCid(data, c)
	}
	data, err := b.s.blocks.Get(keyOf(c))
	if err != nil {
		b.s.metrics.readFailed(err)
		return nil, missing(err, c)
	}
	b.s.metrics.blocks.WithLabelValues("served").Inc()
	b.s.metrics.bytes.WithLabelValues("served").Add(float64(len(data)))
	return blocks.NewBlockWithCid(data, c)
}

// GetSize is what bitswap plans with. An empty block has the size 1 here: boxo's engine takes a size of 0 for "only asked whether it is
// there", so that nobody would ever get one.
func (b *blockstore) GetSize(ctx context.Context, c cid.Cid) (int, error) {
	if !b.may(ctx, c) {
		return -1, missing(content.ErrNotFound, c)
	}
	if data, ok := identity(c); ok {
		return len(data), nil
	}
	n, err := b.s.blocks.Size(keyOf(c))
	if err != nil {
		return -1, missing(err, c)
	}
	return max(n, 1), nil
}

func (b *blockstore) Put(ctx context.Context, blk blocks.Block) error {
	return b.PutMany(ctx, []blocks.Block{blk})
}

func (b *blockstore) PutMany(_ context.Context, many []blocks.Block) error {
	c := app.Change{Blocks: make([]app.Block, 0, len(many))}
	for _, blk := range many {
		if _, ok := identity(blk.Cid()); !ok {
			c.Blocks = append(c.Blocks, app.Block{Key: keyOf(blk.Cid()), Data: blk.RawData()})
		}
	}
	return b.s.blocks.Commit(c)
}

var errNotOffered = errors.New("blocks are removed by collection, and listed by nobody")

// DeleteBlock is not offered: only a collection knows what is not needed.
func (b *blockstore) DeleteBlock(context.Context, cid.Cid) error { return errNotOffered }

// AllKeysChan is not offered: bitswap does not need it.
func (b *blockstore) AllKeysChan(context.Context) (<-chan cid.Cid, error) { return nil, errNotOffered }
