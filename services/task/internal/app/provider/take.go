package provider

import (
	"context"
	"errors"
	"time"

	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// queuedExpress is how many times longer a submission may wait for its result when it has to queue first: what was
// acknowledged before its result costs both sides a commit and two events more, which in a burst is a quarter of all work. One second
// by default: a tenth of what the broker waits for an acknowledgement before it delivers again.
const queuedExpress = 40

// keepInMemory is up to what size a waiting payload stays in memory, in bytes; larger ones are read again.
const keepInMemory = 8 << 10

// take puts a task into the queue. When its result is there before the express time is over, both are one commit
// and the result is the answer; else the journal gets it now, and the answer is that it was accepted. While the journal cannot be written, because the
// disk is full perhaps, it is written first: the submission comes again and again, and would be run each time.
func (s *Service) take(ctx context.Context, o *offer, limits domain.Limits) app.Reply {
	sub := o.sub
	if sub.Keep <= 0 || sub.Keep > s.cfg.Keep {
		sub.Keep = s.cfg.Keep
	}
	e := &domain.Entry{TaskID: sub.TaskID, Consumer: o.consumer, Persona: o.d.Persona, Sub: sub, Limits: limits, Path: o.path,
		State: domain.Accepted, CreatedAt: time.Now(), Replicas: named(&sub, o.d.OwnPeer, o.consumer)}
	e.Sub.Named = nil
	if len(e.Replicas) > 0 {
		e.Signed = domain.Sign(&o.signed)
	}
	h := s.newHeld(e)
	h.material = &o.sealed
	here := !s.unwritten.Load() && len(o.sealed.Ciphertext) > 0 && (sub.RefSize == 0 || s.ready(h, &o.sealed))
	wait, no := s.admit(h, here)
	if no != nil {
		h.discard()
		return s.refuse(o, no)
	}
	if wait < 0 {
		h.discard()
		return verdict(app.Again, "")
	}
	if here && wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-h.settled:
			return h.reply
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	r, err := s.journal(h, o, here)
	if err != nil {
		s.cfg.Log.Warn("a submission could not be journaled", "error", err.Error())
		s.unwritten.Store(true)
		s.drop(h)
		return verdict(app.Again, "")
	}
	return r
}

func (s *Service) newHeld(e *domain.Entry) *held {
	h := &held{key: e.Key(), persona: e.Persona, taskType: e.Sub.Type, executor: s.executors[e.Sub.Type], entry: e, settled: make(chan struct{})}
	h.ctx, h.stop = context.WithCancel(s.ctx)
	return h
}

// admit finds a place for an attempt: a slot, or the queue. wait is how long its delivery may wait for it to end; less than 0 means
// that it cannot be taken now.
func (s *Service) admit(h *held, here bool) (wait time.Duration, no *refusal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping || s.held[h.key] != nil {
		return -1, nil
	}
	if q := s.figures(); q.Pending >= q.Capacity {
		return 0, &refusal{Reason: "QUEUE_FULL", Message: "this provider's queue is full", RetryAfter: time.Second}
	}
	s.held[h.key] = h
	s.perPeer[h.key.Consumer]++
	wait = s.cfg.Express
	if s.fleet != nil && (!here || s.running+s.reserved >= s.cfg.Policy.Slots || s.fleet.waiting > 0) { // whoever has a slot takes it from the journal
		s.put(h, waits)
		return 0, nil
	}
	if !here {
		return wait, nil // queued once it is in the journal: a fetch takes its time anyway
	}
	s.queue = append(s.queue, h)
	s.pump()
	if s.running >= s.cfg.Policy.Slots {
		wait *= queuedExpress
	}
	s.watch.Tell(queueKey)
	return wait, nil
}

// pump starts what there are slots for. s.mu is held.
func (s *Service) pump() {
	for s.running+s.reserved < s.cfg.Policy.Slots && !s.stopping {
		h := s.next()
		if h == nil {
			break
		}
		s.start(h)
	}
	for s.staging < s.cfg.Policy.Slots+s.cfg.Fetches && s.fetching < s.cfg.Fetches && len(s.remote) > 0 && !s.stopping {
		h := s.remote[0]
		s.remote[0] = nil
		s.remote = s.remote[1:]
		s.staging++
		s.fetching++
		s.runs.Go(func() { s.fetch(h) })
	}
}

// start runs an attempt. s.mu is held.
func (s *Service) start(h *held) {
	s.running++
	s.runs.Go(func() { s.run(h) })
}

// journal commits an attempt that is not over yet, and says that it was accepted. Its key recognises a repeated
// submission: the inbox would say the same once more. here: its payload need not be fetched.
func (s *Service) journal(h *held, o *offer, here bool) (app.Reply, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	select {
	case <-h.settled:
		return h.reply, nil
	default:
	}
	if s.ctx.Err() != nil {
		return app.Reply{}, s.ctx.Err()
	}
	e := h.entry.Clone()
	e.Revision = 1
	to := app.Address{Persona: e.Persona, Peer: e.Consumer}
	ref := domain.Ref{TaskID: e.TaskID, Attempt: e.Sub.Attempt}
	row := s.outbox.Row(to, ref, &domain.AcceptedEvent{TaskID: e.TaskID, Attempt: e.Sub.Attempt, QueuePosition: s.position(h)})
	ew := app.EntryWrite{Entry: e, Insert: true, Material: &o.sealed}
	far := s.writeHolder(h, &ew)
	w := &app.Writes{Outbox: []app.OutboxRow{row}, Entries: []app.EntryWrite{ew}}
	if err := s.cfg.Store.Commit(context.Background(), w); err != nil {
		if errors.Is(err, app.ErrRepeated) || errors.Is(err, app.ErrExists) { // another replica has it
			s.dropLocked(h)
			return verdict(app.Ignored, "REPEATED"), nil
		}
		return app.Reply{}, err
	}
	s.unwritten.Store(false)
	h.entry, h.journaled, h.accepted = e, true, row.ID
	if len(o.sealed.Ciphertext) > keepInMemory {
		h.material = nil
	}
	s.outbox.Track(row)
	v := view(e, 0)
	r := app.Reply{Task: &v, Outbox: []app.Outgoing{row.Outgoing(nil)}}
	if e.State == domain.Running {
		r.Outbox = append(r.Outbox, s.progressOf(e, 0))
	}
	h.logs.open(s, h)
	if far {
		h.material = nil
		s.fleet.kick()
	} else if !here {
		s.mu.Lock()
		s.remote = append(s.remote, h)
		s.pump()
		s.watch.Tell(queueKey)
		s.mu.Unlock()
	}
	s.watch.Tell(e.TaskID)
	return r, nil
}

// drop gives up an attempt that nobody was promised.
func (s *Service) drop(h *held) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s.dropLocked(h)
}

