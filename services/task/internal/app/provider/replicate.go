package provider

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

const (
	// requestTimeout is how long a provider is tried that is to keep a result; then the next one is asked.
	requestTimeout = 20 * time.Second
	// releaseTimeout is how long one is tried that may let it go: afterwards it keeps it until its time is over.
	releaseTimeout = 10 * time.Minute
	// replicaRetry is the pause after something of this node's own failed.
	replicaRetry = 5 * time.Second
	// fetchRate is the least at which a large result should come to a replica, in bytes a second.
	fetchRate = 1 << 20
)

// replicator knows this provider's results that others are to keep.
type replicator struct {
	alarms *app.Alarms                // by keyName
	locks  app.Locks[domain.EntryKey] // held while an entry that has to do with replicas is changed
	mu     sync.Mutex
	asked  map[domain.EntryKey]bool // those whose results are kept here still; true: somebody was asked
}

func newReplicator() *replicator {
	return &replicator{alarms: app.NewAlarms(), asked: make(map[domain.EntryKey]bool)}
}

func (r *replicator) has(k domain.EntryKey) (known, asked bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	asked, known = r.asked[k]
	return known, asked
}

func (r *replicator) set(k domain.EntryKey, asked bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked[k] = asked
}

func (r *replicator) forget(k domain.EntryKey) {
	r.mu.Lock()
	delete(r.asked, k)
	r.mu.Unlock()
	r.alarms.Set(keyName(k), time.Time{})
}

// keyName is a key as a string. A peer id has no slash.
func keyName(k domain.EntryKey) string {
	return k.TaskID + "/" + strconv.FormatUint(uint64(k.Attempt), 10) + "/" + k.Consumer
}

func keyOf(name string) domain.EntryKey {
	id, rest, _ := strings.Cut(name, "/")
	n, consumer, _ := strings.Cut(rest, "/")
	attempt, _ := strconv.ParseUint(n, 10, 32) // keyName wrote it
	return domain.EntryKey{TaskID: id, Attempt: uint32(attempt), Consumer: consumer}
}

// named are those that a submission names to keep its result, without who has no use for that.
func named(sub *domain.Submission, own, consumer string) []domain.Replica {
	if sub.Copies == 0 {
		return nil
	}
	var out []domain.Replica
	for _, p := range sub.Named {
		if p != own && p != consumer && !slices.ContainsFunc(out, func(r domain.Replica) bool { return r.Peer == p }) {
			out = append(out, domain.Replica{Peer: p})
		}
	}
	return out
}

// replicateLater has others asked to keep a result, in a while: a consumer that is there has it by then.
func (s *Service) replicateLater(e *domain.Entry) {
	if !e.Replicates() {
		return
	}
	k := e.Key()
	s.replicas.set(k, slices.ContainsFunc(e.Replicas, func(r domain.Replica) bool { return r.State != domain.ReplicaNamed }))
	if !e.Reported {
		s.replicas.alarms.Set(keyName(k), time.Now().Add(s.cfg.ReplicaDelay))
	}
}

// received hears that a receipt has arrived. A small result came with it, and its consumer has it: nobody else needs to.
func (s *Service) received(r app.OutboxRow) {
	if r.Attach == app.AttachResult {
		s.replicas.alarms.Set(keyName(domain.EntryKey{Consumer: r.Peer, TaskID: r.TaskID, Attempt: r.Attempt}), time.Time{})
	}
}

// ringReplicas goes on with asking when its time has come.
func (s *Service) ringReplicas(name string) {
	if err := s.stepReplicas(s.ctx, keyOf(name), nil); err != nil && s.ctx.Err() == nil {
		s.cfg.Log.Warn("others could not be asked to keep a result, and will be asked again", "error", err.Error())
		s.replicas.alarms.Set(name, time.Now().Add(replicaRetry))
	}
}

