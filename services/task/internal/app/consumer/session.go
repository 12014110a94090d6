package consumer

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/pace"
	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// page is how many rows are read at once where there may be many.
const page = 256

// Load reads what was going on when the process ended. Call it once, before the first command.
func (s *Service) Load(ctx context.Context) error {
	for after := ""; ; {
		tasks, err := s.cfg.Store.OpenTasks(ctx, after, page)
		if err != nil {
			return err
		}
		for _, t := range tasks {
			after = t.ID
			l := &live{task: t}
			if t.Live() != nil && t.Receipt == nil {
				l.lease = time.Now().Add(s.cfg.Lease) // runs from when the node is online
			}
			s.mu.Lock()
			s.live[t.ID] = l
			s.mu.Unlock()
			s.arm(l, t.ID)
			if t.Collecting() {
				s.collector.Add(t.ID)
			}
		}
		if len(tasks) < page {
			break
		}
	}
	rows, err := s.cfg.Store.Releases(ctx, 1<<16)
	if err != nil {
		return err
	}
	if err := s.loadRows(ctx); err != nil {
		return err
	}
	s.let.add(0, rows...)
	s.cfg.Results.Sweep()
	return s.jobs.load(ctx)
}

// loadRows joins outbox rows with their tasks.
func (s *Service) loadRows(ctx context.Context) error {
	for after := uint64(0); ; {
		rows, err := s.cfg.Store.Outbox(ctx, after, page)
		if err != nil {
			return err
		}
		for _, r := range rows {
			after = r.ID
			s.outbox.Track(r)
			s.mu.Lock()
			if l := s.live[r.TaskID]; l != nil {
				l.rows = append(l.rows, r.ID)
				if r.Type == domain.TypeSubmission {
					l.lease = time.Time{} // not there yet
				}
			}
			s.mu.Unlock()
		}
		if len(rows) < page {
			return nil
		}
	}
}

// Run does what nobody asks for, until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, s.cancel)
	defer stop()
	defer s.collector.Stop()
	defer s.cancel()
	defer s.let.stop()
	var beside sync.WaitGroup
	defer beside.Wait()
	beside.Go(func() { _ = s.jobs.run(ctx) })
	beside.Go(func() { s.leftovers.Run(ctx) })
	return s.alarms.Run(ctx, 32, s.ring)
}

// Prune deletes what is older than the retention, and shares that have ended. Call it now and then.
func (s *Service) Prune(ctx context.Context) error {
	if err := s.cfg.Store.Commit(ctx, &app.Writes{ShareEnd: time.Now()}); err != nil {
		return err
	}
	if s.cfg.Retention <= 0 {
		return s.jobs.prune(ctx, time.Time{})
	}
	old := time.Now().Add(-s.cfg.Retention)
	if err := s.jobs.prune(ctx, old); err != nil {
		return err
	}
	old = s.jobs.oldest(old)
	for {
		ids, err := s.cfg.Store.FinishedBefore(ctx, old, page)
		if err != nil || len(ids) == 0 {
			return err
		}
		var w app.Writes
		for _, id := range ids {
			w.Tasks = append(w.Tasks, app.TaskWrite{Task: &domain.Task{ID: id}, Delete: true})
		}
		if err := s.cfg.Store.Commit(ctx, &w); err != nil {
			return err
		}
		for _, id := range ids {
			s.cfg.Results.Remove(id)
			s.cfg.Logs.Remove(id)
		}
	}
}

// MarkSent hears that events have arrived. The rows are deleted with a later commit: when that is lost, they are told
// again and recognised as repeats.
func (s *Service) MarkSent(ctx context.Context, ids []uint64) {
	var w app.Writes
	for _, id := range ids {
		snd, ok := s.outbox.Take(id)
		if !ok {
			continue
		}
		s.let.arrived(snd.Refs)
		if !snd.Durable {
			continue
		}
		w.Sent = append(w.Sent, id)
		s.sent(snd.Row)
	}
	if len(w.Sent) > 0 {
		s.cfg.Store.Later(&w)
	}
}

// sent starts the lease of an attempt whose submission has arrived.
func (s *Service) sent(r app.OutboxRow) {
	s.mu.Lock()
	l := s.live[r.TaskID]
	if l != nil {
		l.refs++
	}
	s.mu.Unlock()
	if l == nil {
		return
	}
	l.mu.Lock()
	defer s.release(r.TaskID, l)
	for i, id := range l.rows {
		if id == r.ID {
			l.rows = append(l.rows[:i:i], l.rows[i+1:]...)
			break
		}
	}
	if l.task == nil || r.Type != domain.TypeSubmission {
		return
	}
	if a := l.task.Live(); a != nil && a.Number == r.Attempt && a.State == domain.Submitted && l.lease.IsZero() {
		l.lease = time.Now().Add(s.cfg.Lease)
		s.arm(l, r.TaskID)
	}
}

