package provider

import (
	"context"
	"sync"
	"time"

	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// maxReport is how many attempts one TaskProgress names: about 60 bytes each.
const maxReport = 2000

// progressOf is a report of one attempt, for when its state changes.
func (s *Service) progressOf(e *domain.Entry, position uint32) app.Outgoing {
	return s.outbox.Once(app.Address{Persona: e.Persona, Peer: e.Consumer}, domain.Ref{TaskID: e.TaskID, Attempt: e.Sub.Attempt},
		&domain.ProgressEvent{Tasks: []domain.ProgressEntry{{TaskID: e.TaskID, Attempt: e.Sub.Attempt, State: e.State, QueuePosition: position}}}, nil, false, s.cfg.Progress)
}

// startDelay is how long a consumer is not told that its task runs: what is over by then says more, and costs both sides one event less.
// Shorter than logDelay: of two timers that end together either may be first, and a consumer would hear in any order that a task runs and what it has written.
const startDelay = 90 * time.Millisecond

// tellRuns says in a moment that an attempt runs, where it still does. It does not block.
func (s *Service) tellRuns(h *held) {
	time.AfterFunc(startDelay, func() {
		h.mu.Lock()
		e := h.entry
		h.mu.Unlock()
		select {
		case <-h.settled:
			return
		default:
		}
		if e.State == domain.Running && s.speaks() && h.ctx.Err() == nil {
			s.cfg.Pusher.Push(h.ctx, app.Reply{Outbox: []app.Outgoing{s.progressOf(e, 0)}})
		}
	})
}

// progressPause is between two words to one consumer on how far one attempt is; each report says it too.
const progressPause = time.Second

// progressed hears how far a running attempt is.
func (s *Service) progressed(h *held, p domain.Progress) {
	h.mu.Lock()
	h.progress = &p
	e, now := h.entry, time.Now()
	tell := s.speaks() && h.journaled && now.Sub(h.toldAt) >= progressPause
	if tell {
		h.toldAt = now
	}
	h.mu.Unlock()
	if tell {
		out := s.outbox.Once(app.Address{Persona: e.Persona, Peer: e.Consumer}, domain.Ref{TaskID: e.TaskID, Attempt: e.Sub.Attempt},
			&domain.ProgressEvent{Tasks: []domain.ProgressEntry{{TaskID: e.TaskID, Attempt: e.Sub.Attempt, State: domain.Running, Progress: &p}}}, nil, false, s.cfg.Progress)
		s.cfg.Pusher.Push(h.ctx, app.Reply{Outbox: []app.Outgoing{out}})
	}
}

// report renews the leases of everything unfinished, one event a consumer.
func (s *Service) report(ctx context.Context) {
	byTo := make(map[recipient][]domain.ProgressEntry)
	s.mu.Lock()
	positions := make(map[*held]uint32, len(s.queue)+len(s.remote))
	for i, h := range s.queue {
		positions[h] = uint32(i)
	}
	for i, h := range s.remote {
		positions[h] = uint32(len(s.queue) + i)
	}
	all := make([]*held, 0, len(s.held))
	for _, h := range s.held {
		all = append(all, h)
	}
	s.mu.Unlock()
	for _, h := range all {
		h.mu.Lock()
		e, ok, progress := h.entry, h.journaled, h.progress
		h.mu.Unlock()
		if !ok || e.State.Terminal() {
			continue
		}
		to := recipient{Persona: e.Persona, Peer: e.Consumer}
		byTo[to] = append(byTo[to], domain.ProgressEntry{TaskID: e.TaskID, Attempt: e.Sub.Attempt, State: e.State, QueuePosition: positions[h], Progress: progress})
	}
	for to, entries := range byTo {
		for len(entries) > 0 {
			n := min(len(entries), maxReport)
			out := s.outbox.Once(app.Address{Persona: to.Persona, Peer: to.Peer}, domain.Ref{}, &domain.ProgressEvent{Tasks: entries[:n]}, nil, false, s.cfg.Progress)
			s.cfg.Pusher.Push(ctx, app.Reply{Outbox: []app.Outgoing{out}})
			entries = entries[n:]
		}
	}
}

// Streaming of stderr.
const (
	logDelay   = 100 * time.Millisecond // between pieces of one attempt
	logPiece   = 32 << 10               // bytes of one event
	logPending = 128 << 10              // bytes that wait; older ones are skipped, the result has them all
	logTimeout = 10 * time.Second
)

// logStream tells a consumer what its program writes to stderr, one piece at a time, the next when that has arrived.
type logStream struct {
	mu      sync.Mutex
	s       *Service
	h       *held // nil until the attempt is journaled, and after its end
	offset  int64 // of pending
	pending []byte
	sending uint64 // the outbox id of the piece on its way
	timer   *time.Timer
}

func (l *logStream) write(data []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pending = append(l.pending, data...)
	if skip := len(l.pending) - logPending; skip > 0 {
		l.pending = append(l.pending[:0], l.pending[skip:]...)
		l.offset += int64(skip)
	}
	l.schedule()
}

// schedule sends in a while. l.mu is held.
func (l *logStream) schedule() {
	if l.h != nil && l.timer == nil && l.sending == 0 && len(l.pending) > 0 {
		l.timer = time.AfterFunc(logDelay, l.send)
	}
}

func (l *logStream) send() {
	l.mu.Lock()
	l.timer = nil
	if l.h == nil || l.sending != 0 || len(l.pending) == 0 {
		l.mu.Unlock()
		return
	}
	n := min(len(l.pending), logPiece)
	k := l.h.key
	out := l.s.outbox.Once(app.Address{Persona: l.h.persona, Peer: k.Consumer}, domain.Ref{TaskID: k.TaskID, Attempt: k.Attempt},
		&domain.LogEvent{TaskID: k.TaskID, Attempt: k.Attempt, Offset: l.offset, Data: l.pending[:n]}, nil, false, logTimeout)
	l.offset += int64(n)
	l.pending = append(l.pending[:0], l.pending[n:]...)
	l.sending = out.ID
	s := l.s
	l.mu.Unlock()
	s.cfg.Pusher.Push(s.ctx, app.Reply{Outbox: []app.Outgoing{out}})
}

// open begins to send; the attempt is journaled, so its consumer will hear of it.
func (l *logStream) open(s *Service, h *held) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.s, l.h = s, h
	l.schedule()
}

// sent hears what became of a piece; 0 means that nobody knows of any.
func (l *logStream) sent(id uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if id == 0 || l.sending == id {
		l.sending = 0
		l.schedule()
	}
}

// close ends it: the result has everything.
func (l *logStream) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.h = nil; l.timer != nil {
		l.timer.Stop()
		l.timer = nil
	}
	l.pending = nil
}

// recipient is whom a report goes to.
type recipient struct{ Persona, Peer string }
