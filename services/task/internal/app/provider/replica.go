package provider

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"slices"
	"time"

	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// replicaAnswerTimeout is how long an answer is tried: who made the result may be gone.
const replicaAnswerTimeout = 10 * time.Minute

const replicaKind = "replica:"

// replicaOwner is whose pin a replica's is.
func replicaOwner(taskID string) string { return replicaKind + taskID }

// pinOwner is whose pin an entry's result is.
func pinOwner(e *domain.Entry) string {
	if e.IsReplica() {
		return replicaOwner(e.TaskID)
	}
	return resultOwner(e.TaskID)
}

// ownerOf is pinOwner for content that is about to be put, before what it is for is committed.
func (s *Service) ownerOf(e *domain.Entry) string {
	if e.IsReplica() {
		return s.replicasLeft.Owner(e.TaskID)
	}
	return s.leftovers.Owner(e.TaskID)
}

// replicaOutcome is how the attempt ended, as the one that ran it says.
func (s *Service) replicaOutcome(e *domain.Entry) (domain.Outcome, error) {
	if e.Outcome != nil {
		return *e.Outcome, nil
	}
	body, err := s.cfg.Codec.Decode(domain.TypeReplicaRequest, e.Signed.Payload)
	if err != nil {
		return domain.Outcome{}, err
	}
	req, ok := body.(*domain.ReplicaRequestEvent)
	if !ok {
		return domain.Outcome{}, errors.New("a stored request is none")
	}
	o, _ := outcomeOf(req)
	return o, nil
}

// outcomeOf translates what is inside a request, with the hash of the payload that it answers.
func outcomeOf(b *domain.ReplicaRequestEvent) (domain.Outcome, domain.Hash) {
	if f := b.Failure; f != nil {
		return domain.Outcome{Cause: f.Cause, Reason: f.Reason, Message: f.Message, Usage: f.Usage, ResultHash: f.ResultHash, ResultSize: f.ResultSize, ResultCID: f.ResultCID}, f.PayloadHash
	}
	r := b.Result
	return domain.Outcome{ExitCode: r.ExitCode, Usage: r.Usage, Program: r.ProgramHash, ResultHash: r.ResultHash, ResultSize: r.ResultSize, ResultCID: r.ResultCID}, r.PayloadHash
}

// replicaOffer is a request that has been checked.
type replicaOffer struct {
	d    *app.Delivery
	sub  *domain.Submission
	key  domain.EntryKey
	out  domain.Outcome
	keep time.Duration
}

// onReplicaRequest takes another provider's result to keep it for its consumer, who has named this node for that in what it signed. Only the
// sender's own claims are left then: they cost it its quota.
func (s *Service) onReplicaRequest(ctx context.Context, d *app.Delivery, b *domain.ReplicaRequestEvent) app.Reply {
	if s.credits.get(d.From).faults.Tokens() < 1 {
		return verdict(app.Rejected, "TOO_MANY_FAULTS")
	}
	if d.OwnPeer == "" { // node does not know it yet
		return verdict(app.Again, "")
	}
	o, bad := s.replicaOffered(d, b)
	if bad != "" {
		s.credits.fault(d.From, nil)
		return verdict(app.Rejected, bad)
	}
	unlock, err := s.replicas.locks.Lock(ctx, o.key)
	if err != nil {
		return verdict(app.Again, "")
	}
	defer unlock()
	r, err := s.takeReplica(ctx, o)
	if err != nil {
		s.cfg.Log.Warn("a result could not be taken to be kept", "error", err.Error())
		return verdict(app.Again, "")
	}
	return r
}

