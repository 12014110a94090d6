package domain

import (
	"fmt"
	"slices"
	"time"
)

// Bounds of replicas.
const (
	// MaxReplicas is how many providers may keep one result, the one that made it among them.
	MaxReplicas = 8
	// MaxNamed is how many a submission names for that: more than are wanted, so that one that refuses is replaced.
	MaxNamed = 16
)

// NamedFor is how many providers are named where copies are wanted of a result: as many again, and one.
func NamedFor(copies uint32) int {
	if copies == 0 {
		return 0
	}
	return int(min(2*copies+1, MaxNamed))
}

// ReplicaState is what is known of a provider that was named to keep a result.
type ReplicaState uint8

// States of a replica.
const (
	ReplicaNamed   ReplicaState = 0
	ReplicaAsked   ReplicaState = 1
	ReplicaKept    ReplicaState = 2
	ReplicaRefused ReplicaState = 3
	ReplicaSilent  ReplicaState = 4 // could not be reached, or did not answer in time
)

var replicaNames = [...]string{"NAMED", "ASKED", "KEPT", "REFUSED", "SILENT"}

// String is the state's name, UNKNOWN for a number that is none.
func (s ReplicaState) String() string {
	if int(s) < len(replicaNames) {
		return replicaNames[s]
	}
	return "UNKNOWN"
}

// ParseReplicaState reads a state's name.
func ParseReplicaState(name string) (ReplicaState, bool) {
	i := slices.Index(replicaNames[:], name)
	return ReplicaState(max(i, 0)), i >= 0
}

// Replica is a provider that was named to keep a result beside the one that made it.
type Replica struct {
	Peer      string       `json:"peer"`
	Addresses []string     `json:"addresses,omitempty"`
	State     ReplicaState `json:"state,omitempty"`
	Reason    string       `json:"reason,omitempty"` // UPPER_SNAKE, where it refused
	AskedAt   time.Time    `json:"asked_at,omitzero"`
}

// Signed is a signed event that is kept to be shown again. Its type is what its place says.
type Signed struct {
	ID        string `json:"id"`
	Payload   []byte `json:"payload"`
	Author    string `json:"author"`
	Signature []byte `json:"signature"`
}

// Sign keeps what of an event is signed.
func Sign(ev *Event) *Signed {
	return &Signed{ID: ev.ID, Payload: ev.Payload, Author: ev.Author, Signature: ev.Signature}
}

// Event is the event again, without attachment.
func (s *Signed) Event(t EventType) Event {
	return Event{ID: s.ID, Type: t, Payload: s.Payload, Author: s.Author, Signature: s.Signature}
}

// WhatReplica says that an entry is another provider's result, kept for its consumer.
const WhatReplica = "REPLICA"

// IsReplica tells whether another provider made the result.
func (e *Entry) IsReplica() bool { return e.What == WhatReplica }

// Replicates tells whether others are to keep this provider's result: as long as it is kept here. A failure that is a provider's own, and what its
// consumer has cancelled, is nothing to be kept.
func (e *Entry) Replicates() bool {
	return e.What == "" && e.State.Terminal() && !e.Collected && e.Sub.Copies > 0 && len(e.Replicas) > 0 && e.Outcome != nil &&
		e.Outcome.Cause != CauseProvider && e.Outcome.Cause != CauseCancelled
}

// Replica finds a named provider; nil where it was not named. The caller changes it only in a clone of e.
func (e *Entry) Replica(peer string) *Replica { return replicaOf(e.Replicas, peer) }

func replicaOf(rs []Replica, peer string) *Replica {
	for i := range rs {
		if rs[i].Peer == peer {
			return &rs[i]
		}
	}
	return nil
}

// AskReplicas goes on with the asking: who has not answered within patience is given up, and as many others are asked as are missing. It
// returns whom to ask now, when the next one is to be given up, and whether nothing is left to do.
func (e *Entry) AskReplicas(now time.Time, patience time.Duration) (ask []string, next time.Time, done bool) {
	open := uint32(0) // kept, or still expected to be
	for i := range e.Replicas {
		r := &e.Replicas[i]
		if r.State == ReplicaAsked && !now.Before(r.AskedAt.Add(patience)) {
			r.State = ReplicaSilent
		}
		if r.State == ReplicaAsked || r.State == ReplicaKept {
			open++
		}
	}
	done = true
	for i := range e.Replicas {
		r := &e.Replicas[i]
		if r.State == ReplicaNamed && open < e.Sub.Copies {
			r.State, r.AskedAt = ReplicaAsked, now
			ask = append(ask, r.Peer)
			open++
		}
		if r.State == ReplicaAsked {
			done = false
			if at := r.AskedAt.Add(patience); next.IsZero() || at.Before(next) {
				next = at
			}
		}
	}
	return ask, next, done
}

// Replica finds a provider that was named to keep the attempt's result; nil where it was not.
func (a *Attempt) Replica(peer string) *Replica {
	if a == nil {
		return nil
	}
	return replicaOf(a.Replicas, peer)
}

// Holders are those that may have the attempt's result beside its provider, those first that are known to. Once the provider has said who keeps
// it, that is nobody whom it did not ask.
func (a *Attempt) Holders() []Replica {
	var kept, maybe []Replica
	for _, r := range a.Replicas {
		switch {
		case r.State == ReplicaKept:
			kept = append(kept, r)
		case r.State == ReplicaSilent, r.State != ReplicaRefused && !a.Reported:
			maybe = append(maybe, r)
		}
	}
	return append(kept, maybe...)
}

// HandedOver tells whether another than the provider has brought the result: the provider may be gone.
func (a *Attempt) HandedOver() bool {
	return !a.Reported && slices.ContainsFunc(a.Replicas, func(r Replica) bool { return r.State == ReplicaKept })
}

// Replicas takes its provider's word on who keeps an attempt's result. Who was not named is left out.
func (t *Task) Replicas(now time.Time, n uint32, from string, said []Replica) error {
	a := t.Attempt(n)
	if a == nil || a.Peer != from {
		return ErrNotHolder
	}
	if t.State.Terminal() {
		return &MoveError{From: t.State, Move: Complete, Late: true}
	}
	a.Replicas, a.Reported = slices.Clone(a.Replicas), true
	detail, kept := "", 0
	for _, r := range said {
		known := a.Replica(r.Peer)
		if known == nil {
			continue
		}
		known.State, known.Reason = r.State, r.Reason
		switch {
		case r.State == ReplicaKept:
			kept++
		case r.Reason != "":
			detail += "; one refused: " + r.Reason
		default:
			detail += "; one did not answer"
		}
	}
	t.note(now, "REPLICAS", from, fmt.Sprintf("%d other providers keep the result, of %d that were wanted%s", kept, t.Policy.Copies(), detail))
	return nil
}

// KeptBy notes that a provider that was named to keep an attempt's result has it.
func (t *Task) KeptBy(now time.Time, n uint32, peer string) error {
	a := t.Attempt(n)
	if a.Replica(peer) == nil {
		return ErrNotHolder
	}
	a.Replicas = slices.Clone(a.Replicas)
	a.Replica(peer).State = ReplicaKept
	t.note(now, "REPLICA", peer, "it has kept the result")
	return nil
}
