package providers

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// whole looks at a store from inside: both sides name the same records, and no bound is passed.
func whole(t *testing.T, s *Store) {
	t.Helper()
	n := 0
	for key, of := range s.keys {
		if len(of) == 0 || len(of) > s.bounds.PerKey {
			t.Fatalf("key %s has %d providers", key, len(of))
		}
		for _, r := range of {
			n++
			found := 0
			for _, k := range s.peers[r.Peer] {
				if k == key {
					found++
				}
			}
			if found != 1 {
				t.Fatalf("the record of %s by %s is there %d times at the peer", key, r.Peer, found)
			}
		}
	}
	of := 0
	for peer, keys := range s.peers {
		of += len(keys)
		if len(keys) == 0 || len(keys) > s.bounds.PerPeer {
			t.Fatalf("peer %s has %d keys", peer, len(keys))
		}
	}
	if n != s.len || of != s.len || s.len > s.bounds.Total {
		t.Fatalf("%d records by key, %d by peer, %d counted, %d allowed", n, of, s.len, s.bounds.Total)
	}
}

func TestAddAndExpire(t *testing.T) {
	s := New(Bounds{Total: 10, PerKey: 3, PerPeer: 3, TTL: time.Hour})
	for _, bad := range [][2]string{{"", "p"}, {"k", ""}} {
		if s.Add(bad[0], bad[1], noon, noon) {
			t.Errorf("%q was taken", bad)
		}
	}
	if s.Add("k", "p", noon.Add(-2*time.Hour), noon) {
		t.Error("a record that has ended was taken")
	}
	if !s.Add("k", "p", noon, noon) || !s.Add("k", "q", noon.Add(5*time.Hour), noon) || !s.Holds("p") || s.Holds("r") {
		t.Error("a record was not taken")
	}
	if got := s.Of("k", noon.Add(time.Hour)); len(got) != 2 {
		t.Errorf("got %v", got)
	}
	if !s.Add("k", "p", noon.Add(30*time.Minute), noon.Add(30*time.Minute)) { // said again
		t.Error("a record was not renewed")
	}
	s.Add("k", "p", noon, noon.Add(time.Hour)) // an older word takes nothing back
	later := noon.Add(90 * time.Minute)
	if got := s.Of("k", later); len(got) != 1 || got[0].Peer != "p" {
		t.Errorf("after an hour and a half: %v", got)
	}
	s.Expire(later)
	whole(t, s)
	if s.Len() != 1 || s.Holds("q") {
		t.Errorf("%d records are left", s.Len())
	}
	s.Remove("k", "nobody")
	s.Remove("k", "p")
	whole(t, s)
	if s.Len() != 0 {
		t.Errorf("%d records are left", s.Len())
	}
}

func TestShares(t *testing.T) {
	s := New(Bounds{Total: 12, PerKey: 4, PerPeer: 3, TTL: time.Hour})
	for i := range 100 {
		if kept := s.Add(fmt.Sprint("k", i), "flood", noon, noon); kept != (i < 3) {
			t.Fatalf("record %d of one peer: kept is %v", i, kept)
		}
	}
	for i := range 100 {
		if !s.Add("one", fmt.Sprint("p", i), noon, noon) {
			t.Fatal("a newcomer was refused")
		}
		whole(t, s)
	}
	if got := s.Of("one", noon); len(got) != 4 {
		t.Errorf("a key has %d providers", len(got))
	}
}

// Whoever fills the store from few identities loses its own records to newcomers, not theirs.
func TestFloodIsItsOwnVictim(t *testing.T) {
	s := New(Bounds{Total: 100, PerKey: 8, PerPeer: 20, TTL: time.Hour})
	for i := range 10 {
		s.Add("honest", fmt.Sprint("h", i%4), noon, noon)
	}
	for p := range 10 {
		for i := range 20 {
			s.Add(fmt.Sprint("k", p, "-", i), fmt.Sprint("flood", p), noon, noon)
		}
	}
	whole(t, s)
	if s.Len() != 100 || len(s.Of("honest", noon)) != 4 {
		t.Errorf("%d records, %d of them honest", s.Len(), len(s.Of("honest", noon)))
	}
	if !s.Add("late", "newcomer", noon, noon) || len(s.Of("honest", noon)) != 4 {
		t.Error("a newcomer found no room, or took it from others than the flood")
	}
}

func TestKeep(t *testing.T) {
	s := New(Default)
	s.Add("a", "p", noon, noon)
	s.Add("a", "q", noon, noon)
	s.Add("b", "q", noon, noon)
	s.Keep(func(p string) bool { return p != "q" })
	whole(t, s)
	if s.Holds("q") || len(s.Of("a", noon)) != 1 || len(s.Of("b", noon)) != 0 {
		t.Error("a peer's records are still there")
	}
}

// Whatever happens in whatever order, the bounds hold and both sides agree.
func TestAnyOrder(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1))
		s := New(Bounds{Total: 50, PerKey: 5, PerPeer: 7, TTL: time.Hour})
		now := noon
		for range 3000 {
			now = now.Add(time.Duration(r.IntN(60)) * time.Second)
			key, peer := fmt.Sprint("k", r.IntN(40)), fmt.Sprint("p", r.IntN(30))
			switch r.IntN(10) {
			case 0:
				s.Remove(key, peer)
			case 1:
				s.Expire(now)
			default:
				s.Add(key, peer, now.Add(-time.Duration(r.IntN(90))*time.Minute), now)
			}
			whole(t, s)
		}
	}
}

// A flood of records costs little also where there is no room: every request of it would be a look at all of them.
func TestAFullStoreIsCheap(t *testing.T) {
	s, now := New(Default), time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	n := 0
	add := func() {
		n++
		s.Add(fmt.Sprint("key ", n), fmt.Sprint("peer ", n%64), now, now)
	}
	for range 2 * Default.Total {
		add()
	}
	if s.Len() != Default.Total {
		t.Fatalf("%d records", s.Len())
	}
	if allocs := testing.AllocsPerRun(1000, add); allocs > 100 {
		t.Errorf("%v allocations for one record", allocs)
	}
	now = now.Add(Default.TTL + time.Minute)
	if add(); s.Len() != 1 {
		t.Errorf("%d records of which all but one have ended", s.Len())
	}
}
