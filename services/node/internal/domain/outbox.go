package domain

import (
	"container/heap"
	"time"
)

// Lane is one way out: events of one lane are handed over side by side, those of one task in it one after another.
type Lane struct {
	Persona, Peer string
}

// Message is an event that the task service wants sent.
type Message struct {
	ID      uint64 // the outbox's
	EventID string
	Lane    Lane
	TaskID  string // "" when the event is about several tasks: then it has no order
	Size    int    // bytes
	Timeout time.Duration
	Body    any // nothing here looks inside
	// Uncertain: a try has failed in a way that leaves open whether the message has arrived.
	Uncertain bool
}

// Failure is how a try to hand a message over has failed.
type Failure int

// Failures.
const (
	Unreached Failure = iota // it was not handed over
	Unknown                  // it may have arrived
	Refused                  // the receiver refuses it, and would again
)

// OutboxLimits bound what is held in memory. The zero value takes the defaults.
type OutboxLimits struct {
	Bytes, LaneBytes int // held at most, all together and per lane; 32 MiB and 8 MiB
	InFlight         int // handed to the broker and not answered; 768, below the broker's own 1,024
	Window           int // the same for one lane that works; 128
	Retry            Backoff
	Draw             func() float64 // for jitter
}

const (
	overhead    = 512 // bytes that a message costs beside its own
	firstWindow = 8   // what a lane may have in flight that has not delivered anything yet
	idleLanes   = 256 // lanes without messages that are remembered
)

// Outbox decides what is handed over next. It holds no more than its limits: what does not fit is let go, for the task
// service has it on disk and tells it again (see NeedsResync). Not safe for concurrent use.
type Outbox struct {
	limits   OutboxLimits
	session  uint64
	entries  map[uint64]*entry
	lanes    map[Lane]*lane
	ready    []*lane // lanes that may have something to hand over, in turn
	expiry   expiryHeap
	bytes    int
	inFlight int
	arrivals uint64
	dropped  bool // something was let go in this session
}

// NewOutbox makes an empty one.
func NewOutbox(l OutboxLimits) *Outbox {
	if l.Bytes <= 0 {
		l.Bytes = 32 << 20
	}
	if l.LaneBytes <= 0 {
		l.LaneBytes = 8 << 20
	}
	if l.InFlight <= 0 {
		l.InFlight = 768
	}
	if l.Window <= 0 {
		l.Window = 128
	}
	if l.Retry.First <= 0 {
		l.Retry = Backoff{First: 100 * time.Millisecond, Max: 15 * time.Second}
	}
	return &Outbox{limits: l, entries: map[uint64]*entry{}, lanes: map[Lane]*lane{}}
}

// Begin starts a session: everything that is still to be sent will be told again.
func (o *Outbox) Begin() {
	o.session++
	o.dropped = false
	for _, l := range o.lanes {
		l.truncated = false
	}
}

// Synced ends the telling: what was not told again is no longer to be sent.
func (o *Outbox) Synced() {
	for _, e := range o.entries {
		if e.session != o.session {
			o.Withdraw(e.ID)
		}
	}
}

// Tell takes a message. One that is held already is only noted as still wanted.
func (o *Outbox) Tell(m Message, now time.Time) {
	if e := o.entries[m.ID]; e != nil {
		if e.EventID == m.EventID && !e.gone {
			e.session = o.session
			return
		}
		o.forget(e)
	}
	l := o.lane(m.Lane)
	m.Size += overhead
	if l.truncated || !o.makeRoom(l, m.Size) {
		l.truncated, o.dropped = true, true
		return
	}
	o.arrivals++
	e := &entry{Message: m, lane: l, arrival: o.arrivals, session: o.session, heapAt: -1}
	o.entries[m.ID] = e
	o.bytes += m.Size
	l.bytes += m.Size
	l.held++
	if m.Timeout > 0 {
		e.deadline = now.Add(m.Timeout)
		heap.Push(&o.expiry, e)
	}
	if m.TaskID != "" {
		if first := l.tasks[m.TaskID]; first != nil {
			first.behind = append(first.behind, e)
			e.follows = first
			return
		}
		l.tasks[m.TaskID] = e
	}
	l.line(e)
	o.queue(l)
}

