package repository

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/ipfs/boxo/exchange"
	"github.com/ipfs/boxo/ipld/merkledag"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	app "github.com/shallot-net/shallot/broker/internal/app/content"
	"github.com/shallot-net/shallot/broker/internal/domain/content"
	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/logging"
)

// Source says where content may come from. The zero value is the node's own persona, asking whoever is connected.
type Source struct {
	Persona string
	Peers   []string // asked first; in anonymous mode, asked
	Local   bool     // the disk only
}

const (
	maxFromPeers = 32
	window       = 16 // blocks asked for at once, of 2 MiB at most
)

// fetcher gives the blocks of one request: from disk, and otherwise from peers, by one bitswap session that begins with the first miss.
type fetcher struct {
	s     *Store
	src   Source
	peers []peer.ID
	root  cid.Cid

	ctx    context.Context
	cancel context.CancelCauseFunc

	mu      sync.Mutex
	session exchange.Fetcher
	from    *persona
	ways    *spread // anonymous mode, instead of the two
	failed  error
	stall   *time.Timer
	waiting int
	begun   bool // a block has come
}

// newFetcher checks the source. stop ends the session.
func (s *Store) newFetcher(ctx context.Context, root cid.Cid, src Source) (f *fetcher, stop func(), err error) {
	f = &fetcher{s: s, src: src, root: root}
	if len(src.Peers) > maxFromPeers {
		return nil, nil, fault.InvalidArgument("INVALID_ARGUMENT", "%d peers are named, and %d may be", len(src.Peers), maxFromPeers)
	}
	for _, p := range src.Peers {
		id, err := peer.Decode(p)
		if err != nil {
			return nil, nil, fault.InvalidArgument("PEER_INVALID", "%q is not a peer id", p).Because(err)
		}
		f.peers = append(f.peers, id)
	}
	f.ctx, f.cancel = context.WithCancelCause(ctx)
	unhook := context.AfterFunc(s.ctx, func() { f.cancel(context.Cause(s.ctx)) })
	return f, func() {
		unhook()
		f.cancel(context.Canceled)
	}, nil
}

// cause is err, or why the request was ended.
func (f *fetcher) cause(err error) error {
	if f.ctx.Err() != nil {
		return context.Cause(f.ctx)
	}
	return err
}

func (f *fetcher) online() (exchange.Fetcher, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.session != nil || f.failed != nil {
		return f.session, f.failed
	}
	f.session, f.from, f.failed = f.begin()
	return f.session, f.failed
}

func (f *fetcher) begin() (exchange.Fetcher, *persona, error) {
	if f.src.Local {
		return nil, nil, content.ErrNotFound
	}
	p, err := f.s.persona(f.src.Persona)
	if err != nil {
		return nil, nil, err
	}
	f.connect(p)
	if err := f.ctx.Err(); err != nil {
		return nil, nil, f.cause(err)
	}
	if f.s.cfg.Routing == nil && len(p.host.Network().Peers()) == 0 {
		if len(f.peers) > 0 {
			return nil, nil, fault.Unavailable(ReasonUnreachable, "the content %s is not here, and none of the %d peers named for it can be reached", f.root, len(f.peers))
		}
		return nil, nil, fault.NotFound(ReasonNotFound, "the content %s is not here, and no peer is connected to ask: name one that has it", f.root)
	}
	return p.bitswap.NewSession(f.ctx), p, nil
}

// connect dials the named peers, and returns when one is connected or none can be.
func (f *fetcher) connect(p *persona) (connected bool) {
	var dial []peer.ID
	for _, id := range f.peers {
		switch {
		case id == p.host.ID():
		case p.host.Network().Connectedness(id) == network.Connected:
			connected = true
		default:
			dial = append(dial, id)
		}
	}
	outcomes := make(chan error, len(dial))
	for _, id := range dial {
		go func() {
			ctx, cancel := context.WithTimeout(f.ctx, f.s.profile.connect)
			defer cancel()
			outcomes <- p.host.Connect(ctx, peer.AddrInfo{ID: id})
		}()
	}
	// Those that come later are welcome too: bitswap asks whoever connects.
	for i := 0; i < len(dial) && !connected; i++ {
		err := <-outcomes
		if connected = err == nil; !connected {
			f.s.log.Debug("connecting to a peer named for content", logging.Err(err))
		}
	}
	return connected
}

