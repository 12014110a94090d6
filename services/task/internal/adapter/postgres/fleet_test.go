package postgres_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/shallot-net/shallot/kit/pgtest"
	"github.com/shallot-net/shallot/services/task/internal/adapter/postgres"
	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/app/provider"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

func fleets(t *testing.T, names ...string) (*postgres.Store, []*postgres.Fleet) {
	server := pgtest.Shared(t)
	database := server.Database(t)
	s := open(t, server, database)
	var out []*postgres.Fleet
	for _, n := range names {
		out = append(out, open(t, server, database).Fleet(n))
	}
	return s, out
}

func entry(consumer string, at time.Time) *domain.Entry {
	id := app.NewID()
	return &domain.Entry{TaskID: id, Consumer: consumer, Sub: domain.Submission{TaskID: id, Attempt: 1, Type: "sum"}, State: domain.Accepted, CreatedAt: at, Revision: 1}
}

func put(t *testing.T, s *postgres.Store, es ...*domain.Entry) {
	t.Helper()
	for _, e := range es {
		if err := s.Commit(t.Context(), &app.Writes{Entries: []app.EntryWrite{{Entry: e, Insert: true, Told: "test"}}}); err != nil {
			t.Fatal(err)
		}
	}
}

func stay(*domain.Entry) *app.EntryWrite { return nil }

