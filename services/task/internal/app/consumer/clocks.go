package consumer

import (
	"context"
	"strconv"
	"time"

	"github.com/shallot-net/shallot/services/task/internal/domain"
)

func utoa(n uint32) string { return strconv.FormatUint(uint64(n), 10) }

// logName is where the stderr of an attempt is kept while it runs: another attempt begins anew.
func logName(taskID string, attempt uint32) string { return taskID + "." + utoa(attempt) }

// renew starts the lease of the live attempt again.
func (s *Service) renew(e *edit) { e.live.lease = e.now.Add(s.cfg.Lease) }

// arm sets the task's alarm to whatever comes first: a clock, its lease, a provider that may be asked again.
func (s *Service) arm(l *live, id string) {
	t := l.task
	at, _ := t.Deadline()
	if t.State.Terminal() {
		s.alarms.Set(id, time.Time{})
		return
	}
	if !l.lease.IsZero() && t.Receipt == nil && s.isOnline() && l.lease.Before(at) {
		at = l.lease
	}
	if t.State == domain.Pending {
		if _, next := t.ExcludedNow(time.Now()); !next.IsZero() && next.Before(at) {
			at = next
		}
	}
	s.alarms.Set(id, at)
}

// ring is called when a task's alarm goes off.
func (s *Service) ring(id string) {
	r, err := s.change(context.Background(), id, func(e *edit) error {
		at, clock := e.t.Deadline()
		switch {
		case e.t.State.Terminal():
			return errUnchanged
		case !at.After(e.now):
			return s.runOut(e, clock)
		case !e.live.lease.IsZero() && !e.live.lease.After(e.now) && s.isOnline():
			return s.loseLease(e)
		case e.t.State == domain.Pending:
			e.reply.Placement = s.needed(e.t, e.now)
		}
		return errUnchanged
	})
	if err != nil {
		if !isNotFound(err) {
			s.cfg.Log.Warn("a clock could not be applied and will be tried again", "error", err.Error())
			s.alarms.Set(id, time.Now().Add(time.Second))
		}
		return
	}
	s.cfg.Pusher.Push(context.Background(), r)
}

// runOut ends a task whose clock has run out.
func (s *Service) runOut(e *edit, clock domain.Clock) error {
	if r := e.t.Receipt; clock == domain.ClockCollection && r != nil && r.Cause != 0 {
		return s.settle(e, nil) // a failure is one without its output, too
	}
	var at *domain.Attempt
	if a := e.t.Live(); a != nil && e.t.Receipt == nil {
		c := *a
		at = &c
	}
	s.withdraw(e)
	if clock == domain.ClockCancel {
		if err := e.t.Cancel(e.now, "", ""); err != nil {
			return err
		}
	} else {
		if err := e.t.Expire(e.now, clock); err != nil {
			return err
		}
		if at != nil {
			s.sendCancel(e, at)
		}
	}
	s.letGo(e)
	return nil
}

// loseLease gives up an attempt whose provider has gone silent.
func (s *Service) loseLease(e *edit) error {
	a := e.t.Live()
	if a == nil || e.t.Receipt != nil {
		e.live.lease = time.Time{}
		return errUnchanged
	}
	for _, out := range s.askReplicas(e.t.ID, a) { // what they have would still count
		e.once(out)
	}
	return s.endAttempt(e, a.Number, "", domain.End{What: "LEASE_LOST", Reason: "LEASE_LOST",
		Message: "nothing was heard from the provider for " + s.cfg.Lease.String(), RetryAfter: s.cfg.Lease}) // it may be the only one, and be back
}

func (s *Service) isOnline() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.online
}
