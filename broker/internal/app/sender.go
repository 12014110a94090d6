package app

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/shallot-net/shallot/broker/internal/domain/event"
	"github.com/shallot-net/shallot/kit/fault"
)

// sender carries the events of one persona to one peer, in order, over one stream at a time. It lives while it has events, and
// a while longer.
type sender struct {
	persona *persona
	peer    string
	limits  *Limits

	mu         sync.Mutex
	queue      []*pending // not written on the present stream
	sent       map[event.ID]*pending
	byID       map[event.ID]*pending // queue and sent
	bytes      int                   // of all
	sentBytes  int
	order      uint64
	running    bool
	ended      bool
	lastErr    error     // why there was no stream, or why the last one broke
	downSince  time.Time // zero while there is a stream, and before the first
	progressed bool      // something was answered

	wake  chan struct{}   // there may be something to write, or room to write it
	reach chan struct{}   // the peer has connected
	gone  chan struct{}   // closed when run has returned
	ctx   context.Context // ends with close
	end   context.CancelFunc
}

// pending is one event that has not been answered.
type pending struct {
	id      event.ID
	order   uint64
	frame   []byte
	written bool // at least once: the peer may have it
	onWire  bool // on the present stream
	waiters []*waiter
	first   waiter // nearly always the only one
	one     [1]*waiter
}

// waiter is one Send. Several wait for one event when a caller sends it again before it was answered.
type waiter struct {
	done  func(error)
	timer *time.Timer
}

func newSender(p *persona, peer string) *sender {
	ctx, cancel := context.WithCancel(context.Background())
	return &sender{persona: p, peer: peer, limits: &p.broker.limits, sent: make(map[event.ID]*pending), byID: make(map[event.ID]*pending),
		wake: make(chan struct{}, 1), reach: make(chan struct{}, 1), gone: make(chan struct{}), ctx: ctx, end: cancel}
}

// enqueue takes an event in; false when the sender has ended and another must be made.
func (s *sender) enqueue(id event.ID, data []byte, timeout time.Duration, done func(error)) bool {
	s.mu.Lock()
	if s.ended {
		s.mu.Unlock()
		return false
	}
	if p, ok := s.byID[id]; ok {
		s.wait(p, &waiter{done: done}, timeout)
		s.mu.Unlock()
		return true
	}
	if len(s.byID) == 0 {
		s.downSince = time.Time{} // nobody has tried since
	}
	if !s.downSince.IsZero() && time.Since(s.downSince) >= s.limits.Grace && len(s.byID) >= s.limits.OutUnreachable {
		n, err := len(s.byID), s.lastErr
		s.mu.Unlock()
		done(fault.Unavailable(ReasonUnreachable, "the peer cannot be reached now, and %d events wait for it already", n).Because(err))
		return true
	}
	if len(s.byID) >= s.limits.OutWaiting || s.bytes+len(data) > s.limits.OutWaitingBytes {
		n := len(s.byID)
		s.mu.Unlock()
		done(fault.ResourceExhausted(ReasonBacklogFull, "%d events wait for this peer already: try again later", n))
		return true
	}
	s.order++
	p := &pending{id: id, order: s.order, frame: data}
	p.first.done = done
	p.waiters = p.one[:0]
	s.byID[id] = p
	s.bytes += len(data)
	s.queue = append(s.queue, p)
	s.wait(p, &p.first, timeout)
	start := !s.running
	s.running = true
	s.mu.Unlock()
	s.persona.broker.obs.Adjust("pending_out", 1)
	if start {
		go s.run()
		return true
	}
	signal(s.wake)
	return true
}