// stepReplicas changes what is known of an entry's replicas, and asks whom there is to be asked then; at the end the consumer hears who
// keeps its result. change may be nil; false from it ends the step. Entries whose results are kept no more stay as they are.
func (s *Service) stepReplicas(ctx context.Context, k domain.EntryKey, change func(e *domain.Entry) bool) error {
	unlock, err := s.replicas.locks.Lock(ctx, k)
	if err != nil {
		return err
	}
	defer unlock()
	if known, _ := s.replicas.has(k); !known {
		return nil
	}
	e, err := s.cfg.Store.Entry(ctx, k)
	if errors.Is(err, app.ErrNotFound) || err == nil && !e.Replicates() {
		s.replicas.forget(k)
		return nil
	}
	if err != nil {
		return err
	}
	if change != nil && !change(e) {
		return nil
	}
	w := &app.Writes{}
	next, err := s.goOnAsking(ctx, e, w)
	if err != nil {
		return err
	}
	e.Revision++
	w.Entries = []app.EntryWrite{{Entry: e}}
	s.mu.Lock()
	s.recent.take(k) // it is older from here on
	s.mu.Unlock()
	if err := s.cfg.Store.Commit(ctx, w); err != nil {
		return err
	}
	s.replicas.set(k, true)
	s.replicas.alarms.Set(keyName(k), next)
	s.outbox.Track(w.Outbox...)
	var r app.Reply
	for i := range w.Outbox {
		r.Outbox = append(r.Outbox, w.Outbox[i].Outgoing(w.Outbox[i].Sealed))
	}
	if len(r.Outbox) > 0 {
		s.cfg.Pusher.Push(ctx, r)
	}
	return nil
}

// goOnAsking adds the events to w, and says when it is to be called again: the zero time for never.
func (s *Service) goOnAsking(ctx context.Context, e *domain.Entry, w *app.Writes) (time.Time, error) {
	if e.Reported {
		return time.Time{}, nil
	}
	ask, next, done := e.AskReplicas(time.Now(), s.cfg.ReplicaPatience+time.Duration(float64(e.Outcome.ResultSize)/fetchRate*float64(time.Second)))
	if len(ask) > 0 {
		small, err := s.cfg.Store.Result(ctx, e.Key())
		if err != nil {
			return next, err
		}
		for _, peer := range ask {
			w.Outbox = append(w.Outbox, s.replicaRequest(e, peer, small))
		}
		s.cfg.Metrics.Attempt("REPLICA_ASKED")
	}
	if done {
		var said []domain.Replica
		for _, r := range e.Replicas {
			if r.State != domain.ReplicaNamed {
				said = append(said, domain.Replica{Peer: r.Peer, State: r.State, Reason: r.Reason})
			}
		}
		w.Outbox = append(w.Outbox, s.outbox.Row(app.Address{Persona: e.Persona, Peer: e.Consumer}, domain.Ref{TaskID: e.TaskID, Attempt: e.Sub.Attempt},
			&domain.ReplicasEvent{TaskID: e.TaskID, Attempt: e.Sub.Attempt, Replicas: said}))
		e.Reported, e.Signed = true, nil
	}
	return next, nil
}

// replicaRequest asks peer. A small result goes with it.
func (s *Service) replicaRequest(e *domain.Entry, peer string, small []byte) app.OutboxRow {
	body := &domain.ReplicaRequestEvent{TaskID: e.TaskID, Attempt: e.Sub.Attempt, Submission: e.Signed.Event(domain.TypeSubmission), Keep: max(time.Until(e.ForgetAt), time.Second)}
	switch b := receiptBody(e).(type) {
	case *domain.ResultEvent:
		body.Result = b
	case *domain.FailureEvent:
		body.Failure = b
	}
	row := s.outbox.Row(app.Address{Persona: e.Persona, Peer: peer}, domain.Ref{TaskID: e.TaskID, Attempt: e.Sub.Attempt}, body)
	row.Sign, row.Timeout = true, requestTimeout
	if len(small) > 0 {
		row.Attach, row.Sealed = app.AttachBytes, small
	}
	return row
}

