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

func shares(t *testing.T, s Store) {
	sum, other := domain.Hash{1}, domain.Hash{2}
	if _, err := s.Share(ctx, "", sum); !errors.Is(err, app.ErrNotFound) {
		t.Fatalf("no share: %v", err)
	}
	row := func(persona string, sum domain.Hash, cid string, until time.Time) app.ShareRow {
		return app.ShareRow{Persona: persona, SHA256: sum, Ref: domain.Reference{CID: cid, Key: []byte(cid + " key"), Size: 7}, Until: until}
	}
	commit(t, s, &app.Writes{Shares: []app.ShareRow{row("", sum, "a", base), row("p", sum, "b", base.Add(time.Hour)), row("", other, "c", base.Add(time.Hour))}})
	commit(t, s, &app.Writes{Shares: []app.ShareRow{row("", sum, "d", base.Add(time.Second))}}) // replaces
	check := func(persona string, sum domain.Hash, cid string, until time.Time) {
		t.Helper()
		r, err := s.Share(ctx, persona, sum)
		if err != nil || r.Ref.CID != cid || string(r.Ref.Key) != cid+" key" || r.Ref.Size != 7 || !r.Until.Equal(until) || r.Persona != persona || r.SHA256 != sum {
			t.Fatalf("the share is %+v, %v; want %s", r, err, cid)
		}
	}
	check("", sum, "d", base.Add(time.Second))
	check("p", sum, "b", base.Add(time.Hour))
	commit(t, s, &app.Writes{ShareEnd: base.Add(time.Second)})
	if _, err := s.Share(ctx, "", sum); !errors.Is(err, app.ErrNotFound) {
		t.Fatalf("a share that has ended: %v", err)
	}
	check("p", sum, "b", base.Add(time.Hour))
	check("", other, "c", base.Add(time.Hour))
}

var base = time.Date(2026, 1, 2, 3, 4, 5, 123_456_000, time.UTC)

func newTask(request string) *domain.Task {
	t := domain.NewTask(domain.Task{ID: app.NewID(), RequestID: request, Type: "sum", Clocks: domain.DefaultClocks, Policy: domain.Policy{MaxAttempts: 3},
		Labels: map[string]string{"Who": "Me"}, PayloadHash: domain.Hash{1, 2, 3}}, base)
	t.Revision = 1
	return t
}

func insert(t *testing.T, s Store, task *domain.Task) {
	t.Helper()
	commit(t, s, &app.Writes{Tasks: []app.TaskWrite{{Task: task, Insert: true, Secret: []byte("secret"), Payload: []byte("payload")}}})
}

func commit(t *testing.T, s Store, w *app.Writes) {
	t.Helper()
	if err := s.Commit(ctx, w); err != nil {
		t.Fatal(err)
	}
}

func taskRoundTrip(t *testing.T, s Store) {
	task := newTask("r")
	if err := task.Place(base.Add(time.Second), domain.Attempt{Peer: "12D3KooWpeer", Persona: "p", Addresses: []string{"/a", "/b"}}, "the best"); err != nil {
		t.Fatal(err)
	}
	insert(t, s, task)
	got, err := s.Task(ctx, task.ID)
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", task) {
		t.Fatalf("got  %+v\nwant %+v", got, task)
	}
	if got, err := s.TaskByRequest(ctx, "r"); err != nil || got.ID != task.ID {
		t.Fatalf("by request: %v, %v", got, err)
	}
	for _, id := range []string{"", app.NewID()} {
		if _, err := s.Task(ctx, id); !errors.Is(err, app.ErrNotFound) {
			t.Fatalf("an unknown task: %v", err)
		}
	}
	if _, err := s.TaskByRequest(ctx, "other"); !errors.Is(err, app.ErrNotFound) {
		t.Fatalf("an unknown request: %v", err)
	}
}

func requestUnique(t *testing.T, s Store) {
	insert(t, s, newTask("r"))
	w := &app.Writes{Tasks: []app.TaskWrite{{Task: newTask("r"), Insert: true}}, Outbox: []app.OutboxRow{row(1)}}
	if err := s.Commit(ctx, w); !errors.Is(err, app.ErrExists) {
		t.Fatalf("a second task of the request: %v", err)
	}
	if rows, _ := s.Outbox(ctx, 0, 10); len(rows) != 0 {
		t.Fatal("a commit that failed left a row")
	}
}