// await begins to wait for blocks: when none comes for too long, the request ends. done ends waiting.
func (f *fetcher) await() (done func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.waiting++
	f.progressLocked()
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.waiting--; f.waiting == 0 {
			f.stall.Stop()
		}
	}
}

// progress puts off the end.
func (f *fetcher) progress() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.begun = true
	f.progressLocked()
}

func (f *fetcher) progressLocked() {
	if f.stall != nil {
		f.stall.Reset(f.patience())
		return
	}
	f.stall = time.AfterFunc(f.patience(), func() { f.cancel(f.stalled()) })
}

// patience is how long the next block may take. Locked by the caller.
func (f *fetcher) patience() time.Duration {
	if f.unknown() {
		return min(f.s.profile.first, f.s.cfg.StallTimeout)
	}
	return f.s.cfg.StallTimeout
}

// unknown: nobody is named for the content, and nobody has given any of it. The routing table finds who has it within the same time, or not at all.
func (f *fetcher) unknown() bool { return !f.begun && len(f.peers) == 0 }

func (f *fetcher) stalled() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.unknown() {
		return fault.NotFound(ReasonNotFound, "the content %s is not here, and no peer that is connected or has advertised it gave it within %s: name one that has it, or try again", f.root, f.patience())
	}
	return fault.Unavailable(ReasonUnreachable, "no peer gave a block of %s within %s: name one that has it, or try again", f.root, f.patience())
}

// local reads a block from disk.
func (f *fetcher) local(c cid.Cid) ([]byte, error) {
	if data, ok := identity(c); ok {
		return data, nil
	}
	data, err := f.s.blocks.Get(keyOf(c))
	if err != nil {
		f.s.metrics.readFailed(err)
	}
	return data, err
}

// remote fetches blocks, stores them, and gives each to each, in any order. They are few: a window.
func (f *fetcher) remote(ctx context.Context, cids []cid.Cid, each func(cid.Cid, []byte) error) error {
	cids, err := f.empty(cids, each)
	if err != nil || len(cids) == 0 {
		return err
	}
	defer f.await()()
	if f.s.profile.byName {
		ways, err := f.byName()
		if err != nil {
			return err
		}
		return ways.fetch(ctx, cids, func(b blocks.Block) error { return f.take(b, each) })
	}
	session, err := f.online()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	f.from.net.wanted.add(cids)
	got, err := session.GetBlocks(ctx, cids)
	if err != nil {
		return f.cause(err)
	}
	for left := len(cids); left > 0; left-- {
		b, ok := <-got
		if !ok {
			return f.cause(fault.Unavailable(ReasonUnreachable, "%d blocks of %s did not come", left, f.root))
		}
		f.progress()
		if err := f.take(b, each); err != nil {
			return err
		}
	}
	return nil
}

// take stores a block that has come.
func (f *fetcher) take(b blocks.Block, each func(cid.Cid, []byte) error) error {
	if err := f.keep(b); err != nil {
		return err
	}
	return each(b.Cid(), b.RawData())
}

// byName begins to ask the peers that are named.
func (f *fetcher) byName() (*spread, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ways == nil && f.failed == nil {
		f.ways, f.failed = f.newSpread()
	}
	return f.ways, f.failed
}