func (o *Outbox) lane(at Lane) *lane {
	if l := o.lanes[at]; l != nil {
		return l
	}
	if len(o.lanes) >= idleLanes {
		for k, l := range o.lanes {
			if l.held == 0 && l.flying == 0 && !l.queued && !l.truncated {
				delete(o.lanes, k)
			}
		}
	}
	l := &lane{Lane: at, window: firstWindow, tasks: map[string]*entry{}}
	o.lanes[at] = l
	return l
}

// makeRoom lets the newest messages of the fullest lane go until size fits; false when it is l that has to give way.
func (o *Outbox) makeRoom(l *lane, size int) bool {
	if l.held > 0 && l.bytes+size > o.limits.LaneBytes {
		return false
	}
	for o.bytes > 0 && o.bytes+size > o.limits.Bytes {
		fullest := l
		for _, other := range o.lanes {
			if other.bytes > fullest.bytes {
				fullest = other
			}
		}
		if fullest == l || !o.dropNewest(fullest) {
			return false
		}
	}
	return true
}

// dropNewest lets go what was told last of what waits in a lane: the last of its task, so that no later one overtakes it.
func (o *Outbox) dropNewest(l *lane) bool {
	if len(l.waiting) == 0 {
		return false
	}
	e := l.waiting[len(l.waiting)-1]
	if n := len(e.behind); n > 0 {
		e = e.behind[n-1]
	}
	l.truncated, o.dropped = true, true
	o.forget(e)
	return true
}

// Withdraw takes a message back. One that is handed over already may still arrive.
func (o *Outbox) Withdraw(id uint64) {
	e := o.entries[id]
	if e == nil {
		return
	}
	if e.flying {
		e.gone = true // its place in the lane and in the task's order is free once the broker has answered
		return
	}
	o.forget(e)
}

// Next is the next message to hand over, which is in flight from now on; false when there is none for now.
func (o *Outbox) Next(now time.Time) (Message, bool) {
	for n := len(o.ready); n > 0 && o.inFlight < o.limits.InFlight; n-- {
		l := o.ready[0]
		o.ready = o.ready[1:]
		l.queued = false
		if len(l.waiting) == 0 || l.flying >= l.window || now.Before(l.retryAt) {
			continue // Sent, Failed and Wake bring it back
		}
		e := l.waiting[0]
		l.waiting[0] = nil
		l.waiting = l.waiting[1:]
		e.inLine, e.flying, e.epoch = false, true, l.epoch
		l.flying++
		o.inFlight++
		o.queue(l)
		return e.Message, true
	}
	return Message{}, false
}

func (o *Outbox) queue(l *lane) {
	if !l.queued && len(l.waiting) > 0 {
		l.queued = true
		o.ready = append(o.ready, l)
	}
}

// land ends a message's flight; nil when it is none of this outbox's.
func (o *Outbox) land(id uint64, eventID string) *entry {
	e := o.entries[id]
	if e == nil || e.EventID != eventID || !e.flying {
		return nil
	}
	e.flying = false
	e.lane.flying--
	o.inFlight--
	return e
}

// Sent says that the receiver's service has acknowledged a message.
func (o *Outbox) Sent(id uint64, eventID string) {
	e := o.land(id, eventID)
	if e == nil {
		return
	}
	l := e.lane
	l.failures, l.retryAt = 0, time.Time{}
	l.window = min(l.window+1, o.limits.Window)
	o.forget(e)
	o.queue(l)
}

