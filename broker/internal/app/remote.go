package app

import (
	"errors"
	"io"
	"sync"
	"time"

	"github.com/shallot-net/shallot/broker/internal/domain/conduct"
	"github.com/shallot-net/shallot/broker/internal/domain/delivery"
	"github.com/shallot-net/shallot/broker/internal/domain/event"
	"github.com/shallot-net/shallot/broker/internal/domain/frame"
	"github.com/shallot-net/shallot/broker/internal/domain/recent"
)

const (
	readBuffer = 8 << 10
	// idleGrace is by how much an idle stream outlives the time after which its sender ends it, at the least: it is the sender's to end.
	idleGrace = 10 * time.Second
)

// remote is what is known of a peer that sends events to a persona. It outlives the peer's streams, so that what is sent again on a new
// one is recognised.
type remote struct {
	persona *persona
	peer    string
	tempo   *tempo
	turn    sync.Mutex // held by the stream that is read: the next waits until the former is done

	mu     sync.Mutex
	recent *recent.Window
	useful int       // events that were, less those that were not
	stream *inStream // the present one
	used   time.Time
}

// inStream is one stream of events from a peer.
type inStream struct {
	remote *remote
	stream Stream
	acks   *ackWriter
	flow   *flow

	stopped chan struct{} // closed when another stream takes this one's place
	once    sync.Once

	repeated int // events on this stream that had come before
}

// serve reads a stream until it ends; the host calls it.
func (p *persona) serve(peer string, stream Stream) {
	b := p.broker
	b.obs.Adjust("streams_in", 1)
	defer b.obs.Adjust("streams_in", -1)
	r := p.remote(peer)
	in := &inStream{remote: r, stream: stream, acks: newAckWriter(stream, b.limits.Patience, b.ackHold(), b.padded()), flow: newFlow(b.limits.InEvents, b.limits.InBytes, b.budget), stopped: make(chan struct{})}
	if former := r.replace(in); former != nil {
		former.stop()
	}
	r.turn.Lock()
	defer r.turn.Unlock()
	written := make(chan struct{})
	go func() {
		defer close(written)
		in.acks.run()
	}()
	err := in.read()
	in.flow.close()
	if errors.Is(err, io.EOF) {
		in.acks.finish()
		impatient := time.AfterFunc(b.limits.Patience, func() { _ = stream.Reset() })
		<-written
		impatient.Stop()
		_ = stream.Close()
	} else {
		in.acks.finish()
		_ = stream.Reset()
		<-written
		b.obs.StreamReset(resetReason(err))
	}
	if in.acks.unread { // run has returned
		b.charge(p, peer, conduct.Unread)
	}
	r.leave(in)
}

func resetReason(err error) string {
	switch {
	case errors.Is(err, frame.ErrMalformed):
		return "garbage"
	case errors.Is(err, errClosed):
		return "replaced"
	case errors.Is(err, errOverrun):
		return "overrun"
	case errors.Is(err, errStalled):
		return "stalled"
	case TimedOut(err):
		return "idle"
	}
	return "broken_in"
}

func (in *inStream) stop() {
	in.once.Do(func() { close(in.stopped) })
	in.flow.close()
	_ = in.stream.Reset()
}

// remote finds or makes what is known of a peer, and forgets the peers that have been silent longest when there are too many.
func (p *persona) remote(peer string) *remote {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r, ok := p.remotes[peer]; ok {
		return r
	}
	if len(p.remotes) >= p.broker.limits.Remotes {
		p.forgetRemote()
	}
	r := &remote{persona: p, peer: peer, tempo: newTempo(&p.broker.limits), recent: recent.NewWindow(p.broker.limits.Recent), used: time.Now()}
	p.remotes[peer] = r
	return r
}

func (p *persona) forgetRemote() {
	var oldest *remote
	for _, r := range p.remotes {
		r.mu.Lock()
		idle := r.stream == nil && r.recent.Idle()
		if idle && (oldest == nil || r.used.Before(oldest.used)) {
			oldest = r
		}
		r.mu.Unlock()
	}
	if oldest != nil {
		delete(p.remotes, oldest.peer)
	}
}

func (r *remote) replace(in *inStream) *inStream {
	r.mu.Lock()
	defer r.mu.Unlock()
	former := r.stream
	r.stream = in
	return former
}

func (r *remote) leave(in *inStream) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.used = time.Now()
	if r.stream == in {
		r.stream = nil
	}
}

// hurry has the acknowledgements written that wait for something to go with: n bytes go now.
func (p *persona) hurry(peer string, n int) {
	p.mu.Lock()
	r := p.remotes[peer]
	p.mu.Unlock()
	if r == nil {
		return
	}
	r.mu.Lock()
	in := r.stream
	r.mu.Unlock()
	if in != nil {
		in.acks.hurry(n)
	}
}

// answer acknowledges on whatever stream the peer has now; with none the peer will send the event again.
func (r *remote) answer(id event.ID, o event.Outcome) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stream != nil {
		r.stream.acks.push(id, o)
	}
}