func taskRevision(t *testing.T, s Store) {
	task := newTask("r")
	insert(t, s, task)
	next := task.Clone()
	next.Revision = 2
	commit(t, s, &app.Writes{Tasks: []app.TaskWrite{{Task: next}}})
	for _, rev := range []uint64{1, 2, 4} {
		stale := task.Clone()
		stale.Revision = rev
		if err := s.Commit(ctx, &app.Writes{Tasks: []app.TaskWrite{{Task: stale}}}); !errors.Is(err, app.ErrConflict) {
			t.Fatalf("revision %d after 2: %v", rev, err)
		}
	}
	if err := s.Commit(ctx, &app.Writes{Tasks: []app.TaskWrite{{Task: newTask("x")}}}); !errors.Is(err, app.ErrConflict) {
		t.Fatalf("an update of nothing: %v", err)
	}
}

func forget(t *testing.T, s Store) {
	task := newTask("r")
	insert(t, s, task)
	check := func(what string, read func(context.Context, string) ([]byte, error), want string) {
		t.Helper()
		if b, err := read(ctx, task.ID); err != nil || string(b) != want {
			t.Fatalf("%s is %q, %v; want %q", what, b, err, want)
		}
	}
	check("secret", s.Secret, "secret")
	check("payload", s.Payload, "payload")
	check("body", s.Body, "")
	next := task.Clone()
	next.Revision, next.State, next.FinishedAt = 2, domain.Completed, base.Add(time.Minute)
	commit(t, s, &app.Writes{Tasks: []app.TaskWrite{{Task: next, Body: []byte("body"), Forget: true}}})
	check("secret", s.Secret, "")
	check("payload", s.Payload, "")
	check("body", s.Body, "body")
	again := next.Clone()
	again.Revision = 3
	commit(t, s, &app.Writes{Tasks: []app.TaskWrite{{Task: again, Forget: true}}})
	check("body", s.Body, "body")
	if _, err := s.Secret(ctx, app.NewID()); !errors.Is(err, app.ErrNotFound) {
		t.Fatalf("the secret of nobody: %v", err)
	}
}

