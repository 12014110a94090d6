package provider

import (
	"context"
	"slices"
	"time"

	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// forceTimeout is how long another provider is tried that is to take a task over.
const forceTimeout = 10 * time.Second

// evaluate finds the provider that should run the task instead of this one: nil when none should.
func (s *Service) evaluate(o *offer) (*app.Candidate, string) {
	if !o.sub.Redirect || s.bound(o) || len(o.path) >= domain.MaxHops || o.d.OwnPeer == "" {
		return nil, ""
	}
	own := o.d.Own
	own.Queue = s.Queue() // the metric's is as old as the metric
	var able []*app.Candidate
	var others []domain.Contender
	s.mu.Lock()
	for i := range o.d.Candidates {
		c := &o.d.Candidates[i]
		if c.Peer == o.d.OwnPeer || c.Peer == o.consumer || slices.Contains(o.path, c.Peer) || c.SealingKey == "" || !domain.ValidPeer(c.Peer) || c.Announcement.Author != c.Peer {
			continue
		}
		r := c.Resources
		if h := s.sentTo[c.Peer]; h.version == c.Version {
			r.Queue.Pending += h.count
		}
		able, others = append(able, c), append(others, domain.Contender{Peer: c.Peer, Resources: r})
	}
	s.mu.Unlock()
	d := s.cfg.Evaluator.Decide(own, others)
	if d.Contender < 0 || d.Contender >= len(able) {
		return nil, ""
	}
	return able[d.Contender], d.Reason
}

// bound tells whether a task refers to content that is granted to one provider alone.
func (s *Service) bound(o *offer) bool {
	return s.cfg.Anonymous && (o.sub.PayloadCID != "" || o.sub.RefSize > 0)
}

// redirect hands the task on: the other provider gets the consumer's own signed submission with the payload key sealed
// to it, the consumer hears who has its task now, and the journal keeps that it was here.
func (s *Service) redirect(ctx context.Context, o *offer, c *app.Candidate, why string) (app.Reply, error) {
	key, err := s.cfg.Key.OpenKey(o.sealed.SealedKey)
	if err != nil {
		return app.Reply{}, err
	}
	sealed, _, err := s.cfg.Cipher.SealKey(key, c.SealingKey, o.d.Persona)
	if err != nil {
		return app.Reply{}, err
	}
	ref := domain.Ref{TaskID: o.sub.TaskID, Attempt: o.sub.Attempt}
	signed := o.signed
	signed.Attachment = nil
	force := s.outbox.Row(app.Address{Persona: o.d.Persona, Peer: c.Peer, Addresses: c.Addresses}, ref,
		&domain.ForceSubmission{Submission: signed, Path: append(slices.Clip(o.path), o.d.OwnPeer)})
	attachment := s.cfg.Codec.EncodeSealed(sealed, o.sealed.Ciphertext)
	force.Timeout, force.Attach, force.Sealed = forceTimeout, app.AttachBytes, attachment
	tell := s.outbox.Row(app.Address{Persona: o.d.Persona, Peer: o.consumer}, ref,
		&domain.RedirectedEvent{TaskID: o.sub.TaskID, Attempt: o.sub.Attempt, Announcement: c.Announcement, Reason: why})
	now := time.Now()
	e := &domain.Entry{TaskID: o.sub.TaskID, Consumer: o.consumer, Persona: o.d.Persona, Sub: o.sub, Path: o.path, State: domain.Failed, What: "REDIRECTED",
		CreatedAt: now, EndedAt: now, Collected: true, ForgetAt: now.Add(s.cfg.Tomb), Revision: 1}
	rows := []app.OutboxRow{force, tell}
	w := &app.Writes{Entries: []app.EntryWrite{{Entry: e, Insert: true}}, Outbox: rows}
	if err := s.cfg.Store.Commit(ctx, w); err != nil {
		return app.Reply{}, err
	}
	s.outbox.Track(rows...)
	s.mu.Lock()
	s.recent.add(o.key(), nil)
	h := s.sentTo[c.Peer]
	if h.version != c.Version {
		h = handed{version: c.Version}
	}
	h.count++
	if len(s.sentTo) > 1024 {
		clear(s.sentTo)
	}
	s.sentTo[c.Peer] = h
	s.mu.Unlock()
	s.cfg.Metrics.Attempt("REDIRECTED")
	return app.Reply{Outbox: []app.Outgoing{force.Outgoing(attachment), tell.Outgoing(nil)}}, nil
}