// replicaOffered checks who asks for what: the reason where it should not have.
func (s *Service) replicaOffered(d *app.Delivery, b *domain.ReplicaRequestEvent) (*replicaOffer, string) {
	if d.Event.Author != d.From {
		return nil, "AUTHOR_INVALID"
	}
	body, err := s.cfg.Codec.Decode(domain.TypeSubmission, b.Submission.Payload)
	sub, ok := body.(*domain.Submission)
	if err != nil || !ok || sub.TaskID != b.TaskID || sub.Attempt != b.Attempt || sub.Copies == 0 || !slices.Contains(sub.Named, d.OwnPeer) {
		return nil, "SUBMISSION_INVALID"
	}
	o := &replicaOffer{d: d, sub: sub, key: domain.EntryKey{Consumer: b.Submission.Author, TaskID: b.TaskID, Attempt: b.Attempt}, keep: min(b.Keep, s.cfg.Keep)}
	var payload domain.Hash
	o.out, payload = outcomeOf(b)
	small := d.Event.Attachment
	switch {
	case payload != sub.PayloadHash, o.out.Cause == domain.CauseProvider, o.out.Cause == domain.CauseCancelled, o.keep <= 0, o.out.ResultSize > 0 && o.out.ResultCID == "":
		return nil, "OUTCOME_INVALID"
	case len(small) > 0 && (len(small) > app.SmallLimit || int64(len(small)) != o.out.ResultSize || sha256.Sum256(small) != o.out.ResultHash):
		return nil, "ATTACHMENT_INVALID"
	case !s.cfg.Verifier.Verify(&b.Submission): // last: it costs the most
		return nil, "SUBMISSION_INVALID"
	}
	return o, ""
}

// takeReplica takes what was offered, refuses it, or says again what was said of it before. The key's lock is held.
func (s *Service) takeReplica(ctx context.Context, o *replicaOffer) (app.Reply, error) {
	s.mu.Lock()
	own := s.held[o.key] != nil
	s.mu.Unlock()
	if e, err := s.cfg.Store.Entry(ctx, o.key); err == nil {
		switch {
		case !e.IsReplica() || e.Runner != o.d.From:
			own = true
		case !e.State.Terminal():
			return verdict(app.Ignored, "REPEATED"), nil // it is being fetched
		case e.Collected:
			return s.refuseReplica(o, "COLLECTED"), nil
		default:
			return s.answered(s.replicaAnswer(e.Persona, e.Runner, o.key, "")), nil
		}
	} else if !errors.Is(err, app.ErrNotFound) {
		return app.Reply{}, err
	}
	if own {
		return s.refuseReplica(o, "ALREADY_HERE"), nil
	}
	if no := s.judgeReplica(o); no != "" {
		return s.refuseReplica(o, no), nil
	}
	sub := *o.sub
	sub.Keep, sub.Recipient, sub.Named = o.keep, "", nil
	e := &domain.Entry{TaskID: sub.TaskID, Consumer: o.key.Consumer, Persona: o.d.Persona, Sub: sub, State: domain.Accepted, What: domain.WhatReplica, Runner: o.d.From,
		Signed: domain.Sign(&o.d.Event), CreatedAt: time.Now(), Revision: 1}
	large := o.out.ResultSize > 0 && len(o.d.Event.Attachment) == 0
	r, err := s.storeReplica(ctx, e, o, large)
	if err != nil {
		s.keeps.remove(o.key)
		return r, err
	}
	if large {
		s.keeps.work.Add(keyName(o.key))
	}
	return r, nil
}

// judgeReplica holds an offer against the policy and the quotas, and takes its room: the reason where it is refused.
func (s *Service) judgeReplica(o *replicaOffer) string {
	p := &s.cfg.Policy
	for _, peer := range []string{o.d.From, o.key.Consumer} {
		if slices.Contains(p.Deny, peer) {
			return "PEER_NOT_ALLOWED"
		}
	}
	switch {
	case p.Replicas < 0:
		return "REPLICAS_OFF"
	case len(p.Allow) > 0 && !slices.Contains(p.Allow, o.key.Consumer):
		return "PEER_NOT_ALLOWED"
	case !s.credits.get(o.d.From).submissions.Allow():
		return "PEER_RATE"
	}
	return s.keeps.add(o.key, o.d.From, o.out.ResultSize, p.Replicas, p.ReplicasPerPeer)
}

// storeReplica commits the entry: a large one as what is to be fetched, any other as kept, with the answer that says so.
func (s *Service) storeReplica(ctx context.Context, e *domain.Entry, o *replicaOffer, large bool) (app.Reply, error) {
	w := &app.Writes{}
	ew := app.EntryWrite{Entry: e, Insert: true}
	put := func() {}
	if !large {
		out := o.out
		if small := o.d.Event.Attachment; len(small) > 0 {
			out.ResultCID, ew.Result = app.SmallCID(out.ResultHash), small
		}
		if err := e.End(time.Now(), out); err != nil {
			return app.Reply{}, err
		}
		w.Outbox = []app.OutboxRow{s.replicaAnswer(e.Persona, e.Runner, o.key, "")}
		put = s.putSide(e, ew.Result)
	}
	w.Entries = []app.EntryWrite{ew}
	err := s.cfg.Store.Commit(ctx, w)
	put()
	if err != nil {
		return app.Reply{}, err
	}
	if large {
		return app.Reply{}, nil
	}
	s.cfg.Metrics.Attempt("REPLICA_KEPT")
	return s.answered(w.Outbox[0]), nil
}