// empty makes the empty blocks among those that are asked for, and returns the others.
func (f *fetcher) empty(cids []cid.Cid, each func(cid.Cid, []byte) error) (rest []cid.Cid, err error) {
	if i := slices.IndexFunc(cids, empty); i < 0 || f.src.Local {
		return cids, nil
	}
	for _, c := range cids {
		if !empty(c) {
			rest = append(rest, c)
			continue
		}
		if err := f.s.blocks.Commit(app.Change{Blocks: []app.Block{{Key: keyOf(c)}}}); err != nil {
			return nil, err
		}
		if err := each(c, nil); err != nil {
			return nil, err
		}
	}
	return rest, nil
}

func (f *fetcher) keep(b blocks.Block) error {
	data := b.RawData()
	if err := f.s.blocks.Commit(app.Change{Blocks: []app.Block{{Key: keyOf(b.Cid()), Data: data}}}); err != nil {
		return err
	}
	f.s.metrics.flow("fetched", 1, len(data))
	if f.s.profile.byName { // to those who wait for it here; not to peers that have asked this persona for it
		var errs []error
		for _, l := range f.s.lanesOf(f.ways.p) {
			errs = append(errs, l.bitswap.Client.NotifyNewBlocks(f.ctx, b))
		}
		return errors.Join(errs...)
	}
	return f.from.bitswap.NotifyNewBlocks(f.ctx, b)
}

func decode(c cid.Cid, data []byte) (ipld.Node, error) {
	b, err := blocks.NewBlockWithCid(data, c)
	if err != nil {
		return nil, err
	}
	if c.Type() == cid.Raw {
		return &merkledag.RawNode{Block: b}, nil // the store and bitswap have compared the hash
	}
	n, err := merkledag.DecodeProtobufBlock(b)
	if err != nil {
		return nil, fault.InvalidArgument(ReasonMalformed, "the block %s cannot be read as a node of a file or directory", c).Because(err)
	}
	return n, nil
}

// here reads a block from disk. retry says that others may be asked for it: it is not here, or it is damaged.
func (f *fetcher) here(c cid.Cid) (data []byte, retry bool, err error) {
	if err := checkCID(c); err != nil {
		return nil, false, fault.InvalidArgument("CID_UNSUPPORTED", "%s has a link to %s, which cannot be used: %s", f.root, c, err)
	}
	data, err = f.local(c)
	var corrupt *content.CorruptError
	return data, errors.Is(err, content.ErrNotFound) || errors.As(err, &corrupt), err
}

// worse is the error that says more, when a block was not usable here and could not be had elsewhere: that it is damaged says more than
// that nobody else has it.
func (f *fetcher) worse(here, elsewhere error) error {
	var corrupt *content.CorruptError
	if errors.As(here, &corrupt) && (f.ctx.Err() == nil || f.src.Local) {
		return here
	}
	return f.cause(elsewhere)
}

// bytes returns one block, from wherever it is to be had. A damaged one is fetched again where that is allowed.
func (f *fetcher) bytes(c cid.Cid) (data []byte, err error) {
	data, retry, err := f.here(c)
	if !retry {
		return data, err
	}
	if far := f.remote(f.ctx, []cid.Cid{c}, func(_ cid.Cid, b []byte) error { data = b; return nil }); far != nil {
		return nil, f.worse(err, far)
	}
	return data, nil
}

// node returns one block as a node.
func (f *fetcher) node(c cid.Cid) (ipld.Node, error) {
	data, err := f.bytes(c)
	if err != nil {
		return nil, err
	}
	return decode(c, data)
}

// ensure brings the blocks that are not here.
func (f *fetcher) ensure(cids []cid.Cid) error {
	for len(cids) > 0 {
		n := min(len(cids), f.s.profile.window)
		if err := f.remote(f.ctx, cids[:n], func(cid.Cid, []byte) error { return nil }); err != nil {
			return f.cause(err)
		}
		cids = cids[n:]
	}
	return nil
}

func sizeText(n int) string { return fmt.Sprintf("%d bytes", n) }
