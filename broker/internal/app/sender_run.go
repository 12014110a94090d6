package app

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/shallot-net/shallot/broker/internal/domain/conduct"
	"github.com/shallot-net/shallot/broker/internal/domain/frame"
	"github.com/shallot-net/shallot/kit/logging"
)

const (
	writeBuffer  = 16 << 10
	ackBuffer    = 1 << 10
	steadyStream = 2 * time.Second // a stream that lived this long was no failed attempt
)

var errIdle = errors.New("idle")

// run opens streams and writes to them for as long as there are events, and Limits.IdleAfter longer.
func (s *sender) run() {
	defer close(s.gone)
	wait := backoff.NewExponentialBackOff()
	wait.InitialInterval, wait.MaxInterval, wait.RandomizationFactor, wait.Multiplier = 10*time.Millisecond, time.Second, 0.3, 2
	var unknownSince time.Time // since when no address has been known
	for s.await() {
		begun := time.Now()
		err := s.attempt()
		switch {
		case errors.Is(err, errIdle):
			continue
		case errors.Is(err, ErrPeerID):
			s.failUnwritten(err)
			continue
		case !errors.Is(err, ErrNoAddress):
			unknownSince = time.Time{}
		case unknownSince.IsZero():
			unknownSince = begun
		case time.Since(unknownSince) >= s.limits.Grace:
			s.failUnwritten(err)
			unknownSince = time.Time{}
			continue
		}
		s.requeue(err)
		s.persona.broker.log.Debug("no stream to the peer", logging.Peer(s.peer), logging.Err(err))
		if s.progress() || time.Since(begun) > steadyStream && !errors.Is(err, ErrNoAddress) {
			wait.Reset()
		}
		s.pause(wait.NextBackOff())
	}
}

// await blocks until there are events; false when the sender has ended, because it was closed or had none for a while.
func (s *sender) await() bool {
	var idle <-chan time.Time
	for {
		s.mu.Lock()
		switch {
		case s.ended:
			s.mu.Unlock()
			return false
		case len(s.byID) > 0:
			s.mu.Unlock()
			return true
		}
		s.mu.Unlock()
		if idle == nil {
			t := time.NewTimer(s.limits.IdleAfter)
			defer t.Stop()
			idle = t.C
		}
		select {
		case <-s.wake:
		case <-s.ctx.Done():
		case <-idle:
			if s.retire() {
				return false
			}
		}
	}
}

// retire ends an idle sender.
func (s *sender) retire() bool {
	s.mu.Lock()
	idle := len(s.byID) == 0
	s.ended = s.ended || idle
	s.mu.Unlock()
	if idle {
		s.persona.forgetSender(s)
	}
	return idle
}

// progress tells whether anything was answered since it was last asked.
func (s *sender) progress() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.progressed
	s.progressed = false
	return p
}

// pause waits before the next attempt, shorter when the peer connects meanwhile.
func (s *sender) pause(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-s.reach:
	case <-s.ctx.Done():
	}
}

// attempt opens a stream and uses it until it breaks, or until it has been idle for long (errIdle).
func (s *sender) attempt() error {
	ctx, cancel := context.WithTimeout(s.ctx, s.persona.broker.limits.Dial)
	defer cancel()
	stream, err := s.persona.host.OpenStream(ctx, s.peer)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.downSince = time.Time{}
	s.mu.Unlock()
	obs := s.persona.broker.obs
	obs.Adjust("streams_out", 1)
	defer obs.Adjust("streams_out", -1)
	broken := make(chan error, 1)
	go func() { broken <- s.readAcks(stream) }()
	err = s.write(stream, broken)
	if errors.Is(err, errIdle) {
		_ = stream.Close()
		return err
	}
	_ = stream.Reset()
	obs.StreamReset("broken_out")
	if TimedOut(err) {
		s.persona.broker.charge(s.persona, s.peer, conduct.Unread)
	}
	return err
}

// write writes what is queued until the stream breaks. When it returns, readAcks has returned or is about to.
func (s *sender) write(stream Stream, broken <-chan error) error {
	w := bufio.NewWriterSize(stream, writeBuffer)
	idle := time.NewTimer(s.limits.IdleAfter)
	defer idle.Stop()
	var batch []*pending
	for {
		batch = s.next(batch[:0])
		if len(batch) > 0 { // a peer that does not read must not keep this sender from trying anew
			_ = stream.SetWriteDeadline(time.Now().Add(s.limits.Patience))
		}
		for _, p := range batch {
			if _, err := w.Write(p.frame); err != nil {
				return err
			}
		}
		if len(batch) > 0 {
			continue // what came meanwhile goes with the same flush
		}
		if w.Buffered() > 0 {
			s.persona.hurry(s.peer, w.Buffered())
			if err := w.Flush(); err != nil {
				return err
			}
			idle.Reset(s.limits.IdleAfter)
		}
		select {
		case <-s.wake:
		case err := <-broken:
			return err
		case <-s.ctx.Done():
			return errors.New("the persona was closed")
		case <-idle.C:
			if s.idle() {
				return errIdle
			}
			idle.Reset(s.limits.IdleAfter)
		}
	}
}

func (s *sender) idle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.byID) == 0
}

// next moves what the window has room for from the queue onto the wire.
func (s *sender) next(batch []*pending) []*pending {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, size := 0, 0
	for _, p := range s.queue {
		if len(s.sent) >= s.limits.OutEvents || len(s.sent) > 0 && s.sentBytes+len(p.frame) > s.limits.OutBytes || size > writeBuffer {
			break
		}
		p.written, p.onWire = true, true
		s.sent[p.id] = p
		s.sentBytes += len(p.frame)
		size += len(p.frame)
		batch = append(batch, p)
		n++
	}
	clear(s.queue[:n])
	if s.queue = s.queue[n:]; len(s.queue) == 0 {
		s.queue = nil
	}
	return batch
}

// readAcks returns why the stream ended.
func (s *sender) readAcks(stream Stream) error {
	r := frame.NewReader(stream, ackBuffer)
	for {
		kind, body, err := r.Next()
		if err == nil && kind == frame.KindAck {
			id, o, perr := frame.ParseAck(body)
			if err = perr; err == nil {
				s.answered(id, o)
				continue
			}
		}
		if errors.Is(err, frame.ErrMalformed) {
			s.persona.broker.charge(s.persona, s.peer, conduct.Garbage)
		}
		if err != nil {
			return fmt.Errorf("read acknowledgements: %w", err)
		}
	}
}
