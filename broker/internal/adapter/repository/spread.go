package repository

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ipfs/boxo/exchange"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shallot-net/shallot/broker/internal/domain/content"
	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/logging"
)

// spread brings the blocks of one request from the peers that it names (anonymous mode), by several ways side by side where there is much to bring. Each way has a few blocks under
// way and takes the next one when one has come, so a fast way brings more than a slow one. What a way had when it ended goes to the others, and to itself when it is back, by other
// circuits; a block that has come is never asked for again. A way with nothing left to do asks for what another one has been waiting for, so that the slowest does not decide
// when the last block comes.
type spread struct {
	f *fetcher
	p *persona

	mu     sync.Mutex
	queue  []*piece
	flying []*piece // the oldest first
	lines  map[lineName]bool
	proven map[peer.ID]bool // who have given a block
	stand  []*line
	stood  bool          // there has been a way
	failed int           // peers to whom the first way could not be made at the first try
	news   chan struct{} // closed and replaced with every change of the above
	broken chan struct{} // closed when nobody can be reached; err says so
	err    error
}

// lineName is one of the ways to a peer, whether it stands now or not.
type lineName struct {
	peer   peer.ID
	number int
}

// piece is one block that is wanted.
type piece struct {
	c     cid.Cid
	got   chan<- blocks.Block // has room
	over  chan struct{}       // closed when it has come, or is not wanted any more
	ended bool
	by    []*line
	since time.Time // when it was last asked for
}

// line is a way that stands.
type line struct {
	s      *spread
	way    Way
	lane   *lane
	to     peer.ID // the peer's host for content
	of     peer.ID // the peer
	ctx    context.Context
	cancel context.CancelFunc

	// Guarded by spread.mu.
	flying  int
	session exchange.Fetcher
	end     context.CancelFunc // of the session
	moved   time.Time          // when a block was last asked for or came
	gave    bool               // a block has come

	wanted atomic.Int32 // flying, for those who do not hold mu
}

const (
	// wayWants is how many blocks are under way on one way: with leaves of 256 KiB, what a circuit of a MiB a second brings in a second.
	wayWants = 4
	// A host that does everything has one way to a peer.
	singleWants = 16
	// wayLater is how long a block may take before a way that is idle asks for it as well.
	wayLater = 2 * time.Second
	// wayTries ends a way beyond the first that cannot be made.
	wayTries             = 3
	wayPause, wayPauseAt = time.Second, 15 * time.Second
	// wayRest is between two sessions of a lane, see rests.
	wayRest = 250 * time.Millisecond
)

func (f *fetcher) newSpread() (*spread, error) {
	if f.src.Local {
		return nil, content.ErrNotFound
	}
	p, err := f.s.persona(f.src.Persona)
	if err != nil {
		return nil, err
	}
	f.peers = slices.DeleteFunc(f.peers, func(id peer.ID) bool { return id == p.host.ID() })
	if len(f.peers) == 0 {
		return nil, fault.NotFound(ReasonNotFound, "the content %s is not here, and in anonymous mode only peers that are named are asked: name one that has it (from_peers)", f.root)
	}
	return &spread{f: f, p: p, lines: make(map[lineName]bool), proven: make(map[peer.ID]bool), news: make(chan struct{}), broken: make(chan struct{})}, nil
}

// depth is how many blocks may be under way on one way.
func (s *spread) depth() int {
	if s.f.s.cfg.Lanes == nil {
		return singleWants
	}
	return wayWants
}

// fetch gives blocks to each, in any order.
func (s *spread) fetch(ctx context.Context, cids []cid.Cid, each func(blocks.Block) error) error {
	got := make(chan blocks.Block, len(cids))
	wants := make([]*piece, 0, len(cids))
	for _, c := range cids {
		if !slices.ContainsFunc(wants, func(w *piece) bool { return w.c == c }) {
			wants = append(wants, &piece{c: c, got: got, over: make(chan struct{})})
		}
	}
	s.mu.Lock()
	s.queue = append(s.queue, wants...)
	s.extend()
	s.changed()
	s.mu.Unlock()
	defer s.abandon(wants)
	for range wants {
		select {
		case b := <-got:
			s.f.progress()
			if err := each(b); err != nil {
				return err
			}
		case <-s.broken:
			return s.f.cause(s.err)
		case <-ctx.Done():
			return s.f.cause(ctx.Err())
		}
	}
	return nil
}

func (s *spread) abandon(wants []*piece) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range wants {
		s.over(w)
	}
	s.queue = slices.DeleteFunc(s.queue, func(w *piece) bool { return w.ended })
	s.changed()
}

// over ends a want. Under mu.
func (s *spread) over(w *piece) {
	if w.ended {
		return
	}
	w.ended = true
	close(w.over)
	if i := slices.Index(s.flying, w); i >= 0 {
		s.flying = slices.Delete(s.flying, i, i+1)
	}
}

// changed wakes who waits. Under mu.
func (s *spread) changed() {
	close(s.news)
	s.news = make(chan struct{})
}

// extend begins with as many ways as there is work for, but with one to a peer that has not given anything yet. Under mu.
func (s *spread) extend() {
	if s.f.ctx.Err() != nil {
		return
	}
	waiting := len(s.queue) + len(s.flying)
	for _, p := range s.f.peers {
		lines := 1
		if s.proven[p] {
			lines = min(max(1, (waiting+s.depth()-1)/s.depth()), maxWays)
		}
		for i := range lines {
			if name := (lineName{p, i}); !s.lines[name] {
				s.lines[name] = true
				go s.keep(name)
			}
		}
	}
}

// maxWays bounds the ways to one peer that are tried; how many there can be is for others to say.
const maxWays = 8

// keep makes a way and makes it again when it has ended, until the request ends.
func (s *spread) keep(name lineName) {
	ctx, pause, tries := s.f.ctx, wayPause, 0
	for ctx.Err() == nil {
		way, err := s.p.way(ctx, s.f.s, name.peer, name.number)
		if err == nil {
			gave := s.use(name.peer, way)
			way.Release()
			if gave {
				tries, pause = 0, wayPause
				continue
			}
			err = errGaveNothing
		}
		if tries++; tries == 1 {
			s.unreachable(name, err)
		}
		if name.number > 0 && (tries == wayTries || errors.Is(err, errNoWay)) {
			return
		}
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-ctx.Done():
		}
		t.Stop()
		pause = min(2*pause, wayPauseAt)
	}
}

// unreachable notes that a way could not be made. When that is so of the first ways to all peers, and there never was one, the request has failed.
func (s *spread) unreachable(name lineName, err error) {
	s.f.s.log.Debug("connecting to a peer named for content", logging.Err(err))
	s.mu.Lock()
	defer s.mu.Unlock()
	if name.number > 0 || s.stood {
		return
	}
	if s.failed++; s.failed == len(s.f.peers) {
		s.err = fault.Unavailable(ReasonUnreachable, "the content %s is not here, and none of the %d peers named for it can be reached", s.f.root, len(s.f.peers))
		close(s.broken)
	}
}

// errGaveNothing is why a way that stood is not made again at once.
var errGaveNothing = errors.New("the way has ended before anything came by it")
