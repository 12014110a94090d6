package app

import (
	"errors"
	"sync"
	"time"

	"github.com/shallot-net/shallot/broker/internal/domain/event"
	"github.com/shallot-net/shallot/broker/internal/domain/frame"
)

var (
	errClosed  = errors.New("the stream was replaced or closed")
	errStalled = errors.New("a frame was begun and not ended in time")
	errOverrun = errors.New("the peer does not read its acknowledgements")
)

// budget bounds the bytes of all streams together.
type budget struct {
	mu    sync.Mutex
	freed sync.Cond
	left  int
}

func newBudget(total int) *budget {
	b := &budget{left: total}
	b.freed.L = &b.mu
	return b
}

// flow bounds what one stream has on its way to the services. All flows share the budget's lock: they are touched twice an event.
type flow struct {
	budget *budget
	bytes  int
	used   int
	held   int // events
	limit  int
	closed bool
}

func newFlow(events, bytes int, b *budget) *flow {
	return &flow{budget: b, limit: events, bytes: bytes}
}

// acquire blocks until n bytes fit, here and in the budget. A stream that has nothing on its way is let through the budget, so that no
// peer can be starved by others.
func (f *flow) acquire(n int) error {
	b := f.budget
	b.mu.Lock()
	defer b.mu.Unlock()
	for !f.closed && f.held > 0 && (f.held >= f.limit || f.used+n > f.bytes || b.left < n) {
		b.freed.Wait()
	}
	if f.closed {
		return errClosed
	}
	f.held++
	f.used += n
	b.left -= n
	return nil
}

func (f *flow) release(n int) {
	b := f.budget
	b.mu.Lock()
	defer b.mu.Unlock()
	f.held--
	f.used -= n
	b.left += n
	b.freed.Broadcast()
}

// busy tells whether anything is on its way.
func (f *flow) busy() bool {
	f.budget.mu.Lock()
	defer f.budget.mu.Unlock()
	return f.held > 0
}

func (f *flow) close() {
	f.budget.mu.Lock()
	defer f.budget.mu.Unlock()
	f.closed = true
	f.budget.freed.Broadcast()
}

// deferredHolds is how many times as long an acknowledgement waits that could not go with an event.
const deferredHolds = 4

// maxAckBacklog is how many bytes of acknowledgements may wait for a peer to read them: some ten thousand, or a thousand padded ones, which are still four times as
// many as a peer may have events on their way.
const maxAckBacklog = 512 << 10

// ackWriter writes acknowledgements in a goroutine of its own, those that came meanwhile in one write.
type ackWriter struct {
	stream   Stream
	patience time.Duration // for one write
	hold     time.Duration // how long an acknowledgement may wait for an event that goes the same way; 0: not at all
	padded   bool
	wake     chan struct{}
	hurried  chan struct{} // nothing is waited for any more
	deferred chan struct{} // what waits could not go with an event, and waits for the next

	mu       sync.Mutex
	buf      []byte
	finished bool
	overrun  bool
	unread   bool // a write was not taken in time
}

func newAckWriter(s Stream, patience, hold time.Duration, padded bool) *ackWriter {
	return &ackWriter{stream: s, patience: patience, hold: hold, padded: padded, wake: make(chan struct{}, 1), hurried: make(chan struct{}, 1), deferred: make(chan struct{}, 1)}
}

// hurry has what waits written now, for n bytes go the same way; unless they would go at once, and with it they would not.
func (a *ackWriter) hurry(n int) {
	a.mu.Lock()
	waits := len(a.buf)
	a.mu.Unlock()
	switch {
	case waits == 0:
	case n+circuitHeaders > circuitBurst, waits+n+2*circuitHeaders <= circuitBurst:
		signal(a.hurried)
	default:
		signal(a.deferred)
	}
}

// wait holds what was pushed back for a while.
func (a *ackWriter) wait() {
	if a.hold == 0 {
		return
	}
	t := time.NewTimer(a.hold)
	defer t.Stop()
	for deferred := a.deferred; ; {
		select {
		case <-deferred: // it would come back to back with the answer to that event, and hold up the next
			t.Reset(deferredHolds * a.hold)
			deferred = nil
			continue
		case <-a.hurried:
		case <-t.C:
		}
		return
	}
}

// push never blocks.
func (a *ackWriter) push(id event.ID, o event.Outcome) { _ = a.pushIn(id, o) }

// pushIn is push for the goroutine that reads the stream, which has to end it when the peer does not read.
func (a *ackWriter) pushIn(id event.ID, o event.Outcome) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.buf) > maxAckBacklog {
		a.overrun = true
	}
	if a.overrun || a.finished {
		if a.overrun {
			return errOverrun
		}
		return nil
	}
	start := len(a.buf)
	a.buf = frame.AppendAck(a.buf, id, o)
	if a.padded {
		a.buf = frame.Pad(a.buf, start, paddedSize(len(a.buf)-start))
	}
	signal(a.wake)
	return nil
}

// finish lets run return once everything is written.
func (a *ackWriter) finish() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.finished = true
	signal(a.wake)
	signal(a.hurried)
}

func (a *ackWriter) run() {
	var spare []byte
	for range a.wake {
		a.wait()
		a.mu.Lock()
		out, finished := a.buf, a.finished
		a.buf = spare[:0]
		a.mu.Unlock()
		if len(out) > 0 {
			_ = a.stream.SetWriteDeadline(time.Now().Add(a.patience))
			if _, err := a.stream.Write(out); err != nil {
				a.mu.Lock()
				a.unread = TimedOut(err)
				a.mu.Unlock()
				_ = a.stream.Reset() // who reads no answers is not read either
				return
			}
		}
		spare = out
		if cap(spare) > 16<<10 {
			spare = nil
		}
		if finished {
			return
		}
	}
}
