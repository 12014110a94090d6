package app

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/logging"
	"github.com/shallot-net/shallot/kit/tracing"
	"github.com/shallot-net/shallot/kit/workers"
	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
	"github.com/shallot-net/shallot/services/node/internal/domain"
)

// Reasons with which a hand-over fails for sure: the event was not applied.
const (
	reasonRejected    = "REJECTED"
	reasonUnreachable = "UNREACHABLE"
	reasonNotSent     = "NOT_SENT" // it has not left this process
)

// reasonUncertain is what the task service is told of an event that may have arrived.
const reasonUncertain = "NOT_ACKNOWLEDGED"

// EventSender hands events over.
type EventSender interface {
	// Send returns nil once the receiving service has acknowledged. A fault with reason REJECTED is the receiver's last
	// word; after any other the same event is to be sent again. It blocks for a little more than timeout at most.
	Send(ctx context.Context, persona, peer string, ev *eventv1.Event, sign bool, timeout time.Duration) error
	// Remember tells the broker where a peer is, for when it has to be dialled.
	Remember(ctx context.Context, persona, peer string, addresses []string) error
}

// OutboxMarker tells the task service what has become of its events. Both may be repeated.
type OutboxMarker interface {
	MarkSent(ctx context.Context, ids []uint64) error
	SendFailed(ctx context.Context, id uint64, reason, message string) error
}

// resyncEvery is the least time between two sessions that are asked for: each tells everything.
const resyncEvery = time.Second

// CarrierConfig bounds a Carrier. The zero value takes the defaults.
type CarrierConfig struct {
	Outbox      domain.OutboxLimits
	SendTimeout time.Duration // one try of the broker's; 10 s
	MarkDelay   time.Duration // how long a mark may wait for others; 25 ms
	MarkBatch   int           // 256
}

// Carrier carries the task service's outbox to the broker: in order per task, side by side otherwise, again and again
// until it is acknowledged, withdrawn or out of time.
type Carrier struct {
	cfg    CarrierConfig
	sender EventSender
	marker OutboxMarker
	log    *slog.Logger

	// Unreachable is told of peers that could not be reached, Resync is asked for a new session (both must not block).
	Unreachable func(peer string)
	Resync      func()
	// Where says where a peer is whose events come without addresses, as far as is known; it must not block long.
	Where func(peer string) []string
	Trace *tracing.Tracer // nil: no spans

	mu         sync.Mutex
	box        *domain.Outbox
	marks      []uint64          // sent, to be marked
	unmarked   map[uint64]string // sent, not confirmed as marked: outbox id to event id
	flushing   bool              // a flush is on its way
	wakeAt     time.Time
	remembered map[domain.Lane]string
	stopped    bool
	ctx        context.Context // of the sends
	stop       context.CancelFunc
	sends      workers.Group
	kick       chan struct{}
	counts     CarrierCounts
}

// CarrierCounts count what a Carrier did since it was made.
type CarrierCounts struct {
	Sent, Retried, GivenUp uint64
}

// NewCarrier makes a Carrier; Run it.
func NewCarrier(cfg CarrierConfig, sender EventSender, marker OutboxMarker, log *slog.Logger) *Carrier {
	if cfg.SendTimeout <= 0 {
		cfg.SendTimeout = 10 * time.Second
	}
	if cfg.MarkDelay <= 0 {
		cfg.MarkDelay = 25 * time.Millisecond
	}
	if cfg.MarkBatch <= 0 {
		cfg.MarkBatch = 256
	}
	ctx, stop := context.WithCancel(context.Background())
	return &Carrier{cfg: cfg, sender: sender, marker: marker, log: log, Unreachable: func(string) {}, Resync: func() {}, Where: func(string) []string { return nil },
		box: domain.NewOutbox(cfg.Outbox), unmarked: map[uint64]string{}, remembered: map[domain.Lane]string{},
		ctx: ctx, stop: stop, kick: make(chan struct{}, 1)}
}