// SendFailed hears that an event could not be handed over within its time.
func (s *Service) SendFailed(ctx context.Context, id uint64, reason, message string) (app.Reply, error) {
	snd, ok := s.outbox.Take(id)
	if !ok {
		return app.Reply{}, nil
	}
	if !snd.Durable {
		s.let.failed(snd.Refs)
		return app.Reply{}, nil
	}
	gone := &app.Writes{Sent: []uint64{id}}
	if snd.Row.Type != domain.TypeSubmission {
		s.cfg.Store.Later(gone)
		return app.Reply{}, nil
	}
	r, err := s.change(ctx, snd.Row.TaskID, func(e *edit) error {
		e.w.Sent = append(e.w.Sent, id)
		a := e.t.Live()
		if a == nil || a.Number != snd.Row.Attempt || a.State != domain.Submitted || len(a.Trail) > 0 || e.t.Receipt != nil {
			return errGone // it has arrived after all
		}
		return s.endAttempt(e, a.Number, "", unsent(reason, message))
	})
	switch {
	case err == nil:
		return r, nil
	case errors.Is(err, errGone), isNotFound(err), isLate(err):
		s.cfg.Store.Later(gone)
		return app.Reply{}, nil
	}
	s.outbox.Track(snd.Row) // told again in the next session, and failed again
	return app.Reply{}, err
}

var errGone = errors.New("the attempt is over")

// unreachable is how long a provider that could not be reached is not chosen again.
const unreachable = 10 * time.Second

func unsent(reason, message string) domain.End {
	switch reason {
	case "REJECTED":
		if strings.HasSuffix(message, app.ReasonPuzzleRequired) { // a flood of others has used up what it says to strangers
			return domain.End{What: "REJECTED", Reason: app.ReasonPuzzleRequired, Message: "it asks strangers for a puzzle, and so many come that it does not say which", RetryAfter: unpriced}
		}
		return domain.End{What: "REJECTED", Reason: "REJECTED", Message: message}
	case "UNREACHABLE":
		return domain.End{What: "UNREACHABLE", Reason: "UNREACHABLE", Message: message, RetryAfter: unreachable}
	}
	// It may have arrived: the provider is told to stop.
	return domain.End{What: "LEASE_LOST", Reason: "NOT_ACKNOWLEDGED", Message: "the provider did not acknowledge the submission: " + message, RetryAfter: unreachable}
}

// SetOnline hears whether the network can be reached. Leases run only while it can; after an absence providers are asked
// first.
func (s *Service) SetOnline(ctx context.Context, online bool) {
	s.mu.Lock()
	was := s.online
	s.online, s.known = online, true
	s.mu.Unlock()
	if online && !was {
		s.askAll(ctx, func(r app.Reply) error { s.cfg.Pusher.Push(ctx, r); return nil })
	}
}

// maxQuery is how many tasks one TaskQuery names.
const maxQuery = 512

// askAll renews every lease and asks each provider, and those that may keep their results, what has become of its tasks.
func (s *Service) askAll(_ context.Context, tell func(app.Reply) error) {
	s.mu.Lock()
	ids := make([]string, 0, len(s.live))
	for id := range s.live {
		ids = append(ids, id)
	}
	s.mu.Unlock()
	byTo := make(map[releaseTo][]domain.Ref)
	addrs := make(map[releaseTo][]string)
	for _, id := range ids {
		s.peek(id, func(l *live) {
			a := l.task.Live()
			if a == nil || l.task.Receipt != nil {
				return
			}
			ask := func(peer string, addresses []string) {
				to := releaseTo{a.Persona, peer}
				byTo[to], addrs[to] = append(byTo[to], domain.Ref{TaskID: id, Attempt: a.Number}), addresses
			}
			if !l.lease.IsZero() { // else its submission is told again, which may have arrived before
				l.lease = time.Now().Add(s.cfg.Lease)
				s.arm(l, id)
				ask(a.Peer, a.Addresses)
			}
			for _, r := range a.Holders() { // the provider may be gone
				ask(r.Peer, r.Addresses)
			}
		})
	}
	s.mu.Lock()
	s.asks++
	round := s.asks
	s.mu.Unlock()
	for to, refs := range byTo {
		if s.cfg.Anonymous {
			s.askLater(round, to, addrs[to], refs)
			continue
		}
		for len(refs) > 0 {
			n := min(len(refs), maxQuery)
			out := s.outbox.Once(app.Address{Persona: to.persona, Peer: to.peer, Addresses: addrs[to]}, domain.Ref{}, &domain.QueryEvent{Tasks: refs[:n]}, nil, false, s.cfg.Lease)
			if tell(app.Reply{Outbox: []app.Outgoing{out}}) != nil {
				return
			}
			refs = refs[n:]
		}
	}
}

