package repository

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/ipfs/boxo/exchange"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// use has blocks come by a way until it has ended, or the request. It tells whether any did.
func (s *spread) use(of peer.ID, way Way) (gave bool) {
	to, err := peer.Decode(way.Peer())
	if err != nil {
		return false
	}
	l := &line{s: s, way: way, to: to, of: of, lane: s.f.s.lane(s.p, way.Lane())}
	if l.lane == nil {
		return false
	}
	l.ctx, l.cancel = context.WithCancel(s.f.ctx)
	defer l.cancel()
	l.lane.rests.begin(l)
	defer l.lane.rests.end(l)
	s.mu.Lock()
	s.stood = true
	s.stand = append(s.stand, l)
	s.mu.Unlock()
	var all sync.WaitGroup
	for range s.depth() {
		all.Go(l.work)
	}
	all.Go(l.watch)
	select {
	case <-way.Gone():
	case <-l.ctx.Done():
	}
	l.cancel()
	s.mu.Lock()
	s.stand = slices.DeleteFunc(s.stand, func(x *line) bool { return x == l })
	s.changed()
	s.mu.Unlock()
	all.Wait()
	return l.gave
}

// watch ends a way by which nothing has come for too long, and asks again by one that is alive.
func (l *line) watch() {
	t := time.NewTicker(max(l.s.f.s.profile.retry/5, time.Millisecond))
	defer t.Stop()
	for {
		select {
		case <-l.ctx.Done():
			return
		case now := <-t.C:
			l.look(now)
		}
	}
}

func (l *line) look(now time.Time) {
	s, retry := l.s, l.s.f.s.profile.retry
	s.mu.Lock()
	defer s.mu.Unlock()
	if l.flying == 0 || now.Sub(l.moved) < retry {
		return
	}
	if now.Sub(l.way.Heard()) >= retry { // its circuit is dead, and nobody has said so
		l.moved = now
		go l.way.Close()
		return
	}
	// A session that believes that its only peer has not got a block never asks it again.
	l.moved = now
	l.lane.rests.broken()
	l.end()
	l.session = nil
}

// work brings one block after the other.
func (l *line) work() {
	for {
		w, ask := l.next()
		if w == nil {
			return
		}
		l.settle(w, l.bring(w, ask))
	}
}

// next waits for a block that is to be asked for by this way; nil: the way has ended.
func (l *line) next() (*piece, errand) {
	s := l.s
	for {
		s.mu.Lock()
		if l.ctx.Err() != nil {
			s.mu.Unlock()
			return nil, errand{}
		}
		var rest time.Duration
		if l.session == nil {
			rest = l.lane.rests.left()
		}
		if rest > 0 {
			s.mu.Unlock()
			select {
			case <-time.After(rest):
			case <-l.ctx.Done():
			}
			continue
		}
		if w := l.choose(); w != nil {
			ask := l.begin(w)
			s.mu.Unlock()
			return w, ask
		}
		news := s.news
		var later <-chan time.Time // something may be late by then
		if l.flying == 0 && len(s.flying) > 0 {
			later = time.After(wayLater / 4)
		}
		s.mu.Unlock()
		select {
		case <-news:
		case <-later:
		case <-l.ctx.Done():
		}
	}
}

// choose takes a block that nobody asks for, or where there is none, one that others have been waiting for. Who has not given anything yet is asked for one at a time, which, once
// somebody else does give, is one that is on its way already: nothing is left waiting for a peer that may never answer. Under mu.
func (l *line) choose() *piece {
	s := l.s
	proven := s.proven[l.of]
	if l.flying > 0 && !proven {
		return nil
	}
	given := slices.ContainsFunc(s.stand, func(x *line) bool { return s.proven[x.of] })
	if len(s.queue) > 0 && (proven || !given) {
		w := s.queue[0]
		s.queue = s.queue[1:]
		s.flying = append(s.flying, w)
		return w
	}
	if l.flying > 0 {
		return nil
	}
	for _, w := range s.flying {
		if len(w.by) == 1 && w.by[0] != l && (!proven || time.Since(w.since) >= wayLater) {
			return w
		}
	}
	return nil
}

// errand is by what, and at whom, a block may be asked for. That is everybody on this host whom the request names: bitswap may ask another of them, where it has learned by a block
// that two of its sessions wait for who has what, and it takes a want that is held back for one that was sent.
type errand struct {
	session exchange.Fetcher
	named   []peer.ID
}

// begin notes that a block is asked for. Under mu.
func (l *line) begin(w *piece) errand {
	w.by = append(w.by, l)
	w.since = time.Now()
	l.wanted.Add(1)
	if l.flying++; l.flying == 1 {
		l.moved = w.since
	}
	if l.session == nil {
		var ctx context.Context
		ctx, l.end = context.WithCancel(l.ctx)
		l.session = l.lane.bitswap.NewSession(withNamed(ctx, l.to))
	}
	ask := errand{session: l.session}
	for _, x := range l.s.stand {
		if x.lane == l.lane {
			ask.named = append(ask.named, x.to)
		}
	}
	return ask
}

// bring asks for a block; nil: it did not come this way.
func (l *line) bring(w *piece, ask errand) blocks.Block {
	ctx, cancel := context.WithCancel(l.ctx)
	defer cancel()
	cids := []cid.Cid{w.c}
	l.lane.net.wanted.add(cids)
	defer l.lane.net.asked.name(ask.named, cids)()
	got, err := ask.session.GetBlocks(ctx, cids)
	if err != nil {
		return nil
	}
	select {
	case b := <-got: // closed where the session has ended
		return b
	case <-w.over:
	case <-ctx.Done():
		select {
		case <-w.over: // by another way
		default:
			l.lane.rests.broken()
		}
	}
	return nil
}

// settle notes what has become of a block that was asked for.
func (l *line) settle(w *piece, b blocks.Block) {
	s := l.s
	s.mu.Lock()
	defer s.mu.Unlock()
	l.wanted.Add(-1)
	l.flying--
	w.by = slices.DeleteFunc(w.by, func(x *line) bool { return x == l })
	switch {
	case b != nil:
		if l.lane.net.giver(w.c) == l.to { // and not another peer who was asked beside it
			l.moved, l.gave = time.Now(), true
			s.proven[l.of] = true
		}
		if !w.ended {
			s.over(w)
			w.got <- b
		}
		s.extend()
	case !w.ended && len(w.by) == 0:
		if i := slices.Index(s.flying, w); i >= 0 {
			s.flying = slices.Delete(s.flying, i, i+1)
		}
		s.queue = slices.Insert(s.queue, 0, w)
	}
	s.changed()
}