// replicaAnswer says that a result is kept, or with a reason that it is not.
func (s *Service) replicaAnswer(persona, runner string, k domain.EntryKey, reason string) app.OutboxRow {
	row := s.outbox.Row(app.Address{Persona: persona, Peer: runner}, domain.Ref{TaskID: k.TaskID, Attempt: k.Attempt},
		&domain.ReplicaAnswerEvent{TaskID: k.TaskID, Attempt: k.Attempt, Consumer: k.Consumer, Kept: reason == "", Reason: reason})
	row.Timeout = replicaAnswerTimeout
	return row
}

// answered is a reply with an answer that was committed, or is worth no commit.
func (s *Service) answered(row app.OutboxRow) app.Reply {
	s.outbox.Track(row)
	return app.Reply{Outbox: []app.Outgoing{row.Outgoing(nil)}}
}

// refuseReplica says no, as long as the sender has not had too many of these.
func (s *Service) refuseReplica(o *replicaOffer, reason string) app.Reply {
	if !s.credits.get(o.d.From).refusals.Allow() {
		return verdict(app.Rejected, reason)
	}
	if s.outbox.Full() {
		return verdict(app.Again, "")
	}
	row := s.replicaAnswer(o.d.Persona, o.d.From, o.key, reason)
	s.cfg.Store.Later(&app.Writes{Outbox: []app.OutboxRow{row}})
	s.cfg.Metrics.Attempt("REPLICA_REFUSED")
	return s.answered(row)
}

// errDiffers is content that is not what its receipt says: fetching it again would not help.
var errDiffers = errors.New("the content is not what its receipt says")

// proven ends with an error where what was read is not what a receipt says.
type proven struct {
	*app.HashingReader
	size int64
	hash domain.Hash
}

func (p proven) Read(b []byte) (int, error) {
	n, err := p.HashingReader.Read(b)
	if p.N > p.size || errors.Is(err, io.EOF) && (p.N != p.size || p.Sum() != p.hash) {
		return 0, errDiffers
	}
	return n, err
}

// fetchReplica brings a large result here, from the one that has asked, and answers it.
func (s *Service) fetchReplica(k domain.EntryKey) {
	e, err := s.cfg.Store.Entry(s.ctx, k)
	if err != nil || !e.IsReplica() || e.State.Terminal() {
		return // let go meanwhile
	}
	out, err := s.replicaOutcome(e)
	if err != nil {
		s.cfg.Log.Error("a request to keep a result cannot be read any more", "error", err.Error())
		return
	}
	ctx, cancel := context.WithCancel(s.ctx)
	s.keeps.begin(k, cancel)
	defer s.keeps.end(k)
	for try := range fetchTries {
		if try > 0 {
			select {
			case <-time.After(fetchPause << (try - 1)):
			case <-ctx.Done():
			}
		}
		if ctx.Err() != nil {
			return // the next process goes on, or nobody wants it any more
		}
		if err = s.copyReplica(ctx, e, out); err == nil || errors.Is(err, errDiffers) {
			break
		}
		s.cfg.Log.Warn("a result that is to be kept could not be fetched", "error", err.Error())
	}
	reason := ""
	switch {
	case ctx.Err() != nil && err != nil:
		return
	case errors.Is(err, errDiffers):
		reason = "CONTENT_DIFFERS"
		s.credits.fault(e.Runner, nil)
	case err != nil:
		reason = "CONTENT_UNAVAILABLE"
	}
	for pause := 100 * time.Millisecond; s.ctx.Err() == nil; pause = min(2*pause, 10*time.Second) {
		if err = s.replicaFetched(k, out, reason); err == nil {
			return
		}
		s.cfg.Log.Warn("a fetched result could not be committed, which will be tried again", "error", err.Error())
		select {
		case <-time.After(pause):
		case <-s.ctx.Done():
		}
	}
}

