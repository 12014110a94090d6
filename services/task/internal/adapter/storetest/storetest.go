// Package storetest is the conformance suite of the task service's stores: every adapter runs it.
package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/app/consumer"
	"github.com/shallot-net/shallot/services/task/internal/app/provider"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// Store is what the suite tests.
type Store interface {
	consumer.Store
	provider.Store
	Setting(ctx context.Context, name string, make func() ([]byte, error)) ([]byte, error)
}

var ctx = context.Background()

// Run runs the suite; open gives an empty store.
func Run(t *testing.T, open func(t *testing.T) Store) {
	for name, test := range map[string]func(*testing.T, Store){
		"task is what was written":        taskRoundTrip,
		"request id is unique":            requestUnique,
		"revision guards a task":          taskRevision,
		"forgetting drops what is secret": forget,
		"delete takes everything":         deleteTask,
		"inbox recognises repeats":        inbox,
		"all or nothing":                  atomic,
		"outbox keeps its order":          outbox,
		"later comes before what follows": later,
		"lists filter and page":           lists,
		"open tasks":                      openTasks,
		"releases":                        releases,
		"journal entry":                   entryRoundTrip,
		"revision guards an entry":        entryRevision,
		"open entries are in order":       openEntries,
		"kept and overdue entries":        keptEntries,
		"replicated entries":              replicatedEntries,
		"setting is made once":            setting,
		"shares":                          shares,
		"many writers":                    manyWriters,
		"any text":                        anyText,
		"job is what was written":         jobRoundTrip,
		"revision guards a job":           jobRevision,
		"shard is what was written":       shardRoundTrip,
		"ends are in order":               endsAreInOrder,
		"a dropped job has no inputs":     droppedJob,
		"jobs filter and page":            jobLists,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, open(t))
		})
	}
}

var base = time.Date(2026, 1, 2, 3, 4, 5, 123_456_000, time.UTC)

func commit(t *testing.T, s Store, w *app.Writes) {
	t.Helper()
	if err := s.Commit(ctx, w); err != nil {
		t.Fatal(err)
	}
}

func inbox(t *testing.T, s Store) {
	id := app.InboxIDOf("peer", app.NewID())
	commit(t, s, &app.Writes{Inbox: []app.InboxID{id}})
	if err := s.Commit(ctx, &app.Writes{Inbox: []app.InboxID{id}, Outbox: []app.OutboxRow{row(1)}}); !errors.Is(err, app.ErrRepeated) {
		t.Fatalf("a repeated event: %v", err)
	}
	if rows, _ := s.Outbox(ctx, 0, 10); len(rows) != 0 {
		t.Fatal("a repeated event left a row")
	}
	if app.InboxIDOf("other", "x") == app.InboxIDOf("peer", "x") {
		t.Fatal("two senders' events are one")
	}
}

func atomic(t *testing.T, s Store) {
	id := app.InboxIDOf("peer", "1")
	task := newTask("r")
	e := newEntry("c", task.ID, 1, base)
	stale := newTask("stale")
	stale.Revision = 7
	err := s.Commit(ctx, &app.Writes{Inbox: []app.InboxID{id}, Tasks: []app.TaskWrite{{Task: task, Insert: true}, {Task: stale}},
		Entries: []app.EntryWrite{{Entry: e, Insert: true}}, Outbox: []app.OutboxRow{row(1)}, Releases: []app.ReleaseRow{{TaskID: task.ID, Attempt: 1}}})
	if !errors.Is(err, app.ErrConflict) {
		t.Fatalf("the conflict: %v", err)
	}
	if _, err := s.Task(ctx, task.ID); !errors.Is(err, app.ErrNotFound) {
		t.Fatal("the task is there")
	}
	if _, err := s.Entry(ctx, e.Key()); !errors.Is(err, app.ErrNotFound) {
		t.Fatal("the entry is there")
	}
	commit(t, s, &app.Writes{Inbox: []app.InboxID{id}}) // the event was not applied
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if err := s.Commit(cancelled, &app.Writes{Outbox: []app.OutboxRow{row(9)}}); err == nil {
		t.Fatal("a commit whose context has ended")
	}
}