// Begin starts a session with the task service, which tells its whole outbox again; Synced ends the telling.
func (c *Carrier) Begin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.box.Begin()
}

// Synced says that everything has been told.
func (c *Carrier) Synced() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.box.Synced()
	c.pump(time.Now())
}

// Tell takes what the task service wants sent or withdrawn, in order. It does not block.
func (c *Carrier) Tell(events []*taskv1.OutboxEvent) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	for _, ev := range events {
		id := ev.GetOutboxId()
		if ev.GetWithdrawn() || ev.GetEvent() == nil {
			c.box.Withdraw(id)
			continue
		}
		if eventID, ok := c.unmarked[id]; ok {
			if eventID == ev.GetEvent().GetId() { // told again, because the mark was lost with the session
				c.mark(id)
				continue
			}
			delete(c.unmarked, id)
		}
		m := domain.Message{ID: id, EventID: ev.GetEvent().GetId(), Lane: domain.Lane{Persona: ev.GetPersona(), Peer: ev.GetPeerId()},
			TaskID: ev.GetTaskId(), Size: len(ev.GetEvent().GetPayload()) + len(ev.GetEvent().GetAttachment()), Body: ev}
		if ev.GetTimeout() != nil {
			m.Timeout = max(ev.GetTimeout().AsDuration(), time.Millisecond)
			if at := now.Add(m.Timeout); c.wakeAt.IsZero() || at.Before(c.wakeAt) {
				c.wakeAt = at
				c.signal()
			}
		}
		c.box.Tell(m, now)
	}
	c.pump(now)
}

// Reachable says that a connection to a peer stands: what waits for it goes now.
func (c *Carrier) Reachable(peer string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.box.Reachable(peer)
	c.pump(time.Now())
}

// BrokerLost says that the broker is gone: the next one has forgotten what it was told to remember.
func (c *Carrier) BrokerLost() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.remembered)
}

// BrokerUp says that the broker is back: what failed without it goes now.
func (c *Carrier) BrokerUp() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.box.RetryAll()
	c.pump(time.Now())
}

// Held is what the carrier holds now, and what it did.
func (c *Carrier) Held() (messages, bytes, inFlight, backingOff int, counts CarrierCounts) {
	c.mu.Lock()
	defer c.mu.Unlock()
	messages, bytes, inFlight, backingOff = c.box.Held()
	return messages, bytes, inFlight, backingOff, c.counts
}

// pump hands over whatever may go. The caller holds mu.
func (c *Carrier) pump(now time.Time) {
	for !c.stopped {
		m, ok := c.box.Next(now)
		if !ok {
			return
		}
		c.sends.Go(func() { c.send(m) })
	}
}

func (c *Carrier) send(m domain.Message) {
	ev, ok := m.Body.(*taskv1.OutboxEvent)
	if !ok {
		return
	}
	a := ev.GetAddresses()
	if len(a) == 0 {
		a = c.Where(m.Lane.Peer)
	}
	if len(a) > 0 {
		c.remember(m.Lane, a)
	}
	ctx, span := c.Trace.Task(c.Trace.From(c.ctx, ev.GetTraceParent()), ev.GetTaskId(), "event.send")
	span.SetEvent(ev.GetEvent().GetType().String())
	err := c.sender.Send(ctx, m.Lane.Persona, m.Lane.Peer, ev.GetEvent(), ev.GetSign(), c.cfg.SendTimeout)
	span.Failed(err)
	span.End()
	c.landed(m, err)
}

// remember costs a call for the first event to a peer only.
func (c *Carrier) remember(l domain.Lane, addresses []string) {
	c.mu.Lock()
	known := c.remembered[l] == addresses[0]
	c.mu.Unlock()
	if known {
		return
	}
	if err := c.sender.Remember(c.ctx, l.Persona, l.Peer, addresses); err != nil {
		c.log.Debug("the broker did not take a peer's addresses", logging.Peer(l.Peer), logging.Err(err))
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.remembered) >= 1024 {
		clear(c.remembered)
	}
	c.remembered[l] = addresses[0]
}