func (s *Service) dropLocked(h *held) {
	h.dropped = true
	if h.files != nil {
		h.files.remove()
		h.files = nil
	}
	h.stop()
	s.forget(h, false)
}

// position is how many tasks are ahead of one that waits.
func (s *Service) position(h *held) uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, q := range s.queue {
		if q == h {
			return uint32(i)
		}
	}
	for i, q := range s.remote {
		if q == h {
			return uint32(len(s.queue) + i)
		}
	}
	return 0
}

// forget takes an attempt out of memory, wherever it is; over says that it will not come back.
func (s *Service) forget(h *held, over bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held[h.key] != h {
		return
	}
	delete(s.held, h.key)
	s.put(h, here)
	if over {
		s.recent.add(h.key, nil)
	}
	if s.perPeer[h.key.Consumer]--; s.perPeer[h.key.Consumer] <= 0 {
		delete(s.perPeer, h.key.Consumer)
		s.turns.gone(h.key.Consumer)
	}
	s.unqueue(h)
	s.watch.Tell(queueKey)
}

// unqueue takes a waiting attempt out of the queue. s.mu is held.
func (s *Service) unqueue(h *held) bool {
	for _, q := range []*[]*held{&s.queue, &s.remote} {
		for i := range *q {
			if (*q)[i] == h {
				*q = append((*q)[:i:i], (*q)[i+1:]...)
				return true
			}
		}
	}
	return false
}
