package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// RunShared runs what holds where several replicas have one store; open gives two of them, on one that is empty.
func RunShared(t *testing.T, open func(t *testing.T) (one, two Store)) {
	for name, test := range map[string]func(t *testing.T, one, two Store){
		"each sees what the other has committed": seen,
		"one revision wins":                      oneWins,
		"ends are in order":                      sharedEnds,
		"a setting is made once":                 sharedSetting,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			one, two := open(t)
			test(t, one, two)
		})
	}
}

func seen(t *testing.T, one, two Store) {
	task, id := newTask("r"), app.InboxIDOf("peer", "1")
	insert(t, one, task)
	commit(t, one, &app.Writes{Inbox: []app.InboxID{id}, Outbox: []app.OutboxRow{row(1)}})
	if got, err := two.TaskByRequest(ctx, "r"); err != nil || got.ID != task.ID {
		t.Fatalf("%+v, %v", got, err)
	}
	if rows, err := two.Outbox(ctx, 0, 9); err != nil || len(rows) != 1 {
		t.Fatalf("%v, %v", rows, err)
	}
	if err := two.Commit(ctx, &app.Writes{Inbox: []app.InboxID{id}}); !errors.Is(err, app.ErrRepeated) {
		t.Fatalf("an event that the other has applied: %v", err)
	}
	if err := two.Commit(ctx, &app.Writes{Tasks: []app.TaskWrite{{Task: newTask("r"), Insert: true}}}); !errors.Is(err, app.ErrExists) {
		t.Fatalf("a request that the other has: %v", err)
	}
}

func oneWins(t *testing.T, one, two Store) {
	e := newEntry("c", app.NewID(), 1, base)
	commit(t, one, &app.Writes{Entries: []app.EntryWrite{{Entry: e, Insert: true}}})
	const rounds = 30
	for i := range uint64(rounds) {
		errs := make([]error, 2)
		var wg sync.WaitGroup
		for k, s := range []Store{one, two} {
			wg.Go(func() {
				next := e.Clone()
				next.Revision = 2 + i
				errs[k] = s.Commit(ctx, &app.Writes{Entries: []app.EntryWrite{{Entry: next}}, Outbox: []app.OutboxRow{row(100 + 2*i + uint64(k))}})
			})
		}
		wg.Wait()
		if a, b := errors.Is(errs[0], app.ErrConflict), errors.Is(errs[1], app.ErrConflict); a == b || errors.Join(errs...) == nil || !a && errs[0] != nil || !b && errs[1] != nil {
			t.Fatalf("revision %d: %v", 2+i, errs)
		}
	}
	if rows, err := one.Outbox(ctx, 0, 100); err != nil || len(rows) != rounds {
		t.Fatalf("%d events of %d changes, %v", len(rows), rounds, err)
	}
}

func sharedEnds(t *testing.T, one, two Store) {
	const n = 40
	j := newJob(t, one, "r", base)
	var w app.Writes
	for i := range uint32(n) {
		w.Shards = append(w.Shards, app.ShardWrite{Shard: newShard(j, i, fmt.Sprint(i)), Insert: true})
	}
	commit(t, one, &w)
	var wg sync.WaitGroup
	for k, s := range []Store{one, two} {
		for i := range uint32(n) {
			if int(i)%2 == k {
				wg.Go(func() {
					sh := newShard(j, i, fmt.Sprint(i))
					sh.State = domain.ShardCompleted
					if err := s.Commit(ctx, &app.Writes{Shards: []app.ShardWrite{{Shard: sh}}}); err != nil {
						t.Error(err)
					}
				})
			}
		}
	}
	for last := uint64(0); last < n && !t.Failed(); {
		list, err := two.EndedShards(ctx, j.ID, last, 7)
		if err != nil {
			t.Fatal(err)
		}
		for _, sh := range list {
			if sh.Ended != last+1 {
				t.Fatalf("%d after %d", sh.Ended, last)
			}
			last = sh.Ended
		}
	}
	wg.Wait()
}

func sharedSetting(t *testing.T, one, two Store) {
	values := make([][]byte, 8)
	var wg sync.WaitGroup
	for i := range values {
		wg.Go(func() {
			s := one
			if i%2 == 1 {
				s = two
			}
			var err error
			if values[i], err = s.Setting(ctx, "key", func() ([]byte, error) { return []byte{byte(i)}, nil }); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, v := range values {
		if !bytes.Equal(v, values[0]) {
			t.Fatalf("the values are %v", values)
		}
	}
}