// Failed says that a message was not acknowledged. The message is given up when it was refused, when its time is over, or
// when it was withdrawn (then told is false: nobody waits for it). Otherwise it is tried again, after the lane's back-off.
func (o *Outbox) Failed(id uint64, eventID string, how Failure, now time.Time) (givenUp, told bool) {
	e := o.land(id, eventID)
	if e == nil {
		return true, false
	}
	l := e.lane
	defer o.queue(l)
	e.Uncertain = e.Uncertain || how == Unknown
	if how == Refused {
		// The peer was reached and said no: nothing is wrong with the lane.
		told = !e.gone
		o.forget(e)
		return true, told
	}
	if e.epoch == l.epoch { // those that were in flight together fail together, and count once
		l.epoch++
		l.failures++
		l.window = 1
		l.retryAt = now.Add(o.limits.Retry.After(l.failures, o.limits.Draw))
	}
	if e.gone {
		o.forget(e)
		return true, false
	}
	if !e.deadline.IsZero() && !now.Before(e.deadline) {
		o.forget(e)
		return true, true
	}
	l.line(e)
	return false, false
}

// Reachable ends the back-off of a peer's lanes: a connection to it stands.
func (o *Outbox) Reachable(peer string) {
	for _, l := range o.lanes {
		if l.Peer == peer {
			l.retryAt = time.Time{}
			l.failures = 0
			o.queue(l)
		}
	}
}

// RetryAll ends every back-off: what failed may not have been the peers' fault.
func (o *Outbox) RetryAll() {
	for _, l := range o.lanes {
		l.retryAt = time.Time{}
		o.queue(l)
	}
}

// Expire gives up what waits and whose time is over, and returns it, in order of arrival.
func (o *Outbox) Expire(now time.Time) []Message {
	var out []Message
	for len(o.expiry) > 0 && !now.Before(o.expiry[0].deadline) {
		e := o.expiry[0]
		if e.flying {
			heap.Remove(&o.expiry, e.heapAt) // the answer of the broker decides; Failed looks at the deadline
			continue
		}
		out = append(out, e.Message)
		o.forget(e)
	}
	return out
}

// Wake makes lanes ready whose back-off is over, and says when to call it (and Expire) again; the zero time: nothing
// is to be waited for.
func (o *Outbox) Wake(now time.Time) time.Time {
	var at time.Time
	for _, l := range o.lanes {
		switch {
		case len(l.waiting) == 0:
		case !now.Before(l.retryAt):
			o.queue(l)
		case at.IsZero() || l.retryAt.Before(at):
			at = l.retryAt
		}
	}
	if len(o.expiry) > 0 && (at.IsZero() || o.expiry[0].deadline.Before(at)) {
		at = o.expiry[0].deadline
	}
	return at
}

// forget removes an entry, and lets the next message of its task go.
func (o *Outbox) forget(e *entry) {
	l := e.lane
	delete(o.entries, e.ID)
	o.bytes -= e.Size
	l.bytes -= e.Size
	l.held--
	if e.flying {
		e.flying = false
		l.flying--
		o.inFlight--
	}
	if e.heapAt >= 0 {
		heap.Remove(&o.expiry, e.heapAt)
	}
	switch {
	case e.follows != nil:
		e.follows.behind = without(e.follows.behind, e)
		return
	case e.TaskID != "":
		delete(l.tasks, e.TaskID)
	}
	if e.inLine {
		e.inLine = false
		l.waiting = without(l.waiting, e)
	}
	if len(e.behind) == 0 {
		return
	}
	next := e.behind[0]
	next.behind, next.follows = e.behind[1:], nil
	for _, b := range next.behind {
		b.follows = next
	}
	l.tasks[next.TaskID] = next
	l.line(next)
	o.queue(l)
}

// NeedsResync says that messages were let go for which there is room again: a new session would tell them.
func (o *Outbox) NeedsResync() bool {
	if !o.dropped || o.bytes > o.limits.Bytes/2 {
		return false
	}
	for _, l := range o.lanes {
		if l.truncated && l.bytes <= o.limits.LaneBytes/2 {
			return true
		}
	}
	return false
}

// Held is how many messages and bytes are in memory, how many of them in flight, and how many lanes wait after a failure.
func (o *Outbox) Held() (messages, bytes, inFlight, backingOff int) {
	for _, l := range o.lanes {
		if l.failures > 0 && l.held > 0 {
			backingOff++
		}
	}
	return len(o.entries), o.bytes, o.inFlight, backingOff
}
