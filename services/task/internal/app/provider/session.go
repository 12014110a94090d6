package provider

import (
	"context"
	"errors"
	"time"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// Load reads the queue as it was when the process ended, and runs what was running again. Call it once, before the
// first command.
func (s *Service) Load(ctx context.Context) error {
	if s.fleet != nil {
		return s.beat(ctx)
	}
	return s.loadOpen(ctx)
}

// loadOpen reads what is open. Where there are other replicas it may be with one of them; what is with nobody is claimed as everything else.
func (s *Service) loadOpen(ctx context.Context) error {
	entries, err := s.cfg.Store.OpenEntries(ctx)
	if err != nil {
		return err
	}
	for after := uint64(0); ; {
		rows, err := s.cfg.Store.Outbox(ctx, after, 256)
		if err != nil {
			return err
		}
		for _, r := range rows {
			after = r.ID
			s.outbox.Track(r)
		}
		if len(rows) < 256 {
			break
		}
	}
	var lost []*held
	s.mu.Lock()
	for _, e := range entries {
		if e.IsReplica() || s.held[e.Key()] != nil {
			continue
		}
		h := s.newHeld(e)
		h.journaled, h.resumed = true, true
		h.logs.open(s, h)
		s.held[h.key] = h
		s.perPeer[h.key.Consumer]++
		switch {
		case s.fleet != nil:
			s.put(h, waits)
			if e.State == domain.Running {
				s.put(h, runsFar)
			}
		case h.executor == nil:
			lost = append(lost, h)
		case e.Sub.PayloadCID != "" || e.Sub.RefSize > 0:
			s.remote = append(s.remote, h)
		default:
			s.queue = append(s.queue, h)
		}
	}
	s.pump()
	s.mu.Unlock()
	for _, h := range lost { // the configuration has changed meanwhile
		s.runs.Go(func() {
			s.settle(h, unknownType(), nil)
		})
	}
	return s.loadReplicas(ctx)
}

// Run does what nobody asks for, until ctx ends; then it stops the programs and waits for them. What they were doing
// stays in the journal.
func (s *Service) Run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var failed error
	if s.fleet == nil {
		s.runs.Go(func() { // beside what follows: leases are renewed meanwhile
			s.putAgain(s.ctx)
			s.leftovers.Run(s.ctx)
			s.replicasLeft.Run(s.ctx)
		})
	}
	fleet := make(chan error, 1)
	if s.fleet != nil {
		s.runs.Go(func() { fleet <- s.runFleet(ctx) })
	}
	if s.toll != nil {
		s.runs.Go(func() { s.tolling(ctx) })
	}
	report, sweep := time.NewTicker(s.cfg.Progress), time.NewTicker(time.Minute)
	defer report.Stop()
	defer sweep.Stop()
	s.runs.Go(func() { _ = s.replicas.alarms.Run(ctx, replicaSteps, s.ringReplicas) })
	for {
		select {
		case <-report.C:
			if s.speaks() {
				s.report(ctx)
			}
		case <-sweep.C:
			if !s.Leading() {
				continue
			}
			if err := s.sweep(ctx); err != nil && ctx.Err() == nil {
				s.cfg.Log.Warn("old entries could not be let go", "error", err.Error())
			}
		case failed = <-fleet:
			stop()
		case <-ctx.Done():
			s.mu.Lock()
			s.stopping = true
			s.mu.Unlock()
			s.cancel()
			s.runs.Wait()
			s.keeps.work.Stop()
			s.letter.close()
			if s.fleet != nil {
				s.fleet.news.Stop()
				s.fleet.lead.Stop()
				s.leaveFleet(s.fleet)
			}
			return failed
		}
	}
}

// replicaSteps is how many entries others are asked for side by side.
const replicaSteps = 8

