package storetest

import (
	"fmt"
	"testing"
	"time"

	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// replicatedEntries: what was kept for others, and what others are to keep, is found after a start, until it is let go.
func replicatedEntries(t *testing.T, s Store) {
	ids := []string{"a" + app.NewID()[1:], "b" + app.NewID()[1:], "c" + app.NewID()[1:], "d" + app.NewID()[1:]}
	put := func(e *domain.Entry, insert bool) {
		t.Helper()
		commit(t, s, &app.Writes{Entries: []app.EntryWrite{{Entry: e, Insert: insert}}})
	}
	plain := newEntry("consumer", ids[0], 1, base)
	put(plain, true)
	fetched := newEntry("consumer", ids[1], 1, base) // not here yet
	fetched.What, fetched.Runner, fetched.Signed = domain.WhatReplica, "runner", &domain.Signed{ID: ids[1], Payload: []byte("p"), Author: "runner", Signature: []byte("s")}
	put(fetched, true)
	made := newEntry("consumer", ids[2], 1, base)
	made.Sub.Copies, made.Replicas = 1, []domain.Replica{{Peer: "peer", State: domain.ReplicaAsked, AskedAt: base}}
	put(made, true)
	refused := newEntry("consumer", ids[3], 1, base)
	refused.Sub.Copies, refused.Replicas = 1, made.Replicas
	put(refused, true)
	check := func(want ...string) {
		t.Helper()
		var got []string
		for after := (domain.EntryKey{}); ; { // one by one
			page, err := s.Replicated(ctx, after, 1)
			if err != nil {
				t.Fatal(err)
			}
			if len(page) == 0 {
				break
			}
			got, after = append(got, page[0].TaskID), page[0].Key()
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("replicated are %v, want %v", got, want)
		}
	}
	check(ids[1])
	end := func(e *domain.Entry, o domain.Outcome) *domain.Entry {
		t.Helper()
		done := e.Clone()
		done.Revision++
		if err := done.End(base.Add(time.Second), o); err != nil {
			t.Fatal(err)
		}
		put(done, false)
		return done
	}
	fetched, made = end(fetched, domain.Outcome{}), end(made, domain.Outcome{})
	end(refused, domain.Outcome{Cause: domain.CauseProvider, Reason: "PROVIDER_FAILED"})
	end(plain, domain.Outcome{})
	check(ids[1], ids[2])
	if got, err := s.Entry(ctx, fetched.Key()); err != nil || got.Runner != "runner" || got.Signed == nil || string(got.Signed.Payload) != "p" || string(got.Signed.Signature) != "s" {
		t.Fatalf("the replica is %+v, %v", got, err)
	}
	for _, e := range []*domain.Entry{fetched, made} {
		e.Collect(base.Add(time.Minute), time.Hour)
		e.Revision++
		put(e, false)
	}
	check()
}