func row(id uint64) app.OutboxRow {
	return app.OutboxRow{ID: id, TaskID: app.NewID(), Attempt: 2, Persona: "p", Peer: "12D3KooWpeer", Addresses: []string{"/ip4/127.0.0.1/tcp/1", "/b"}, EventID: app.NewID(),
		Type: domain.TypeResult, Payload: []byte{1, 2}, Sign: true, Timeout: time.Minute, Attach: app.AttachResult, Sealed: []byte{3}}
}

func outbox(t *testing.T, s Store) {
	var want []app.OutboxRow
	for i := range uint64(10) {
		want = append(want, row(i+1<<52))
	}
	plain := row(1 << 62)
	plain.Addresses, plain.Sealed, plain.Payload, plain.Sign, plain.Timeout, plain.Attach = nil, nil, []byte{}, false, 0, app.AttachNone
	want = append(want, plain)
	for _, r := range slices.Backward(want) {
		commit(t, s, &app.Writes{Outbox: []app.OutboxRow{r}})
	}
	var got []app.OutboxRow
	for after := uint64(0); ; {
		rows, err := s.Outbox(ctx, after, 3)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, rows...)
		if len(rows) < 3 {
			break
		}
		after = rows[2].ID
	}
	if len(got) != len(want) {
		t.Fatalf("%d rows, want %d", len(got), len(want))
	}
	for i := range want {
		if g, w := fmt.Sprintf("%+v", got[i]), fmt.Sprintf("%+v", want[i]); g != w {
			t.Fatalf("row %d is\n%s, want\n%s", i, g, w)
		}
	}
	commit(t, s, &app.Writes{Sent: []uint64{want[0].ID, want[5].ID, 12345}})
	if rows, _ := s.Outbox(ctx, 0, 100); len(rows) != 9 || rows[0].ID != want[1].ID {
		t.Fatalf("after two were sent there are %d", len(rows))
	}
}

func later(t *testing.T, s Store) {
	task := newTask("r")
	insert(t, s, task)
	next := task.Clone()
	next.Revision = 2
	s.Later(&app.Writes{Tasks: []app.TaskWrite{{Task: next}}})
	bad := task.Clone()
	bad.Revision = 9
	s.Later(&app.Writes{Tasks: []app.TaskWrite{{Task: bad}}}) // a conflict, dropped
	last := task.Clone()
	last.Revision = 3
	commit(t, s, &app.Writes{Tasks: []app.TaskWrite{{Task: last}}})
	if got, err := s.Task(ctx, task.ID); err != nil || got.Revision != 3 {
		t.Fatalf("the task is %+v, %v", got, err)
	}
}

func second[T any](_ T, err error) error { return err }

func setting(t *testing.T, s Store) {
	for i := range 3 {
		b, err := s.Setting(ctx, "key", func() ([]byte, error) { return []byte{byte(i)}, nil })
		if err != nil || !bytes.Equal(b, []byte{0}) {
			t.Fatalf("time %d: %v, %v", i, b, err)
		}
	}
	bad := errors.New("no")
	if _, err := s.Setting(ctx, "other", func() ([]byte, error) { return nil, bad }); !errors.Is(err, bad) {
		t.Fatalf("a failure: %v", err)
	}
}

func manyWriters(t *testing.T, s Store) {
	task := newTask("shared")
	insert(t, s, task)
	var wg sync.WaitGroup
	won := make([]int, 8)
	for w := range won {
		wg.Go(func() {
			for i := range 20 {
				if err := s.Commit(ctx, &app.Writes{Tasks: []app.TaskWrite{{Task: newTask(fmt.Sprint(w, "-", i)), Insert: true}}}); err != nil {
					t.Error(err)
				}
				now, err := s.Task(ctx, task.ID)
				if err != nil {
					t.Error(err)
					return
				}
				now.Revision++
				if err := s.Commit(ctx, &app.Writes{Tasks: []app.TaskWrite{{Task: now}}}); err == nil {
					won[w]++
				} else if !errors.Is(err, app.ErrConflict) {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	sum := 0
	for _, n := range won {
		sum += n
	}
	got, err := s.Task(ctx, task.ID)
	if err != nil || got.Revision != uint64(1+sum) {
		t.Fatalf("the revision is %d after %d updates, %v", got.Revision, sum, err)
	}
	if all, err := s.ListTasks(ctx, app.TaskFilter{Limit: 1000}); err != nil || len(all) != 161 {
		t.Fatalf("%d tasks, %v", len(all), err)
	}
}