// copyReplica puts the content into this node's repository, pinned: durable when it returns.
func (s *Service) copyReplica(ctx context.Context, e *domain.Entry, out domain.Outcome) error {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	src, err := s.cfg.Repository.Get(ctx, e.Persona, out.ResultCID, []string{e.Runner}, out.ResultSize)
	if err != nil {
		return err
	}
	defer src.Close()
	pin := app.Pin{Owner: s.ownerOf(e), Keep: e.Sub.Keep, Readers: readers(e)}
	cid, err := s.cfg.Repository.Put(ctx, e.Persona, proven{app.NewHashingReader(src), out.ResultSize, out.ResultHash}, pin)
	if err != nil {
		return err
	}
	if cid != out.ResultCID {
		s.unpinNow(app.Pinned{CID: cid, Owner: pin.Owner})
		return errDiffers
	}
	return nil
}

// replicaFetched commits how a fetch ended, with the answer that tells of it.
func (s *Service) replicaFetched(k domain.EntryKey, out domain.Outcome, reason string) error {
	unlock, err := s.replicas.locks.Lock(s.ctx, k)
	if err != nil {
		return err
	}
	defer unlock()
	e, err := s.cfg.Store.Entry(s.ctx, k)
	if errors.Is(err, app.ErrNotFound) { // let go while it came
		s.unpinNow(app.Pinned{CID: out.ResultCID, Owner: replicaOwner(k.TaskID)})
		return nil
	}
	if err != nil {
		return err
	}
	w := &app.Writes{Outbox: []app.OutboxRow{s.replicaAnswer(e.Persona, e.Runner, k, reason)}}
	if reason != "" {
		w.Entries = []app.EntryWrite{{Entry: e, Delete: true}}
	} else {
		if err := e.End(time.Now(), out); err != nil {
			return nil // another fetch was faster
		}
		e.Revision++
		w.Entries = []app.EntryWrite{{Entry: e}}
	}
	if err := s.cfg.Store.Commit(s.ctx, w); err != nil {
		return err
	}
	if reason != "" {
		s.keeps.remove(k)
		s.cfg.Metrics.Attempt("REPLICA_REFUSED")
	} else {
		s.cfg.Metrics.Attempt("REPLICA_KEPT")
	}
	s.cfg.Pusher.Push(s.ctx, s.answered(w.Outbox[0]))
	return nil
}

// replicaOf finds the replica of a task's attempt that a peer may let go: its consumer, or who made the result.
func (s *Service) replicaOf(k domain.EntryKey) (domain.EntryKey, bool) {
	entries, err := s.cfg.Store.Entries(s.ctx, k.TaskID)
	if err != nil {
		return k, false
	}
	for _, e := range entries {
		if e.IsReplica() && !e.Collected && e.Sub.Attempt == k.Attempt && (e.Consumer == k.Consumer || e.Runner == k.Consumer) {
			return e.Key(), true
		}
	}
	return k, false
}

// letReplica lets a replica go, or stops fetching it.
func (s *Service) letReplica(k domain.EntryKey) error {
	unlock, err := s.replicas.locks.Lock(s.ctx, k)
	if err != nil {
		return err
	}
	defer unlock()
	e, err := s.cfg.Store.Entry(s.ctx, k)
	if err != nil || !e.IsReplica() || e.Collected {
		return err
	}
	w := &app.Writes{}
	if e.Collect(time.Now(), s.cfg.Tomb) {
		e.Revision++
		w.Entries = []app.EntryWrite{{Entry: e, Forget: true, DropResult: true}}
	} else {
		w.Entries = []app.EntryWrite{{Entry: e, Delete: true}}
	}
	if err := s.cfg.Store.Commit(s.ctx, w); err != nil {
		return err
	}
	s.keeps.end(k)
	s.keeps.remove(k)
	s.unpin([]*domain.Entry{e})
	return nil
}

// replicaAgain hands a result over that another provider made.
func (s *Service) replicaAgain(ctx context.Context, d *app.Delivery, e *domain.Entry) (app.Outgoing, error) {
	small, err := s.cfg.Store.Result(ctx, e.Key())
	if err != nil {
		return app.Outgoing{}, err
	}
	return s.outbox.Once(app.Address{Persona: d.Persona, Peer: d.From}, domain.Ref{TaskID: e.TaskID, Attempt: e.Sub.Attempt},
		&domain.ReplicaResultEvent{TaskID: e.TaskID, Attempt: e.Sub.Attempt, Request: e.Signed.Event(domain.TypeReplicaRequest)}, small, false, answerTimeout), nil
}