// putAgain puts small results into the repository once more: it keeps them unsynced, and may have lost them in a crash.
func (s *Service) putAgain(ctx context.Context) {
	var after domain.EntryKey
	for ctx.Err() == nil {
		entries, err := s.cfg.Store.KeptEntries(ctx, after, 64)
		if err != nil || len(entries) == 0 {
			return
		}
		for _, e := range entries {
			after = e.Key()
			b, err := s.cfg.Store.Result(ctx, e.Key())
			if err != nil || len(b) == 0 {
				continue
			}
			put, cancel := context.WithTimeout(ctx, putTimeout)
			_, err = s.cfg.Repository.PutSmall(put, e.Persona, b, app.Pin{Owner: pinOwner(e), Keep: time.Until(e.ForgetAt), Readers: readers(e)})
			cancel()
			if err != nil { // the broker is away: the events carry the results
				return
			}
		}
	}
}

// sweep forgets tombstones whose time is over, and lets results go that nobody came for, with the events that tell of
// them.
func (s *Service) sweep(ctx context.Context) error {
	for {
		now := time.Now()
		entries, err := s.cfg.Store.Overdue(ctx, now, 128)
		if err != nil || len(entries) == 0 {
			return err
		}
		w := &app.Writes{}
		var r app.Reply
		var gone []*domain.Entry
		for _, e := range entries {
			if e.Collected {
				w.Entries = append(w.Entries, app.EntryWrite{Entry: e, Delete: true})
				continue
			}
			if e.Collect(now, s.cfg.Tomb) {
				e.Revision++
				w.Entries = append(w.Entries, app.EntryWrite{Entry: e, Forget: true, DropResult: true})
				ids := s.outbox.Of(e.Consumer, domain.Ref{TaskID: e.TaskID, Attempt: e.Sub.Attempt})
				w.Sent = append(w.Sent, ids...)
				r.Outbox = append(r.Outbox, withdrawn(ids, e)...)
				gone = append(gone, e)
			}
		}
		if err := s.cfg.Store.Commit(ctx, w); err != nil {
			return err
		}
		for _, id := range w.Sent {
			s.outbox.Take(id)
		}
		s.cfg.Pusher.Push(ctx, r)
		for _, e := range gone {
			s.replicas.forget(e.Key())
			s.keeps.remove(e.Key())
		}
		s.unpin(gone)
	}
}

// MarkSent hears that events have arrived.
func (s *Service) MarkSent(_ context.Context, ids []uint64) {
	var w app.Writes
	for _, id := range ids {
		snd, ok := s.outbox.Take(id)
		if !ok {
			continue
		}
		if snd.Durable {
			w.Sent = append(w.Sent, id)
			s.received(snd.Row)
		} else if snd.Row.Type == domain.TypeLog {
			s.logSent(snd.Row, id)
		}
	}
	if len(w.Sent) > 0 {
		s.cfg.Store.Later(&w)
	}
}

func (s *Service) logSent(r app.OutboxRow, id uint64) {
	s.mu.Lock()
	h := s.held[domain.EntryKey{Consumer: r.Peer, TaskID: r.TaskID, Attempt: r.Attempt}]
	s.mu.Unlock()
	if h != nil {
		h.logs.sent(id)
	}
}

// SendFailed hears that an event could not be handed over. A task that was to be handed on is refused, so that its
// consumer looks elsewhere; what the receiver rejected is not sent again; anything else is tried until it is withdrawn.
func (s *Service) SendFailed(ctx context.Context, id uint64, reason, _ string) (app.Reply, error) {
	snd, ok := s.outbox.Take(id)
	if !ok {
		return app.Reply{}, nil
	}
	switch {
	case !snd.Durable:
		if snd.Row.Type == domain.TypeLog {
			s.logSent(snd.Row, id)
		}
		return app.Reply{}, nil
	case snd.Row.Type == domain.TypeForceSubmission:
		return s.takeBack(ctx, snd.Row)
	case snd.Row.Type == domain.TypeReplicaRequest:
		if err := s.requestFailed(ctx, snd.Row, reason); err != nil {
			s.outbox.Track(snd.Row)
			return app.Reply{}, err
		}
		return app.Reply{}, nil
	case reason == "REJECTED" || snd.Row.Timeout > 0:
		s.cfg.Store.Later(&app.Writes{Sent: []uint64{id}})
		return app.Reply{}, nil
	}
	s.outbox.Track(snd.Row)
	time.AfterFunc(resend, func() { s.tellAgain(id) })
	return app.Reply{}, nil
}