func (c *Carrier) landed(m domain.Message, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if err == nil {
		c.counts.Sent++
		c.box.Sent(m.ID, m.EventID)
		c.unmarked[m.ID] = m.EventID
		c.mark(m.ID)
		if c.box.NeedsResync() {
			c.signal()
		}
		c.pump(now)
		return
	}
	if c.ctx.Err() != nil {
		return
	}
	f := fault.From(err)
	how := failureOf(f)
	givenUp, told := c.box.Failed(m.ID, m.EventID, how, now)
	if f.Reason == reasonUnreachable {
		c.Unreachable(m.Lane.Peer)
	}
	switch {
	case told:
		c.counts.GivenUp++
		m.Uncertain = m.Uncertain || how == domain.Unknown
		c.fail(m, how, f.Message)
	case !givenUp:
		c.counts.Retried++
		c.log.Debug("an event will be sent again", logging.Peer(m.Lane.Peer), slog.String("reason", f.Reason))
	}
	c.signal() // the lane's back-off has to be waited for
	c.pump(now)
}

func failureOf(f *fault.Error) domain.Failure {
	switch {
	case f.Reason == reasonRejected, f.Code.String() == "InvalidArgument":
		return domain.Refused
	case f.Reason == reasonUnreachable, f.Reason == reasonNotSent:
		return domain.Unreached
	}
	return domain.Unknown
}

// fail tells the task service that an event is given up. The caller holds mu.
func (c *Carrier) fail(m domain.Message, how domain.Failure, message string) {
	if c.stopped {
		return
	}
	reason := reasonUnreachable
	switch {
	case how == domain.Refused:
		reason = reasonRejected
	case m.Uncertain:
		reason = reasonUncertain
	}
	c.sends.Go(func() {
		retry := domain.Backoff{First: 50 * time.Millisecond, Max: 2 * time.Second}
		for n := 1; n <= 6; n++ {
			ctx, cancel := context.WithTimeout(c.ctx, 5*time.Second)
			err := c.marker.SendFailed(ctx, m.ID, reason, message)
			cancel()
			if err == nil || c.ctx.Err() != nil {
				return
			}
			c.log.Debug("the task service did not hear of a failed event", logging.Err(err))
			sleep(c.ctx, retry.After(n, nil))
		}
		c.Resync() // it will tell the event again, and the story begins anew
	})
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

func (c *Carrier) signal() {
	select {
	case c.kick <- struct{}{}:
	default:
	}
}

// Run watches over back-offs and times until ctx ends; then it marks what is to be marked, and returns when no hand-over
// is left.
func (c *Carrier) Run(ctx context.Context) error {
	defer c.shutDown()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	var lastResync time.Time
	for {
		next, resync := c.tick(time.Now())
		wait := time.Hour
		if !next.IsZero() {
			wait = max(time.Until(next), time.Millisecond)
		}
		if resync {
			if since := time.Since(lastResync); since < resyncEvery {
				wait = min(wait, resyncEvery-since)
			} else {
				lastResync = time.Now()
				c.Resync()
			}
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			return nil
		case <-c.kick:
		case <-timer.C:
		}
	}
}

func (c *Carrier) tick(now time.Time) (next time.Time, resync bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range c.box.Expire(now) {
		c.counts.GivenUp++
		c.fail(m, domain.Unreached, "the peer could not be reached within the event's time")
	}
	next = c.box.Wake(now)
	c.wakeAt = next
	c.pump(now)
	return next, c.box.NeedsResync()
}

func (c *Carrier) shutDown() {
	c.mu.Lock()
	c.stopped = true
	ids := append([]uint64(nil), c.marks...)
	c.mu.Unlock()
	if len(ids) > 0 {
		ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
		_ = c.marker.MarkSent(ctx, ids) // without it they are told again, which is harmless
		cancel()
	}
	c.stop()
	c.sends.Wait()
}
