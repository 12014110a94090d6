package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

func shares(t *testing.T, s Store) {
	sum, other := domain.Hash{1}, domain.Hash{2}
	if _, err := s.Share(ctx, "", "", sum); !errors.Is(err, app.ErrNotFound) {
		t.Fatalf("no share: %v", err)
	}
	row := func(persona string, sum domain.Hash, cid string, until time.Time) app.ShareRow {
		return app.ShareRow{Persona: persona, SHA256: sum, Ref: domain.Reference{CID: cid, Key: []byte(cid + " key"), Size: 7}, Until: until}
	}
	commit(t, s, &app.Writes{Shares: []app.ShareRow{row("", sum, "a", base), row("p", sum, "b", base.Add(time.Hour)), row("", other, "c", base.Add(time.Hour))}})
	commit(t, s, &app.Writes{Shares: []app.ShareRow{row("", sum, "d", base.Add(time.Second))}}) // replaces
	check := func(persona string, sum domain.Hash, cid string, until time.Time) {
		t.Helper()
		r, err := s.Share(ctx, persona, "", sum)
		if err != nil || r.Ref.CID != cid || string(r.Ref.Key) != cid+" key" || r.Ref.Size != 7 || !r.Until.Equal(until) || r.Persona != persona || r.SHA256 != sum {
			t.Fatalf("the share is %+v, %v; want %s", r, err, cid)
		}
	}
	check("", sum, "d", base.Add(time.Second))
	check("p", sum, "b", base.Add(time.Hour))
	commit(t, s, &app.Writes{ShareEnd: base.Add(time.Second)})
	if _, err := s.Share(ctx, "", "", sum); !errors.Is(err, app.ErrNotFound) {
		t.Fatalf("a share that has ended: %v", err)
	}
	check("p", sum, "b", base.Add(time.Hour))
	check("", other, "c", base.Add(time.Hour))
	// What was made for one provider is no other's.
	of := row("p", sum, "e", base.Add(2*time.Hour))
	of.Peer = "peer"
	commit(t, s, &app.Writes{Shares: []app.ShareRow{of}})
	check("p", sum, "b", base.Add(time.Hour))
	if r, err := s.Share(ctx, "p", "peer", sum); err != nil || r.Ref.CID != "e" || r.Peer != "peer" {
		t.Errorf("the share of a provider is %+v, %v", r, err)
	}
	if _, err := s.Share(ctx, "p", "another", sum); !errors.Is(err, app.ErrNotFound) {
		t.Errorf("the share of another provider: %v", err)
	}
}

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