func deleteTask(t *testing.T, s Store) {
	task := newTask("r")
	task.State, task.FinishedAt = domain.Failed, base
	r := row(1)
	r.TaskID = task.ID
	commit(t, s, &app.Writes{Tasks: []app.TaskWrite{{Task: task, Insert: true}}, Outbox: []app.OutboxRow{r}})
	ids, err := s.FinishedBefore(ctx, base.Add(time.Second), 10)
	if err != nil || !slices.Equal(ids, []string{task.ID}) {
		t.Fatalf("finished: %v, %v", ids, err)
	}
	if ids, _ := s.FinishedBefore(ctx, base, 10); len(ids) != 0 {
		t.Fatalf("finished before its end: %v", ids)
	}
	commit(t, s, &app.Writes{Tasks: []app.TaskWrite{{Task: &domain.Task{ID: task.ID}, Delete: true}}})
	if _, err := s.Task(ctx, task.ID); !errors.Is(err, app.ErrNotFound) {
		t.Fatalf("after its end: %v", err)
	}
	if rows, _ := s.Outbox(ctx, 0, 10); len(rows) != 0 {
		t.Fatal("its event is still there")
	}
	insert(t, s, newTask("r")) // the request id is free again
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

func lists(t *testing.T, s Store) {
	var all []*domain.Task
	for i := range 10 {
		task := newTask(fmt.Sprint("r", i))
		task.CreatedAt = base.Add(time.Duration(i/2) * time.Second) // two of each age
		if i%3 == 0 {
			task.State, task.FinishedAt, task.Error = domain.Failed, base, &domain.Failure{Reason: "TRAP", Message: "100%_sure it was Unreachable"}
		}
		if i == 4 {
			task.Type, task.Labels = "wasm", map[string]string{"k": "VALUE_x"}
		}
		all = append(all, task)
		insert(t, s, task)
	}
	count := func(f app.TaskFilter) int {
		t.Helper()
		f.Limit = 100
		got, err := s.ListTasks(ctx, f)
		if err != nil {
			t.Fatal(err)
		}
		return len(got)
	}
	for name, c := range map[string]struct {
		f    app.TaskFilter
		want int
	}{
		"all":      {app.TaskFilter{}, 10},
		"failed":   {app.TaskFilter{States: []domain.State{domain.Failed}}, 4},
		"both":     {app.TaskFilter{States: []domain.State{domain.Failed, domain.Pending}}, 10},
		"none":     {app.TaskFilter{States: []domain.State{domain.Expired}}, 0},
		"type":     {app.TaskFilter{Type: "wasm"}, 1},
		"text":     {app.TaskFilter{Text: "unreachable"}, 4},
		"wildcard": {app.TaskFilter{Text: "100%_sure"}, 4},
		"escape":   {app.TaskFilter{Text: "1%sure"}, 0},
		"label":    {app.TaskFilter{Text: "k=value_X"}, 1},
		"id":       {app.TaskFilter{Text: all[7].ID[:12]}, 1},
		"after":    {app.TaskFilter{CreatedAfter: base.Add(time.Second)}, 6},
		"before":   {app.TaskFilter{CreatedBefore: base.Add(time.Second)}, 2},
		"between":  {app.TaskFilter{CreatedAfter: base, CreatedBefore: base.Add(3 * time.Second), States: []domain.State{domain.Pending}}, 3},
	} {
		if got := count(c.f); got != c.want {
			t.Errorf("%s: %d tasks, want %d", name, got, c.want)
		}
	}
	var paged []string
	for f := (app.TaskFilter{Limit: 3}); ; {
		got, err := s.ListTasks(ctx, f)
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range got {
			paged = append(paged, x.ID)
			f.After = app.Cursor{At: x.CreatedAt, ID: x.ID}
		}
		if len(got) < 3 {
			break
		}
	}
	slices.SortFunc(all, func(a, b *domain.Task) int {
		if c := b.CreatedAt.Compare(a.CreatedAt); c != 0 {
			return c
		}
		return bytes.Compare([]byte(b.ID), []byte(a.ID))
	})
	if len(paged) != len(all) {
		t.Fatalf("the pages have %d tasks", len(paged))
	}
	for i := range all {
		if paged[i] != all[i].ID {
			t.Fatalf("task %d of the pages is another than of the list", i)
		}
	}
}

func openTasks(t *testing.T, s Store) {
	want := make([]string, 0, 5)
	for i := range 8 {
		task := newTask(fmt.Sprint(i))
		if i%3 == 0 {
			task.State, task.FinishedAt = domain.Completed, base
		} else {
			want = append(want, task.ID)
		}
		insert(t, s, task)
	}
	slices.Sort(want)
	var got []string
	for after := ""; ; {
		tasks, err := s.OpenTasks(ctx, after, 2)
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range tasks {
			got, after = append(got, x.ID), x.ID
		}
		if len(tasks) < 2 {
			break
		}
	}
	if !slices.Equal(got, want) {
		t.Fatalf("got %v, want %v", got, want)
	}
}

func releases(t *testing.T, s Store) {
	r := app.ReleaseRow{TaskID: app.NewID(), Attempt: 3, Persona: "p", Peer: "peer", Addresses: []string{"/a"}}
	replica := r
	replica.Peer = "another"
	commit(t, s, &app.Writes{Releases: []app.ReleaseRow{r}})
	commit(t, s, &app.Writes{Releases: []app.ReleaseRow{r}})
	got, err := s.Releases(ctx, 10)
	if err != nil || len(got) != 1 || fmt.Sprint(got[0]) != fmt.Sprint(r) {
		t.Fatalf("got %v, %v", got, err)
	}
	commit(t, s, &app.Writes{Releases: []app.ReleaseRow{replica}}) // the same result is at two providers
	commit(t, s, &app.Writes{Released: []app.ReleaseRow{r, r}})
	if got, err := s.Releases(ctx, 10); err != nil || len(got) != 1 || got[0].Peer != "another" {
		t.Fatalf("got %v, %v", got, err)
	}
	commit(t, s, &app.Writes{Released: []app.ReleaseRow{replica}})
	if got, _ := s.Releases(ctx, 10); len(got) != 0 {
		t.Fatalf("left: %v", got)
	}
}

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

func second[T any](_ T, err error) error { return err }

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