func (in *inStream) read() error {
	fr := frame.NewReader(in.stream, readBuffer)
	p, peer := in.remote.persona, in.remote.peer
	limits := &p.broker.limits
	begun := false
	idle := func() {
		begun = false
		_ = in.stream.SetReadDeadline(time.Now().Add(limits.IdleAfter + max(limits.IdleAfter/2, idleGrace)))
	}
	fr.Begun = func() {
		begun = true
		_ = in.stream.SetReadDeadline(time.Now().Add(limits.Patience))
	}
	fr.Ended = idle
	idle()
	for last := time.Now(); ; {
		if now := time.Now(); now.Sub(last) > limits.IdleAfter/4 { // not for every event: it costs as much as a small one
			last = now
			idle()
		}
		kind, body, err := fr.Next()
		if TimedOut(err) {
			if !begun && in.flow.busy() { // it waits for answers
				idle()
				continue
			}
			if begun {
				err = errStalled
			}
		}
		if err == nil && kind == frame.KindEvent {
			err = in.event(body, fr.Size())
		}
		switch {
		case err == nil:
		case errors.Is(err, frame.ErrMalformed):
			p.broker.charge(p, peer, conduct.Garbage)
			return err
		case errors.Is(err, errOverrun):
			p.broker.charge(p, peer, conduct.Overrunning)
			return err
		case errors.Is(err, errStalled):
			p.broker.charge(p, peer, conduct.Stalled)
			return err
		default:
			return err
		}
	}
}

// event takes one in: it is checked, recognised if it came before, and offered to the groups. An error ends the stream. size is what it took to send it, padding
// included: that is what its sender may not have too much of.
func (in *inStream) event(body []byte, size int) error {
	r := in.remote
	p := r.persona
	b := p.broker
	e, err := b.cfg.Codec.Decode(body)
	if err != nil {
		b.obs.Event(0, "in", string(event.Undecodable))
		return errors.Join(frame.ErrMalformed, err)
	}
	id, ok := event.ParseID(e.ID)
	if !ok { // there is nothing that it could be answered by
		b.obs.Event(0, "in", string(event.BadID))
		return frame.ErrMalformed
	}
	if problem := b.rules.CheckDirected(e, len(body)); problem != event.OK {
		return in.refuse(id, e, problem)
	}
	if err := in.hold(e, size); err != nil {
		return err
	}
	if err := in.flow.acquire(size); err != nil {
		return err
	}
	r.mu.Lock()
	state, outcome := r.recent.Begin(id)
	r.mu.Unlock()
	if state != recent.New {
		in.flow.release(size)
		b.obs.Event(e.Type, "in", "repeated")
		// After a broken stream an honest peer sends again what it had not been answered: a window full at most.
		if in.repeated++; in.repeated > b.limits.InEvents {
			b.charge(p, r.peer, conduct.Repeated)
		}
		if state == recent.Finished {
			return in.acks.pushIn(id, outcome)
		}
		return nil
	}
	b.obs.Adjust("pending_in", 1)
	b.inbox.offer(&delivery.Item{Persona: p.name, Sender: r.peer, Type: e.Type, Value: &arrival{event: e, done: func(o event.Outcome, useful bool) {
		in.finished(id, e.Type, size, o, useful)
	}}})
	return nil
}

// finished is called with the outcome, from within the dispatcher.
func (in *inStream) finished(id event.ID, t event.Type, size int, o event.Outcome, useful bool) {
	r := in.remote
	b := r.persona.broker
	in.flow.release(size)
	r.mu.Lock()
	r.recent.Finish(id, o)
	r.mu.Unlock()
	b.obs.Adjust("pending_in", -1)
	b.obs.Event(t, "in", statusName(o.Status))
	r.answer(id, o) // last: whoever has the answer finds it counted
	switch {        // it may close connections, which must not happen in here
	case o.Misconduct:
		go b.charge(r.persona, r.peer, conduct.Cheated)
	case o.Status == event.Rejected:
		go b.charge(r.persona, r.peer, conduct.Refused)
	case o.Status == event.Acknowledged && r.useless(useful):
		go b.charge(r.persona, r.peer, conduct.Useless)
	}
}

// refuse answers an event that breaks a rule.
func (in *inStream) refuse(id event.ID, e *event.Event, problem event.Problem) error {
	r := in.remote
	b := r.persona.broker
	label, o, offence := e.Type, event.Outcome{Status: event.Invalid, Detail: string(problem)}, conduct.Malformed
	switch problem {
	case event.UnknownType: // of a later version: acknowledged, so that it is not sent again
		label, o, offence = 0, event.Outcome{}, conduct.Unknown
	case event.BadAuthor, event.BadSignature, event.Unsigned:
		offence = conduct.Forged
	}
	b.obs.Event(label, "in", string(problem))
	b.charge(r.persona, r.peer, offence)
	return in.acks.pushIn(id, o)
}

// useless counts an event that was acknowledged, and tells whether it is one of more useless ones than useful ones. A peer that gives much work
// is told again, and asks too late, more often than one that gives little.
func (r *remote) useless(useful bool) bool {
	const most = 1 << 12 // what was long ago weighs little
	r.mu.Lock()
	defer r.mu.Unlock()
	if useful {
		r.useful = min(r.useful+1, most)
		return false
	}
	r.useful = max(r.useful-1, 0)
	return r.useful == 0
}

func statusName(s event.Status) string {
	switch s {
	case event.Acknowledged:
		return "acknowledged"
	case event.Rejected:
		return "rejected"
	case event.NoSubscriber:
		return "no_subscriber"
	case event.TimedOut:
		return "timed_out"
	case event.Busy:
		return "busy"
	}
	return "other"
}