// askSpread is about how long after this node is back a persona asks; a lease lasts longer.
const askSpread = 5 * time.Second

// askLater asks one provider after a time that is drawn for each persona: those that asked at the same moment would be seen to be of one consumer. What has ended meanwhile is
// not asked for.
func (s *Service) askLater(round uint64, to releaseTo, addresses []string, refs []domain.Ref) {
	time.AfterFunc(pace.Drawn(askSpread), func() {
		s.mu.Lock()
		current := s.asks == round && s.online && s.ctx.Err() == nil
		s.mu.Unlock()
		if !current {
			return // gone again, and all are asked when it is back
		}
		var open []domain.Ref
		for _, ref := range refs {
			s.peek(ref.TaskID, func(l *live) {
				if a := l.task.Live(); a != nil && a.Number == ref.Attempt && l.task.Receipt == nil {
					open = append(open, ref)
				}
			})
		}
		for part := range slices.Chunk(open, maxQuery) {
			out := s.outbox.Once(app.Address{Persona: to.persona, Peer: to.peer, Addresses: addresses}, domain.Ref{}, &domain.QueryEvent{Tasks: part}, nil, false, s.cfg.Lease)
			s.cfg.Pusher.Push(s.ctx, app.Reply{Outbox: []app.Outgoing{out}})
		}
	})
}

// peek looks at a task in memory under its lock.
func (s *Service) peek(id string, fn func(l *live)) {
	s.mu.Lock()
	l := s.live[id]
	if l != nil {
		l.refs++
	}
	s.mu.Unlock()
	if l == nil {
		return
	}
	l.mu.Lock()
	if l.task != nil {
		fn(l)
	}
	s.release(id, l)
}

// Sync tells a new session what it must know: every event not yet acknowledged, every task without a provider, and
// the questions of a node that comes back.
func (s *Service) Sync(ctx context.Context, tell func(app.Reply) error) error {
	s.let.add(0, s.outbox.DropOnce()...)
	if err := s.outbox.Replay(ctx, s.cfg.Store, func(r app.OutboxRow) ([]byte, bool, error) { return s.attachment(ctx, r) }, tell); err != nil {
		return err
	}
	s.mu.Lock()
	var pending []string
	for id := range s.live {
		pending = append(pending, id)
	}
	first := !s.online
	if !s.known { // until node says otherwise
		s.online = true
	}
	s.mu.Unlock()
	for _, id := range pending {
		var r app.Reply
		s.peek(id, func(l *live) {
			if l.task.State == domain.Pending {
				v := View(l.task)
				r.Task, r.Placement = &v, s.needed(l.task, time.Now())
			}
		})
		if r.Placement != nil {
			if err := tell(r); err != nil {
				return err
			}
		}
	}
	if first && s.isOnline() {
		s.askAll(ctx, tell)
	}
	return nil
}

// attachment puts a stored event's attachment together. A submission that is not awaited any more is not sent.
func (s *Service) attachment(ctx context.Context, r app.OutboxRow) ([]byte, bool, error) {
	if r.Attach != app.AttachPayload {
		return r.Sealed, true, nil
	}
	t, err := s.cfg.Store.Task(ctx, r.TaskID)
	if errors.Is(err, app.ErrNotFound) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	if a := t.Live(); a == nil || a.Number != r.Attempt {
		return nil, false, nil
	}
	ciphertext, err := s.ciphertext(ctx, t)
	if err != nil {
		return nil, false, err
	}
	return s.cfg.Codec.EncodeSealed(r.Sealed, ciphertext), true, nil
}

// Lost hears that no node is connected: nothing can be heard from providers.
func (s *Service) Lost() {
	s.mu.Lock()
	s.online, s.known = false, false
	s.mu.Unlock()
}

func isNotFound(err error) bool {
	return errors.Is(err, app.ErrNotFound) || errors.Is(err, fault.NotFound("TASK_NOT_FOUND", ""))
}
