package app

import (
	"time"

	"google.golang.org/grpc/codes"

	"github.com/shallot-net/shallot/broker/internal/domain/event"
	"github.com/shallot-net/shallot/broker/internal/domain/frame"
	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/padding"
)

// Bounds of a Send's timeout.
const (
	defaultSendTimeout = 10 * time.Second
	maxSendTimeout     = 2 * time.Minute
)

// Reasons of a failed Send.
const (
	ReasonUnreachable  = "UNREACHABLE"   // never handed over
	ReasonRejected     = "REJECTED"      // refused by the receiving service
	ReasonSendTimeout  = "SEND_TIMEOUT"  // handed over and not answered in time
	ReasonNoSubscriber = "NO_SUBSCRIBER" // no service of the receiving node takes such events now
	ReasonAckTimeout   = "ACK_TIMEOUT"   // the receiving service did not answer its broker in time
	ReasonPeerBusy     = "PEER_BUSY"
	ReasonBacklogFull  = "BACKLOG_FULL" // too much waits for this peer here
)

// Outgoing is one event for one peer.
type Outgoing struct {
	Persona string
	Peer    string
	Event   *event.Event
	Sign    bool
	Timeout time.Duration // 0: 10 s
}

// Send hands an event to its peer's queue. It blocks only while many wait to be signed. done is called once, from any goroutine and maybe
// before Send returns: with nil when the receiving service has acknowledged the event, else with a fault. It must not block.
func (b *Broker) Send(o Outgoing, done func(error)) {
	start := time.Now()
	p, id, err := b.prepare(&o)
	if err != nil {
		done(err)
		return
	}
	t := o.Event.Type
	p.signing.post(&letter{Outgoing: o, id: id, done: func(err error) {
		if err == nil {
			b.obs.AckSeconds(time.Since(start).Seconds())
			b.obs.Event(t, "out", "acknowledged")
		} else {
			b.obs.Event(t, "out", fault.From(err).Reason)
		}
		done(err)
	}})
}

func (b *Broker) prepare(o *Outgoing) (*persona, event.ID, error) {
	p, err := b.persona(o.Persona)
	if err != nil {
		return nil, event.ID{}, err
	}
	if o.Timeout == 0 {
		o.Timeout = defaultSendTimeout
	}
	if o.Timeout < 0 || o.Timeout > maxSendTimeout {
		return nil, event.ID{}, fault.InvalidArgument("TIMEOUT_INVALID", "timeout is %v: it must be more than 0 and %v at most", o.Timeout, maxSendTimeout)
	}
	if err := b.signable(o.Event, o.Sign); err != nil {
		return nil, event.ID{}, err
	}
	if o.Peer == p.host.ID() {
		return nil, event.ID{}, fault.InvalidArgument("PEER_IS_SELF", "the event is for this persona itself: events go to other nodes")
	}
	id, _ := event.ParseID(o.Event.ID) // of one that is not signed, encode checks it
	return p, id, nil
}

// encode makes a frame. The receiver checks the same: an event that breaks a rule must not cost this node its standing there. What was
// just signed here need not be verified.
func (b *Broker) encode(e *event.Event, signed bool) ([]byte, event.Problem, error) {
	data, err := b.cfg.Codec.Encode(e)
	if err != nil {
		return nil, event.OK, err
	}
	problem := event.OK
	switch {
	case len(data) > event.MaxSize:
		problem = event.Oversized
	case !signed:
		problem = b.rules.CheckDirected(e, len(data))
	}
	if problem != event.OK {
		return data, problem, nil
	}
	if !b.padded() {
		return frame.AppendEvent(make([]byte, 0, len(data)+8), data), event.OK, nil
	}
	size := paddedSize(len(data) + frame.Overhead)
	return frame.Pad(frame.AppendEvent(make([]byte, 0, size), data), 0, size), event.OK, nil
}

// padded tells whether what this broker writes is of few sizes: whoever watches a circuit sees how much goes over it. In open mode the events themselves can be
// told by when they come, and it would cost for nothing.
func (b *Broker) padded() bool { return b.cfg.Mode == ModeAnonymous }

// ackHold is how long an acknowledgement may wait for an event to go with. Over Tor two small messages right after each other wait for each other at every relay,
// and the event is what somebody waits for: an answer that is about to come, or the next task. It is far below what senders wait.
func (b *Broker) ackHold() time.Duration {
	if b.cfg.Mode == ModeAnonymous {
		return 20 * time.Millisecond
	}
	return 0
}

// paddedSize is what a frame of n bytes becomes. All those without a payload to speak of, acknowledgements among them, become as long as each other.
func paddedSize(n int) int { return int(padding.Cells(int64(n+frame.PadOverhead), circuitHeaders)) }

// circuitHeaders is what a frame gets on its way to the circuit: yamux's header of 12 bytes, and 18 bytes of Noise.
const circuitHeaders = 12 + 18

// circuitBurst is how many bytes go over a circuit without a pause, those headers included: what takes more than five cells waits 40 ms at a relay, see adapter onion.
const circuitBurst = 5 * padding.Cell

// send queues the frame at the peer's sender.
func (p *persona) send(peer string, id event.ID, data []byte, timeout time.Duration, done func(error)) {
	for {
		p.mu.Lock()
		if p.senders == nil {
			p.mu.Unlock()
			done(errPersonaClosed())
			return
		}
		s, ok := p.senders[peer]
		if !ok {
			s = newSender(p, peer)
			p.senders[peer] = s
		}
		p.mu.Unlock()
		if s.enqueue(id, data, timeout, done) {
			return
		}
		p.forgetSender(s) // it ended just now: the next one takes it
	}
}

func (p *persona) forgetSender(s *sender) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.senders[s.peer] == s {
		delete(p.senders, s.peer)
	}
}

// outcomeFault is what a Send ends with.
func outcomeFault(o event.Outcome) error {
	switch o.Status {
	case event.Acknowledged:
		return nil
	case event.Rejected:
		return fault.FailedPrecondition(ReasonRejected, "the receiving service refused the event: %s", o.Detail).With("reason", o.Detail)
	case event.NoSubscriber:
		return fault.Unavailable(ReasonNoSubscriber, "no service of the receiving node takes events of this type now: try again")
	case event.TimedOut:
		return fault.New(codes.DeadlineExceeded, ReasonAckTimeout, "the receiving service did not answer in time: whether it has the event is not known")
	case event.Busy:
		return fault.ResourceExhausted(ReasonPeerBusy, "the receiving node has too much to do: try again later")
	case event.Invalid:
		return fault.InvalidArgument("INVALID_EVENT", "the receiving broker refused the envelope: %s", o.Detail).With("problem", o.Detail)
	}
	return fault.New(codes.Unknown, "OUTCOME_UNKNOWN", "the receiving broker answered with status %d, which this version does not know", o.Status)
}