func claim(t *testing.T, f *postgres.Fleet, n int, lease time.Duration) []provider.Claimed {
	t.Helper()
	c, err := f.Claim(t.Context(), n, lease, stay)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func beat(t *testing.T, f *postgres.Fleet, lease time.Duration, keep ...domain.EntryKey) provider.Pulse {
	t.Helper()
	p, err := f.Beat(t.Context(), 2, func() []domain.EntryKey { return keep }, lease)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// However many claim at once, each entry has one holder.
func TestClaimsAreExclusive(t *testing.T) {
	t.Parallel()
	s, fs := fleets(t, "a", "b", "c")
	const n = 60
	for range n {
		put(t, s, entry("consumer", time.Now()))
	}
	ended := entry("consumer", time.Now())
	ended.State, ended.EndedAt = domain.Completed, time.Now()
	kept := entry("consumer", time.Now()) // a replica of another provider's result is not to be run
	kept.What = domain.WhatReplica
	put(t, s, ended, kept)
	var mu sync.Mutex
	seen := map[string]int{}
	var wg sync.WaitGroup
	for _, f := range fs {
		for range 2 {
			wg.Go(func() {
				for {
					c, err := f.Claim(context.Background(), 4, time.Hour, stay)
					if err != nil {
						t.Error(err)
					}
					mu.Lock()
					for _, x := range c {
						seen[x.Entry.TaskID]++
					}
					done := len(seen) == n
					mu.Unlock()
					if done || err != nil {
						return
					}
				}
			})
		}
	}
	wg.Wait()
	for id, times := range seen {
		if times != 1 || id == ended.TaskID || id == kept.TaskID {
			t.Errorf("an entry was claimed %d times", times)
		}
	}
}

// Of two consumers the one with fewer at work comes first, then who has waited longest.
func TestClaimsAreFair(t *testing.T) {
	t.Parallel()
	s, fs := fleets(t, "a")
	now := time.Now()
	first, second, other := entry("much", now.Add(-3*time.Second)), entry("much", now.Add(-2*time.Second)), entry("little", now.Add(-time.Second))
	put(t, s, second, other, first)
	var got []string
	for range 3 {
		for _, c := range claim(t, fs[0], 1, time.Hour) {
			got = append(got, c.Entry.TaskID)
		}
	}
	if want := []string{first.TaskID, other.TaskID, second.TaskID}; !slices.Equal(got, want) {
		t.Fatalf("got %v, want %v", got, want)
	}
}

// A claim holds as long as its replica says that it is there, and no longer; what it does not know of it has not.
func TestClaimsEnd(t *testing.T) {
	t.Parallel()
	s, fs := fleets(t, "a", "b")
	a, b := fs[0], fs[1]
	one, two := entry("c", time.Now()), entry("c", time.Now())
	put(t, s, one, two)
	if c := claim(t, a, 9, time.Hour); len(c) != 2 {
		t.Fatalf("%d claims", len(c))
	}
	if c := claim(t, b, 9, time.Hour); len(c) != 0 {
		t.Fatalf("b has %d of a's", len(c))
	}
	beat(t, a, time.Hour, one.Key())
	if c := claim(t, b, 9, time.Hour); len(c) != 1 || c[0].Entry.TaskID != two.TaskID {
		t.Fatalf("a has let go of the second: %v", c)
	}
	beat(t, a, 0, one.Key()) // its lease is over
	if c := claim(t, b, 9, time.Hour); len(c) != 1 || c[0].Entry.TaskID != one.TaskID {
		t.Fatalf("a's lease is over: %v", c)
	}
	if err := b.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	if c := claim(t, a, 9, time.Hour); len(c) != 2 {
		t.Fatalf("b has left, and %d are free", len(c))
	}
}

// What a replica takes while it says what it has is not given back: it would run twice.
func TestBeatKeepsWhatBeginsMeanwhile(t *testing.T) {
	t.Parallel()
	s, fs := fleets(t, "a", "b")
	a, b := fs[0], fs[1]
	waits, taken := entry("c", time.Now()), entry("c", time.Now())
	put(t, s, waits)
	_, err := a.Beat(t.Context(), 2, func() []domain.EntryKey {
		if c := claim(t, a, 9, time.Hour); len(c) != 1 {
			t.Errorf("%d claims", len(c))
		}
		if err := s.Commit(t.Context(), &app.Writes{Entries: []app.EntryWrite{{Entry: taken, Insert: true, Holder: "a", Lease: time.Hour}}}); err != nil {
			t.Error(err)
		}
		return nil
	}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if c := claim(t, b, 9, time.Hour); len(c) != 0 {
		t.Fatalf("b has %d of a's", len(c))
	}
	beat(t, a, time.Hour, taken.Key()) // the next one knows
	if c := claim(t, b, 9, time.Hour); len(c) != 1 || c[0].Entry.TaskID != waits.TaskID {
		t.Fatalf("a has let go of what waits: %v", c)
	}
}

// Who has not heard of a cancellation hears of it at the next beat.
func TestBeatTellsOfCancellations(t *testing.T) {
	t.Parallel()
	s, fs := fleets(t, "a", "b")
	a, b := fs[0], fs[1]
	one, two := entry("c", time.Now()), entry("c", time.Now())
	put(t, s, one, two)
	if c := claim(t, a, 9, time.Hour); len(c) != 2 {
		t.Fatalf("%d claims", len(c))
	}
	if p := beat(t, a, time.Hour, one.Key(), two.Key()); len(p.Cancelled) != 0 {
		t.Fatalf("%+v", p)
	}
	if mine, err := b.Cancel(t.Context(), two.Key(), time.Hour); err != nil || mine != nil {
		t.Fatalf("%v, %v", mine, err)
	}
	if p := beat(t, a, time.Hour, one.Key(), two.Key()); !slices.Equal(p.Cancelled, []domain.EntryKey{two.Key()}) {
		t.Fatalf("%+v", p)
	}
	if p := beat(t, b, time.Hour); len(p.Cancelled) != 0 {
		t.Fatalf("it is no other's: %+v", p)
	}
}

func TestOneLeads(t *testing.T) {
	t.Parallel()
	_, fs := fleets(t, "a", "b")
	a, b := fs[0], fs[1]
	if p := beat(t, a, time.Hour); !p.Leads || p.Slots != 2 || p.Replicas != 1 {
		t.Fatalf("%+v", p)
	}
	if p := beat(t, b, time.Hour); p.Leads || p.Slots != 4 || p.Replicas != 2 {
		t.Fatalf("%+v", p)
	}
	if p := beat(t, a, 0); !p.Leads { // still, and no longer after that
		t.Fatalf("%+v", p)
	}
	if p := beat(t, b, time.Hour); !p.Leads || p.Replicas != 1 {
		t.Fatalf("%+v", p)
	}
	if p := beat(t, a, time.Hour); p.Leads {
		t.Fatalf("two lead: %+v", p)
	}
	if err := b.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	if p := beat(t, a, time.Hour); !p.Leads || p.Replicas != 1 {
		t.Fatalf("%+v", p)
	}
}

// listen gives the notes that a replica hears from now on, one by one.
func listen(t *testing.T, f *postgres.Fleet) (next func() provider.Note) {
	t.Helper()
	heard := make(chan provider.Note, 64)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- f.Listen(ctx, func(n provider.Note) { heard <- n }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	next = func() provider.Note {
		t.Helper()
		select {
		case n := <-heard:
			return n
		case <-time.After(time.Minute):
			t.Fatal("nothing was heard")
		}
		return provider.Note{}
	}
	if n := next(); !n.Missed {
		t.Fatalf("%+v", n)
	}
	return next
}

// What replicas tell each other arrives, and nobody hears himself.
func TestNotes(t *testing.T) {
	t.Parallel()
	s, fs := fleets(t, "a", "b")
	next := listen(t, fs[0])
	e := entry("12D3KooWconsumer", time.Now())
	put(t, s, e)
	if n := next(); !n.Waiting || n.Key != e.Key() {
		t.Fatalf("%+v", n)
	}
	for _, from := range []string{"a", "b"} { // a's own is not heard
		e = e.Clone()
		e.Revision++
		if err := s.Commit(t.Context(), &app.Writes{Entries: []app.EntryWrite{{Entry: e, Told: from}}}); err != nil {
			t.Fatal(err)
		}
	}
	if n := next(); !n.Changed || n.Key != e.Key() {
		t.Fatalf("%+v", n)
	}
	if c := claim(t, fs[0], 1, time.Hour); len(c) != 1 {
		t.Fatal("not claimed")
	}
	if mine, err := fs[1].Cancel(t.Context(), e.Key(), time.Hour); err != nil || mine != nil {
		t.Fatalf("%v, %v", mine, err)
	}
	if n := next(); !n.Cancel || n.Key != e.Key() {
		t.Fatalf("%+v", n)
	}
	if err := fs[1].Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := next(); !n.Left {
		t.Fatalf("%+v", n)
	}
	beat(t, fs[0], 0, e.Key())
	if c := claim(t, fs[1], 1, 0); len(c) != 1 || !c[0].Cancelled { // whoever takes it knows
		t.Fatalf("%+v", c)
	}
	if mine, err := fs[0].Cancel(t.Context(), e.Key(), time.Hour); err != nil || mine == nil || mine.TaskID != e.TaskID {
		t.Fatalf("nobody works on it: %v, %v", mine, err)
	}
}

// What begins with its claim is written down as running, with all that it needs to run; what begins later, or not any more, is only held.
func TestClaimsThatBegin(t *testing.T) {
	t.Parallel()
	s, fs := fleets(t, "a", "b")
	now := time.Now()
	runs, waits, ends := entry("c", now.Add(-3*time.Second)), entry("c", now.Add(-2*time.Second)), entry("c", now.Add(-time.Second))
	waits.Sub.PayloadCID = "elsewhere"
	put(t, s, waits, ends)
	if err := s.Commit(t.Context(), &app.Writes{Entries: []app.EntryWrite{{Entry: runs, Insert: true, Told: "test", Material: &app.Material{SealedKey: []byte("key"), Ciphertext: []byte("secret")}}}}); err != nil {
		t.Fatal(err)
	}
	if mine, err := fs[1].Cancel(t.Context(), ends.Key(), 0); err != nil || mine == nil {
		t.Fatalf("%v, %v", mine, err)
	}
	next := listen(t, fs[1])
	got, err := fs[0].Claim(t.Context(), 9, time.Hour, func(e *domain.Entry) *app.EntryWrite {
		if e.Sub.PayloadCID != "" {
			return nil
		}
		e = e.Clone()
		if err := e.Start(now); err != nil {
			t.Error(err)
		}
		e.Revision++
		return &app.EntryWrite{Entry: e, Told: "a"}
	})
	if err != nil || len(got) != 3 {
		t.Fatalf("%v, %v", got, err)
	}
	if c := got[0]; !c.Begun || c.Cancelled || c.Entry.TaskID != runs.TaskID || string(c.Material.SealedKey) != "key" || string(c.Material.Ciphertext) != "secret" {
		t.Errorf("the first: %+v", c)
	}
	if got[1].Begun || got[1].Entry.TaskID != waits.TaskID || got[2].Begun || !got[2].Cancelled {
		t.Errorf("the others: %+v", got[1:])
	}
	if n := next(); !n.Runs || n.Key != runs.Key() {
		t.Errorf("heard %+v", n)
	}
	for _, c := range []struct {
		e    *domain.Entry
		want domain.State
		runs uint32
	}{{runs, domain.Running, 1}, {waits, domain.Accepted, 0}, {ends, domain.Accepted, 0}} {
		e, err := s.Entry(t.Context(), c.e.Key())
		if err != nil || e.State != c.want || e.Runs != c.runs || e.Revision != 1+uint64(c.runs) {
			t.Errorf("%+v, %v", e, err)
		}
	}
}

// A replica whose lease is over does not take its own entries once more: it runs them already, or gives them back with its next beat.
func TestOwnClaimsAreNotTakenAgain(t *testing.T) {
	t.Parallel()
	s, fs := fleets(t, "a", "b")
	put(t, s, entry("c", time.Now()))
	if c := claim(t, fs[0], 9, 0); len(c) != 1 {
		t.Fatalf("%d claims", len(c))
	}
	if c := claim(t, fs[0], 9, time.Hour); len(c) != 0 {
		t.Errorf("it took its own once more")
	}
	if c := claim(t, fs[1], 9, time.Hour); len(c) != 1 {
		t.Errorf("its lease is over, and the other took %d", len(c))
	}
}
