package storetest

import (
	"testing"

	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// anyText: what others have chosen may have zero bytes. It is stored all the same, and it comes back as it was.
func anyText(t *testing.T, s Store) {
	const bad = "a\x00b"
	task := newTask(bad)
	task.Error, task.Labels = &domain.Failure{Reason: "R", Message: bad}, map[string]string{bad: bad}
	insert(t, s, task)
	if got, err := s.TaskByRequest(ctx, bad); err != nil || got.ID != task.ID || got.Error.Message != bad || got.Labels[bad] != bad {
		t.Fatalf("the task is %+v, %v", got, err)
	}
	if list, err := s.ListTasks(ctx, app.TaskFilter{Text: task.ID[:8], Limit: 5}); err != nil || len(list) != 1 {
		t.Fatalf("the list has %d tasks, %v", len(list), err)
	}
	for _, f := range []app.TaskFilter{{Text: bad, Limit: 1}, {Type: bad, Limit: 1}} { // whatever it finds
		if _, err := s.ListTasks(ctx, f); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Task(ctx, bad); err == nil {
		t.Fatal("there is such a task")
	}
	e := newEntry("c", app.NewID(), 1, base)
	e.What = bad
	r := row(7)
	r.Addresses = []string{bad}
	release := app.ReleaseRow{TaskID: e.TaskID, Attempt: 1, Peer: "p", Addresses: []string{bad}}
	commit(t, s, &app.Writes{Entries: []app.EntryWrite{{Entry: e, Insert: true}}, Outbox: []app.OutboxRow{r}, Releases: []app.ReleaseRow{release}})
	if got, err := s.Entry(ctx, e.Key()); err != nil || got.What != bad {
		t.Fatalf("the entry is %+v, %v", got, err)
	}
	if rows, err := s.Outbox(ctx, 0, 9); err != nil || len(rows) != 1 || rows[0].Addresses[0] != bad {
		t.Fatalf("the outbox has %+v, %v", rows, err)
	}
	if rows, err := s.Releases(ctx, 9); err != nil || len(rows) != 1 || rows[0].Addresses[0] != bad {
		t.Fatalf("the releases are %+v, %v", rows, err)
	}
	j := newJob(t, s, bad, base)
	if got, err := s.JobByRequest(ctx, bad); err != nil || got.ID != j.ID {
		t.Fatalf("the job is %+v, %v", got, err)
	}
	commit(t, s, &app.Writes{Shards: []app.ShardWrite{{Shard: newShard(j, 0, bad), Insert: true}}})
	end := newShard(j, 0, bad)
	end.State, end.Error = domain.ShardFailed, &domain.Failure{Reason: bad, Message: bad}
	commit(t, s, &app.Writes{Shards: []app.ShardWrite{{Shard: end}}})
	if got, err := s.EndedShards(ctx, j.ID, 0, 9); err != nil || len(got) != 1 || got[0].Name != bad || *got[0].Error != *end.Error {
		t.Fatalf("the shard is %+v, %v", got, err)
	}
}