// onReplicaAnswer hears whether a provider keeps a result. One that keeps what was let go meanwhile is told so.
func (s *Service) onReplicaAnswer(ctx context.Context, d *app.Delivery, b *domain.ReplicaAnswerEvent) app.Reply {
	k := domain.EntryKey{Consumer: b.Consumer, TaskID: b.TaskID, Attempt: b.Attempt}
	if known, _ := s.replicas.has(k); !known {
		if !b.Kept {
			return verdict(app.Ignored, "LATE")
		}
		if s.outbox.Full() {
			return verdict(app.Again, "")
		}
		return app.Reply{Outbox: []app.Outgoing{s.outbox.Once(app.Address{Persona: d.Persona, Peer: d.From}, domain.Ref{},
			&domain.CollectedEvent{Tasks: []domain.Ref{{TaskID: b.TaskID, Attempt: b.Attempt}}}, nil, false, releaseTimeout)}}
	}
	wasAsked := false
	err := s.stepReplicas(ctx, k, func(e *domain.Entry) bool {
		r := e.Replica(d.From)
		wasAsked = r != nil && r.State != domain.ReplicaNamed
		if !wasAsked || r.State == domain.ReplicaKept {
			return false
		}
		r.State, r.Reason = domain.ReplicaKept, ""
		if !b.Kept {
			r.State, r.Reason = domain.ReplicaRefused, b.Reason
		}
		return true
	})
	switch {
	case err != nil:
		s.cfg.Log.Warn("a replica's answer could not be applied", "error", err.Error())
		return verdict(app.Again, "")
	case !wasAsked:
		return verdict(app.Ignored, "NOT_ASKED")
	}
	return app.Reply{}
}

// requestFailed hears that a provider could not be asked: another one is.
func (s *Service) requestFailed(ctx context.Context, row app.OutboxRow, reason string) error {
	entries, err := s.cfg.Store.Entries(ctx, row.TaskID)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Sub.Attempt != row.Attempt || !e.Replicates() || e.Replica(row.Peer) == nil {
			continue
		}
		err := s.stepReplicas(ctx, e.Key(), func(e *domain.Entry) bool {
			r := e.Replica(row.Peer)
			if r == nil || r.State != domain.ReplicaAsked {
				return false
			}
			r.State = domain.ReplicaSilent
			if reason == "REJECTED" {
				r.State, r.Reason = domain.ReplicaRefused, reason
			}
			return true
		})
		if err != nil {
			return err
		}
	}
	s.cfg.Store.Later(&app.Writes{Sent: []uint64{row.ID}})
	return nil
}

// releaseReplicas lets a collected result go where others may have it: they are told in the same commit. It reports whether there are any; a
// result that nobody was asked to keep is let go like any other.
func (s *Service) releaseReplicas(ctx context.Context, k domain.EntryKey) (r app.Reply, was bool, err error) {
	if known, _ := s.replicas.has(k); !known {
		return r, false, nil
	}
	unlock, err := s.replicas.locks.Lock(ctx, k)
	if err != nil {
		return r, true, err
	}
	defer unlock()
	if _, asked := s.replicas.has(k); !asked {
		s.replicas.forget(k)
		return r, false, nil
	}
	e, err := s.cfg.Store.Entry(ctx, k)
	if err != nil {
		return r, !errors.Is(err, app.ErrNotFound), err
	}
	if !e.Collect(time.Now(), s.cfg.Tomb) {
		s.replicas.forget(k)
		return r, true, nil
	}
	e.Revision++
	w := &app.Writes{Entries: []app.EntryWrite{{Entry: e, Forget: true, DropResult: true}}}
	ref := domain.Ref{TaskID: k.TaskID, Attempt: k.Attempt}
	for _, x := range e.Replicas {
		if x.State != domain.ReplicaAsked && x.State != domain.ReplicaKept && x.State != domain.ReplicaSilent {
			continue
		}
		w.Sent = append(w.Sent, s.outbox.Of(x.Peer, ref)...)
		row := s.outbox.Row(app.Address{Persona: e.Persona, Peer: x.Peer}, ref, &domain.CollectedEvent{Tasks: []domain.Ref{ref}})
		row.Timeout = releaseTimeout
		w.Outbox = append(w.Outbox, row)
	}
	w.Sent = append(w.Sent, s.outbox.Of(e.Consumer, ref)...) // what it was to hear of its result, it knows
	if err := s.cfg.Store.Commit(ctx, w); err != nil {
		return r, true, err
	}
	s.replicas.forget(k)
	for _, id := range w.Sent {
		s.outbox.Take(id)
	}
	s.outbox.Track(w.Outbox...)
	r.Outbox = withdrawn(w.Sent, e)
	for i := range w.Outbox {
		r.Outbox = append(r.Outbox, w.Outbox[i].Outgoing(nil))
	}
	s.unpin([]*domain.Entry{e})
	return r, true, nil
}
