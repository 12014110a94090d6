package app

import (
	"runtime"
	"sync"

	"github.com/shallot-net/shallot/broker/internal/domain/event"
	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/signature"
)

// signing signs a persona's outgoing events one after the other, those that came meanwhile together: a signature costs as much as
// all else that is done here to an event.
type signing struct {
	persona *persona
	wake    chan struct{}
	gone    chan struct{} // closed when run has returned

	mu     sync.Mutex
	room   sync.Cond // of mu: there is room in the queue, or none is needed any more
	queue  []*letter
	busy   bool
	closed bool
}

// letter is an event on its way to its peer's queue.
type letter struct {
	Outgoing
	id   event.ID
	done func(error)
}

func newSigning(p *persona) *signing {
	s := &signing{persona: p, wake: make(chan struct{}, 1), gone: make(chan struct{})}
	s.room.L = &s.mu
	go s.run()
	return s
}

// post sends an event on, in the order of the calls. It blocks while a tree full of others waits.
func (s *signing) post(l *letter) {
	s.mu.Lock()
	if !l.Sign && !s.busy && len(s.queue) == 0 { // nothing to wait for, and nothing to overtake
		s.mu.Unlock()
		s.persona.dispatch(l)
		return
	}
	for len(s.queue) >= signature.MaxEvents && !s.closed {
		s.room.Wait()
	}
	closed := s.closed
	if !closed {
		s.queue = append(s.queue, l)
	}
	s.mu.Unlock()
	if closed {
		l.done(errPersonaClosed())
		return
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func errPersonaClosed() error { return fault.Unavailable("PERSONA_CLOSED", "the persona was closed") }

func (s *signing) run() {
	defer close(s.gone)
	var batch []*letter
	for {
		select {
		case <-s.wake:
		case <-s.persona.closed:
			s.end()
			return
		}
		runtime.Gosched() // those who are about to post join this batch instead of waiting for the next
		for {
			if batch = s.take(batch); len(batch) == 0 {
				break
			}
			s.sign(batch)
			for i, l := range batch {
				if l.Event != nil {
					s.persona.dispatch(l)
				}
				batch[i] = nil
			}
		}
	}
}

// take gives all that waits, or marks that nothing does.
func (s *signing) take(batch []*letter) []*letter {
	s.mu.Lock()
	defer s.mu.Unlock()
	batch, s.queue = s.queue, batch[:0]
	s.busy = len(batch) > 0
	s.room.Broadcast()
	return batch
}

func (s *signing) end() {
	s.mu.Lock()
	left := s.queue
	s.queue, s.closed = nil, true
	s.room.Broadcast()
	s.mu.Unlock()
	for _, l := range left {
		l.done(errPersonaClosed())
	}
}

// sign puts the persona's name and signature on copies of the events that want it. What could not be signed is answered, and its Event
// is nil.
func (s *signing) sign(batch []*letter) {
	host := s.persona.host
	messages := make([][]byte, 0, len(batch))
	for _, l := range batch {
		if l.Sign {
			messages = append(messages, l.Event.SigningBytes())
		}
	}
	signatures, err := signature.SignAll(messages, host.Sign)
	n := 0
	for _, l := range batch {
		if !l.Sign {
			continue
		}
		if err != nil {
			l.Event = nil
			l.done(err)
			continue
		}
		e := *l.Event
		e.Author, e.Signature = host.ID(), signatures[n]
		l.Event = &e
		n++
	}
}

// dispatch encodes an event and hands it to its peer's sender.
func (p *persona) dispatch(l *letter) {
	data, problem, err := p.broker.encode(l.Event, l.Sign)
	if err == nil && problem != event.OK {
		err = invalidEvent(l.Event, problem, len(data), event.MaxSize)
	}
	if err != nil {
		l.done(err)
		return
	}
	p.send(l.Peer, l.id, data, l.Timeout, l.done)
}