// resend is the pause before an event is told again that could not be handed over.
const resend = 5 * time.Second

func (s *Service) tellAgain(id uint64) {
	if _, ok := s.outbox.Get(id); !ok || s.ctx.Err() != nil {
		return
	}
	rows, err := s.cfg.Store.Outbox(s.ctx, id-1, 1)
	if err != nil || len(rows) == 0 || rows[0].ID != id {
		return
	}
	attachment, ok, err := s.attachment(s.ctx, rows[0])
	if err != nil || !ok {
		return
	}
	s.cfg.Pusher.Push(s.ctx, app.Reply{Outbox: []app.Outgoing{rows[0].Outgoing(attachment)}})
}

// takeBack refuses a task that could not be handed on.
func (s *Service) takeBack(ctx context.Context, r app.OutboxRow) (app.Reply, error) {
	entries, err := s.cfg.Store.Entries(ctx, r.TaskID)
	if err != nil {
		s.outbox.Track(r)
		return app.Reply{}, err
	}
	w := &app.Writes{Sent: []uint64{r.ID}}
	var out []app.Outgoing
	for _, e := range entries {
		if e.Sub.Attempt != r.Attempt || e.What != "REDIRECTED" {
			continue
		}
		row := s.outbox.Row(app.Address{Persona: e.Persona, Peer: e.Consumer}, domain.Ref{TaskID: e.TaskID, Attempt: e.Sub.Attempt},
			&domain.RefusedEvent{TaskID: e.TaskID, Attempt: e.Sub.Attempt, Reason: "REDIRECT_FAILED", Message: "the provider that should have run it could not be reached", RetryAfter: resend})
		w.Outbox = append(w.Outbox, row)
		out = append(out, row.Outgoing(nil))
	}
	if err := s.cfg.Store.Commit(ctx, w); err != nil {
		s.outbox.Track(r)
		return app.Reply{}, err
	}
	s.outbox.Track(w.Outbox...)
	return app.Reply{Outbox: out}, nil
}

// Sync tells a new session every event that has not been acknowledged.
func (s *Service) Sync(ctx context.Context, tell func(app.Reply) error) error {
	s.outbox.DropOnce()
	s.mu.Lock()
	for _, h := range s.held {
		h.logs.sent(0)
	}
	s.mu.Unlock()
	if err := s.outbox.Replay(ctx, s.cfg.Store, func(r app.OutboxRow) ([]byte, bool, error) { return s.attachment(ctx, r) }, tell); err != nil {
		return err
	}
	if s.fleet != nil { // the one that led before may have said nothing for as long as its lease
		s.report(ctx)
	}
	return nil
}

// attachment puts a stored event's attachment together. A result that was let go is not told any more.
func (s *Service) attachment(ctx context.Context, r app.OutboxRow) ([]byte, bool, error) {
	if r.Attach != app.AttachResult {
		return r.Sealed, true, nil
	}
	b, err := s.cfg.Store.Result(ctx, domain.EntryKey{Consumer: r.Peer, TaskID: r.TaskID, Attempt: r.Attempt})
	if errors.Is(err, app.ErrNotFound) || err == nil && len(b) == 0 {
		return nil, false, nil
	}
	return b, err == nil, err
}

// Lost hears that no node is connected. A provider goes on working.
func (s *Service) Lost() {}

// Personas are a consumer's.
func (s *Service) Personas() []app.PersonaUse { return nil }

// SetOnline changes nothing for a provider: leases are its consumers'.
func (s *Service) SetOnline(context.Context, bool) {}

func notConsumer() error {
	return fault.FailedPrecondition("NOT_A_CONSUMER", "this is a provider: tasks are submitted at a consumer node")
}

// Create is a consumer's.
func (s *Service) Create(context.Context, app.Create) (app.Reply, error) {
	return app.Reply{}, notConsumer()
}

// Place is a consumer's.
func (s *Service) Place(context.Context, string, app.Candidate, string) (app.Reply, error) {
	return app.Reply{}, notConsumer()
}

// PlacementFailed is a consumer's.
func (s *Service) PlacementFailed(context.Context, string, string, *domain.Choice) (app.Reply, error) {
	return app.Reply{}, notConsumer()
}