func (s *sender) wait(p *pending, w *waiter, timeout time.Duration) {
	p.waiters = append(p.waiters, w)
	w.timer = time.AfterFunc(timeout, func() { s.expire(p, w, timeout) })
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// expire gives one waiter up, and the event with its last.
func (s *sender) expire(p *pending, w *waiter, after time.Duration) {
	s.mu.Lock()
	i := slices.Index(p.waiters, w)
	if i < 0 {
		s.mu.Unlock()
		return
	}
	p.waiters = slices.Delete(p.waiters, i, i+1)
	written, last := p.written, s.lastErr
	if len(p.waiters) == 0 {
		s.remove(p)
	}
	s.mu.Unlock()
	signal(s.wake) // there may be room now
	w.done(expired(written, last, after))
}

func expired(written bool, last error, after time.Duration) error {
	if written {
		return fault.New(codes.DeadlineExceeded, ReasonSendTimeout, "the event was handed over and not answered within %v: whether the receiving service has it is not known", after)
	}
	if last == nil {
		return fault.Unavailable(ReasonUnreachable, "the event could not be handed over within %v", after)
	}
	return fault.Unavailable(ReasonUnreachable, "the peer could not be reached within %v", after).Because(last)
}

// remove takes an event out of all tables. Under s.mu.
func (s *sender) remove(p *pending) {
	if s.byID[p.id] != p {
		return
	}
	delete(s.byID, p.id)
	s.bytes -= len(p.frame)
	if p.onWire {
		delete(s.sent, p.id)
		s.sentBytes -= len(p.frame)
		p.onWire = false
	} else if i := slices.Index(s.queue, p); i >= 0 {
		s.queue = slices.Delete(s.queue, i, i+1)
	}
	s.persona.broker.obs.Adjust("pending_out", -1)
}

// answered ends the event that an acknowledgement names; one that nobody waits for any more is ignored.
func (s *sender) answered(id event.ID, o event.Outcome) {
	s.mu.Lock()
	p, ok := s.sent[id]
	if !ok {
		s.mu.Unlock()
		return
	}
	s.progressed = true
	full := len(s.sent) >= s.limits.OutEvents || len(s.queue) > 0
	s.remove(p)
	waiters := p.waiters
	p.waiters = nil
	s.mu.Unlock()
	if full {
		signal(s.wake)
	}
	err := outcomeFault(o)
	for _, w := range waiters {
		w.timer.Stop()
		w.done(err)
	}
}

// requeue puts what the broken stream carried back in front, in its order.
func (s *sender) requeue(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lastErr = err; err != nil && s.downSince.IsZero() {
		s.downSince = time.Now()
	}
	if len(s.sent) == 0 {
		return
	}
	again := make([]*pending, 0, len(s.sent)+len(s.queue))
	for _, p := range s.sent {
		p.onWire = false
		again = append(again, p)
	}
	slices.SortFunc(again, func(a, b *pending) int { return int(int64(a.order) - int64(b.order)) })
	s.queue = append(again, s.queue...)
	clear(s.sent)
	s.sentBytes = 0
}

// failUnwritten ends the events that have never been handed over.
func (s *sender) failUnwritten(err error) {
	s.mu.Lock()
	var waiters []*waiter
	for _, p := range s.byID {
		if !p.written {
			waiters = append(waiters, p.waiters...)
			p.waiters = nil
			s.remove(p)
		}
	}
	s.mu.Unlock()
	f := fault.Unavailable(ReasonUnreachable, "the peer is not connected and no address of it is known: connect to it first").Because(err)
	if errors.Is(err, ErrPeerID) {
		f = fault.InvalidArgument("PEER_ID_INVALID", "%.80q is not a peer id", s.peer)
	}
	for _, w := range waiters {
		w.timer.Stop()
		w.done(f)
	}
}

func (s *sender) reachable() { signal(s.reach) }

// close ends the sender; everything that waits fails.
func (s *sender) close() {
	s.mu.Lock()
	s.ended = true
	var waiters []*waiter
	written := make([]bool, 0, len(s.byID))
	for _, p := range s.byID {
		for _, w := range p.waiters {
			waiters, written = append(waiters, w), append(written, p.written)
		}
		p.waiters = nil
		s.remove(p)
	}
	running := s.running
	s.mu.Unlock()
	s.end()
	for i, w := range waiters {
		w.timer.Stop()
		if written[i] {
			w.done(fault.Unavailable(fault.ReasonShuttingDown, "the broker is shutting down: whether the receiving service has the event is not known"))
		} else {
			w.done(fault.Unavailable(ReasonUnreachable, "the broker is shutting down and has not handed the event over"))
		}
	}
	if running {
		<-s.gone
	}
}
