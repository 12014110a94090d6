package storetest

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

func newEntry(consumer, taskID string, attempt uint32, at time.Time) *domain.Entry {
	return &domain.Entry{TaskID: taskID, Consumer: consumer, Sub: domain.Submission{TaskID: taskID, Attempt: attempt, Type: "wasm", Recipient: "age1pq", PayloadHash: domain.Hash{9}, Keep: time.Hour},
		Limits: domain.Limits{Time: time.Second, Memory: 1, Output: 2}, State: domain.Accepted, CreatedAt: at, Revision: 1}
}

func entryRoundTrip(t *testing.T, s Store) {
	id := app.NewID()
	e := newEntry("consumer", id, 1, base)
	m := app.Material{SealedKey: []byte("key"), Ciphertext: []byte("text")}
	commit(t, s, &app.Writes{Entries: []app.EntryWrite{{Entry: e, Insert: true, Material: &m}}})
	commit(t, s, &app.Writes{Entries: []app.EntryWrite{{Entry: newEntry("consumer", id, 2, base.Add(time.Second)), Insert: true}, {Entry: newEntry("stranger", id, 1, base), Insert: true}}})
	if err := s.Commit(ctx, &app.Writes{Entries: []app.EntryWrite{{Entry: e, Insert: true}}}); !errors.Is(err, app.ErrExists) {
		t.Fatalf("a second entry of the attempt: %v", err)
	}
	got, err := s.Entry(ctx, e.Key())
	if err != nil || fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", e) {
		t.Fatalf("got %+v, %v", got, err)
	}
	if got, err := s.Material(ctx, e.Key()); err != nil || string(got.SealedKey) != "key" || string(got.Ciphertext) != "text" {
		t.Fatalf("material: %v, %v", got, err)
	}
	if all, err := s.Entries(ctx, id); err != nil || len(all) != 3 || all[0].Sub.Attempt != 2 {
		t.Fatalf("entries of the task: %v, %v", all, err)
	}
	if all, err := s.ListEntries(ctx, app.TaskFilter{Limit: 10, Type: "wasm", Text: id[:8]}); err != nil || len(all) != 3 {
		t.Fatalf("list: %v, %v", all, err)
	}
	done := e.Clone()
	done.Revision = 2
	if err := done.End(base, domain.Outcome{Cause: domain.CauseLimit, Reason: "TIME_LIMIT", Message: "m"}); err != nil {
		t.Fatal(err)
	}
	commit(t, s, &app.Writes{Entries: []app.EntryWrite{{Entry: done, Result: []byte("result"), Forget: true}}})
	if got, err := s.Material(ctx, e.Key()); err != nil || len(got.SealedKey)+len(got.Ciphertext) != 0 {
		t.Fatalf("material after the end: %v, %v", got, err)
	}
	if got, err := s.Result(ctx, e.Key()); err != nil || string(got) != "result" {
		t.Fatalf("result: %q, %v", got, err)
	}
	none := domain.EntryKey{Consumer: "nobody", TaskID: id, Attempt: 1}
	for _, err := range []error{second(s.Entry(ctx, none)), second(s.Material(ctx, none)), second(s.Result(ctx, none))} {
		if !errors.Is(err, app.ErrNotFound) {
			t.Fatalf("nobody's entry: %v", err)
		}
	}
}

func entryRevision(t *testing.T, s Store) {
	e := newEntry("c", app.NewID(), 1, base)
	commit(t, s, &app.Writes{Entries: []app.EntryWrite{{Entry: e, Insert: true}}})
	next := e.Clone()
	next.Revision = 2
	commit(t, s, &app.Writes{Entries: []app.EntryWrite{{Entry: next}}})
	if err := s.Commit(ctx, &app.Writes{Entries: []app.EntryWrite{{Entry: next}}}); !errors.Is(err, app.ErrConflict) {
		t.Fatalf("the same revision again: %v", err)
	}
}

func openEntries(t *testing.T, s Store) {
	var want []string
	for i := range 5 {
		e := newEntry("c", app.NewID(), 1, base.Add(-time.Duration(i)*time.Second))
		if i == 2 {
			e.State, e.EndedAt = domain.Completed, base
		} else {
			want = append([]string{e.TaskID}, want...)
		}
		commit(t, s, &app.Writes{Entries: []app.EntryWrite{{Entry: e, Insert: true}}})
	}
	open, err := s.OpenEntries(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range open {
		got = append(got, e.TaskID)
	}
	if !slices.Equal(got, want) {
		t.Fatalf("got %v, want %v", got, want)
	}
}

func keptEntries(t *testing.T, s Store) {
	for i := range 4 {
		e := newEntry("c", app.NewID(), 1, base)
		if err := e.End(base, domain.Outcome{}); err != nil {
			t.Fatal(err)
		}
		e.ForgetAt = base.Add(time.Duration(i) * time.Minute)
		w := app.EntryWrite{Entry: e, Insert: true}
		if i > 0 {
			w.Result = []byte{1}
		}
		commit(t, s, &app.Writes{Entries: []app.EntryWrite{w}})
	}
	var after domain.EntryKey
	n := 0
	for {
		kept, err := s.KeptEntries(ctx, after, 2)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range kept {
			n, after = n+1, e.Key()
		}
		if len(kept) < 2 {
			break
		}
	}
	if n != 3 {
		t.Fatalf("%d entries are kept, want 3", n)
	}
	over, err := s.Overdue(ctx, base.Add(time.Minute), 10)
	if err != nil || len(over) != 2 || !over[0].ForgetAt.Equal(base) {
		t.Fatalf("overdue: %v, %v", over, err)
	}
	e := over[1]
	if !e.Collect(base, time.Hour) {
		t.Fatal("it was collected before")
	}
	e.Revision++
	commit(t, s, &app.Writes{Entries: []app.EntryWrite{{Entry: e, Forget: true, DropResult: true}, {Entry: over[0], Delete: true}}})
	if b, err := s.Result(ctx, e.Key()); err != nil || len(b) != 0 {
		t.Fatalf("its result is %v, %v", b, err)
	}
	if _, err := s.Entry(ctx, over[0].Key()); !errors.Is(err, app.ErrNotFound) {
		t.Fatalf("the deleted entry: %v", err)
	}
	if over, _ := s.Overdue(ctx, base.Add(time.Minute), 10); len(over) != 0 {
		t.Fatalf("still overdue: %v", over)
	}
}
