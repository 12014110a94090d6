package consumer

import (
	"context"
	"slices"

	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// namedReplicas are those that an attempt's submission names to keep its result: never the provider itself, nobody twice, and nobody that the
// user wants left out.
func namedReplicas(t *domain.Task, c *app.Candidate) []domain.Replica {
	if t.Policy.Copies() == 0 {
		return nil
	}
	var out []domain.Replica
	for _, r := range c.Replicas {
		known := slices.ContainsFunc(out, func(x domain.Replica) bool { return x.Peer == r.Peer })
		if r.Peer == c.Peer || known || !domain.ValidPeer(r.Peer) || slices.Contains(t.Policy.Exclude, r.Peer) {
			continue
		}
		if out = append(out, domain.Replica{Peer: r.Peer, Addresses: r.Addresses}); len(out) == domain.NamedFor(t.Policy.Copies()) {
			break
		}
	}
	return out
}

func peersOf(rs []domain.Replica) []string {
	out := make([]string, len(rs))
	for i, r := range rs {
		out[i] = r.Peer
	}
	return out
}

// askReplicas asks those that may have an attempt's result: its provider may be gone. The question makes node connect to them, too.
func (s *Service) askReplicas(taskID string, a *domain.Attempt) []app.Outgoing {
	var out []app.Outgoing
	for _, r := range a.Holders() {
		ref := domain.Ref{TaskID: taskID, Attempt: a.Number}
		out = append(out, s.outbox.Once(app.Address{Persona: a.Persona, Peer: r.Peer, Addresses: r.Addresses}, ref, &domain.QueryEvent{Tasks: []domain.Ref{ref}}, nil, false, s.cfg.Lease))
	}
	return out
}

// onReplicas hears from its provider who keeps an attempt's result.
func (s *Service) onReplicas(ctx context.Context, d *app.Delivery, b *domain.ReplicasEvent) app.Reply {
	return s.apply(ctx, d, b.TaskID, func(e *edit) error {
		return s.mayCome(e, b.Attempt, d.From, e.t.Replicas(e.now, b.Attempt, d.From, b.Replicas))
	})
}

// onReplicaResult takes a result from one that has kept it. It counts as if its provider had said it, who has signed it.
func (s *Service) onReplicaResult(ctx context.Context, d *app.Delivery, b *domain.ReplicaResultEvent) app.Reply {
	body, err := s.cfg.Codec.Decode(domain.TypeReplicaRequest, b.Request.Payload)
	req, ok := body.(*domain.ReplicaRequestEvent)
	if err != nil || !ok || req.TaskID != b.TaskID || req.Attempt != b.Attempt || !s.cfg.Verifier.Verify(&b.Request) {
		return verdict(app.Rejected, "REQUEST_INVALID")
	}
	if f := req.Failure; f != nil {
		if f.Cause == domain.CauseProvider || f.Cause == domain.CauseCancelled { // nobody is asked to keep these
			return verdict(app.Rejected, "REQUEST_INVALID")
		}
		return s.onReceipt(ctx, d, b.TaskID, f.PayloadHash, domain.Receipt{Attempt: b.Attempt, Peer: b.Request.Author, Cause: f.Cause, Reason: f.Reason, Message: f.Message,
			Usage: f.Usage, Hash: f.ResultHash, Size: f.ResultSize, CID: f.ResultCID})
	}
	r := req.Result
	return s.onReceipt(ctx, d, b.TaskID, r.PayloadHash, domain.Receipt{Attempt: b.Attempt, Peer: b.Request.Author, ExitCode: r.ExitCode, Usage: r.Usage, Limits: r.Limits,
		Program: r.ProgramHash, Hash: r.ResultHash, Size: r.ResultSize, CID: r.ResultCID})
}

// fromReplica notes that a result came from one that has kept it, if it did. Whoever was not named for that has nothing to hand over.
func (s *Service) fromReplica(e *edit, d *app.Delivery, rc *domain.Receipt) error {
	if d.From == rc.Peer {
		return nil
	}
	a := e.t.Attempt(rc.Attempt)
	if a.Replica(d.From) == nil {
		return domain.ErrNotHolder
	}
	if a.Peer != rc.Peer { // word of a redirect may be under way; without it anybody could say that the task was handed to them
		return s.mayCome(e, rc.Attempt, rc.Peer, domain.ErrNotHolder)
	}
	if e.t.State.Terminal() || e.t.Receipt != nil { // Receive says what that means
		return nil
	}
	return e.t.KeptBy(e.now, rc.Attempt, d.From)
}

// releaseReplicas tells those that may have an attempt's result that they may let it go. As long as the provider itself can be reached it does
// that: it knows whom it has asked.
func (s *Service) releaseReplicas(e *edit, a *domain.Attempt) {
	for _, r := range replicaReleases(e.t.ID, a) {
		e.w.Releases = append(e.w.Releases, r)
		e.after = append(e.after, func() { s.let.add(0, r) })
	}
}

func replicaReleases(taskID string, a *domain.Attempt) []app.ReleaseRow {
	var out []app.ReleaseRow
	for _, r := range a.Holders() {
		out = append(out, app.ReleaseRow{TaskID: taskID, Attempt: a.Number, Persona: a.Persona, Peer: r.Peer, Addresses: r.Addresses})
	}
	return out
}

// lateReplica lets go what was handed over after the end.
func (s *Service) lateReplica(e *edit, n uint32, peer string) error {
	a := e.t.Attempt(n)
	r := app.ReleaseRow{TaskID: e.t.ID, Attempt: n, Persona: a.Persona, Peer: peer, Addresses: a.Replica(peer).Addresses}
	e.after = append(e.after, func() { s.let.add(0, r) })
	return errUnchanged
}

// providerGone has the replicas of results told that their provider could not be told of, once. It writes down that they are to be.
func (r *releaser) providerGone(refs []app.ReleaseRow) {
	var rows []app.ReleaseRow
	for _, ref := range refs {
		k := domain.Ref{TaskID: ref.TaskID, Attempt: ref.Attempt}
		r.mu.Lock()
		before := r.gone[k]
		r.gone[k] = true
		r.mu.Unlock()
		if before {
			continue
		}
		t, err := r.s.cfg.Store.Task(context.Background(), ref.TaskID)
		if err != nil { // pruned
			continue
		}
		if a := t.Attempt(ref.Attempt); a != nil && a.Peer == ref.Peer {
			rows = append(rows, replicaReleases(t.ID, a)...)
		}
	}
	if len(rows) > 0 {
		r.s.cfg.Store.Later(&app.Writes{Releases: rows})
		r.add(0, rows...)
	}
}

// forgetGone ends what providerGone remembers. r.mu is held.
func (r *releaser) forgetGone(refs []app.ReleaseRow) {
	for _, ref := range refs {
		delete(r.gone, domain.Ref{TaskID: ref.TaskID, Attempt: ref.Attempt})
	}
}
