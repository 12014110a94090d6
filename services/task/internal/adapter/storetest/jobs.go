package storetest

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

func newJob(t *testing.T, s Store, request string, at time.Time) *domain.Job {
	t.Helper()
	j := domain.NewJob(domain.Job{ID: app.NewID(), RequestID: request, Name: "a name", Total: 9, Hedge: true, InputPath: "in/x"}, at)
	j.Revision = 1
	commit(t, s, &app.Writes{Jobs: []app.JobWrite{{Job: j, Insert: true, Spec: []byte("spec of " + request)}}})
	return j
}

func newShard(j *domain.Job, i uint32, name string) *domain.Shard {
	return &domain.Shard{Job: j.ID, Index: i, Name: name, Size: 3, SHA256: domain.Hash{byte(i), 1}, State: domain.ShardWaiting}
}

func jobRoundTrip(t *testing.T, s Store) {
	j := newJob(t, s, "r", base)
	for _, get := range []func() (*domain.Job, error){
		func() (*domain.Job, error) { return s.Job(ctx, j.ID) },
		func() (*domain.Job, error) { return s.JobByRequest(ctx, "r") },
	} {
		got, err := get()
		if err != nil || got.Name != j.Name || got.InputPath != j.InputPath || !got.CreatedAt.Equal(base) || got.State != domain.JobOpen || !got.Hedge || got.Parallel != domain.DefaultParallel {
			t.Fatalf("%+v, %v", got, err)
		}
	}
	if b, err := s.JobSpec(ctx, j.ID); err != nil || string(b) != "spec of r" {
		t.Fatalf("spec %q, %v", b, err)
	}
	twin := j.Clone()
	twin.ID = app.NewID()
	if err := s.Commit(ctx, &app.Writes{Jobs: []app.JobWrite{{Job: twin, Insert: true, Spec: []byte{}}}}); !errors.Is(err, app.ErrExists) {
		t.Fatalf("a request id twice: %v", err)
	}
	for _, err := range []error{second(s.Job(ctx, "no")), second(s.JobByRequest(ctx, "no")), second(s.JobSpec(ctx, "no"))} {
		if !errors.Is(err, app.ErrNotFound) {
			t.Fatal(err)
		}
	}
}

func jobRevision(t *testing.T, s Store) {
	j := newJob(t, s, "r", base)
	next := j.Clone()
	next.Revision, next.State = 2, domain.JobRunning
	commit(t, s, &app.Writes{Jobs: []app.JobWrite{{Job: next}}})
	if err := s.Commit(ctx, &app.Writes{Jobs: []app.JobWrite{{Job: next}}}); !errors.Is(err, app.ErrConflict) {
		t.Fatalf("an old revision: %v", err)
	}
	if got, err := s.Job(ctx, j.ID); err != nil || got.State != domain.JobRunning {
		t.Fatalf("%+v, %v", got, err)
	}
}

func shardRoundTrip(t *testing.T, s Store) {
	j, other := newJob(t, s, "r", base), newJob(t, s, "other", base)
	commit(t, s, &app.Writes{Shards: []app.ShardWrite{
		{Shard: newShard(j, 0, "a"), Insert: true, Content: []byte("abc")}, {Shard: newShard(j, 1, "b"), Insert: true}, {Shard: newShard(j, 2, "c"), Insert: true, Content: []byte{}}, {Shard: newShard(other, 0, "a"), Insert: true, Content: []byte("x")}}})
	for _, sh := range []*domain.Shard{newShard(j, 1, "new"), newShard(j, 7, "b")} {
		if err := s.Commit(ctx, &app.Writes{Shards: []app.ShardWrite{{Shard: newShard(j, 8, "whole"), Insert: true}, {Shard: sh, Insert: true}}}); !errors.Is(err, app.ErrExists) {
			t.Fatalf("an index or a name twice: %v", err)
		}
	}
	list, err := s.Shards(ctx, j.ID, app.ShardFilter{From: 1, Limit: 9})
	if err != nil || len(list) != 2 || list[0].Name != "b" || list[0].SHA256 != (domain.Hash{1, 1}) || list[0].Size != 3 || list[1].Index != 2 {
		t.Fatalf("%+v, %v", list, err)
	}
	if b, err := s.ShardContent(ctx, j.ID, 0); err != nil || string(b) != "abc" {
		t.Fatalf("%q, %v", b, err)
	}
	if b, err := s.ShardContent(ctx, j.ID, 2); err != nil || len(b) != 0 {
		t.Fatalf("an empty input: %q, %v", b, err)
	}
	if _, err := s.ShardContent(ctx, j.ID, 1); !errors.Is(err, app.ErrNotFound) {
		t.Fatalf("an input that is a file: %v", err)
	}
	code := int32(-3)
	end := newShard(j, 0, "a")
	end.State, end.TaskID, end.Tries, end.Attempts, end.ExitCode, end.Took = domain.ShardFailed, "task", 2, 4, &code, time.Second
	end.Error, end.Stdout = &domain.Failure{Reason: "EXIT_CODE", Message: "why"}, domain.Part{Name: "stdout", Size: 9, SHA256: domain.Hash{7}}
	commit(t, s, &app.Writes{Shards: []app.ShardWrite{{Shard: end}}})
	got, err := s.EndedShards(ctx, j.ID, 0, 9)
	if err != nil || len(got) != 1 || got[0].Ended != 1 || *got[0].ExitCode != code || *got[0].Error != *end.Error || got[0].Stdout.Size != 9 || got[0].Stdout.SHA256 != end.Stdout.SHA256 ||
		got[0].Took != time.Second || got[0].TaskID != "task" || got[0].Tries != 2 || got[0].Attempts != 4 || got[0].Name != "a" {
		t.Fatalf("%+v, %v", got, err)
	}
	if _, err := s.ShardContent(ctx, j.ID, 0); !errors.Is(err, app.ErrNotFound) {
		t.Fatalf("the input of a shard that has ended: %v", err)
	}
	late := newShard(j, 0, "a")
	late.State = domain.ShardCompleted
	commit(t, s, &app.Writes{Shards: []app.ShardWrite{{Shard: late}}}) // the first end stays, and that is no error
	c, err := s.ShardCounts(ctx, j.ID)
	if err != nil || c != (domain.ShardCounts{Waiting: 2, Failed: 1, Extra: 3, Bytes: 9}) {
		t.Fatalf("%+v, %v", c, err)
	}
}

// endsAreInOrder: who has read up to a number has missed nothing below it, however many write.
func endsAreInOrder(t *testing.T, s Store) {
	const n = 40
	j := newJob(t, s, "r", base)
	var w app.Writes
	for i := range uint32(n) {
		w.Shards = append(w.Shards, app.ShardWrite{Shard: newShard(j, i, fmt.Sprint(i)), Insert: true})
	}
	commit(t, s, &w)
	var wg sync.WaitGroup
	for i := range uint32(n) {
		wg.Go(func() {
			sh := newShard(j, i, fmt.Sprint(i))
			sh.State = domain.ShardCompleted
			if err := s.Commit(ctx, &app.Writes{Shards: []app.ShardWrite{{Shard: sh}}}); err != nil {
				t.Error(err)
			}
		})
	}
	seen := map[uint32]bool{}
	for last := uint64(0); last < n && !t.Failed(); {
		list, err := s.EndedShards(ctx, j.ID, last, 7)
		if err != nil {
			t.Fatal(err)
		}
		for _, sh := range list {
			if sh.Ended != last+1 || seen[sh.Index] {
				t.Fatalf("%d after %d", sh.Ended, last)
			}
			last, seen[sh.Index] = sh.Ended, true
		}
	}
	wg.Wait()
}

func droppedJob(t *testing.T, s Store) {
	j := newJob(t, s, "r", base)
	done := newShard(j, 1, "b")
	commit(t, s, &app.Writes{Shards: []app.ShardWrite{{Shard: newShard(j, 0, "a"), Insert: true, Content: []byte("abc")}, {Shard: done, Insert: true}}})
	done.State = domain.ShardCompleted
	commit(t, s, &app.Writes{Shards: []app.ShardWrite{{Shard: done}}})
	end := j.Clone()
	if err := end.Cancel(base.Add(time.Minute), domain.ShardCounts{Waiting: 1, Completed: 1}, "why"); err != nil {
		t.Fatal(err)
	}
	end.Revision = 2
	commit(t, s, &app.Writes{Jobs: []app.JobWrite{{Job: end, Drop: true}}})
	c, err := s.ShardCounts(ctx, j.ID)
	if err != nil || c.Cancelled != 1 || c.Completed != 1 || c.Waiting != 0 {
		t.Fatalf("%+v, %v", c, err)
	}
	if _, err := s.ShardContent(ctx, j.ID, 0); !errors.Is(err, app.ErrNotFound) {
		t.Fatal(err)
	}
	late := newShard(j, 0, "a")
	late.State = domain.ShardCompleted
	commit(t, s, &app.Writes{Shards: []app.ShardWrite{{Shard: late}}})
	if list, err := s.Shards(ctx, j.ID, app.ShardFilter{States: []domain.ShardState{domain.ShardCancelled}, Limit: 5}); err != nil || len(list) != 1 {
		t.Fatalf("a shard has come back: %v, %v", list, err)
	}
	if ids, err := s.JobsFinishedBefore(ctx, base.Add(time.Hour), 5); err != nil || len(ids) != 1 || ids[0] != j.ID {
		t.Fatalf("%v, %v", ids, err)
	}
	if ids, err := s.JobsFinishedBefore(ctx, base.Add(time.Second), 5); err != nil || len(ids) != 0 {
		t.Fatalf("%v, %v", ids, err)
	}
	commit(t, s, &app.Writes{Jobs: []app.JobWrite{{Job: j, Delete: true}}})
	if list, err := s.Shards(ctx, j.ID, app.ShardFilter{Limit: 5}); err != nil || len(list) != 0 || !errors.Is(second(s.Job(ctx, j.ID)), app.ErrNotFound) {
		t.Fatalf("%v, %v", list, err)
	}
}

func jobLists(t *testing.T, s Store) {
	var ids []string
	for i := range 5 {
		j := newJob(t, s, fmt.Sprint(i), base.Add(time.Duration(i)*time.Second))
		ids = append(ids, j.ID)
		if i%2 == 0 {
			next := j.Clone()
			next.Revision, next.State, next.FinishedAt = 2, domain.JobFailed, base.Add(time.Minute)
			commit(t, s, &app.Writes{Jobs: []app.JobWrite{{Job: next}}})
		}
	}
	open, err := s.OpenJobs(ctx)
	if err != nil || len(open) != 2 {
		t.Fatalf("%v, %v", open, err)
	}
	page, err := s.ListJobs(ctx, app.JobFilter{Limit: 2})
	if err != nil || len(page) != 2 || page[0].ID != ids[4] || page[1].ID != ids[3] {
		t.Fatalf("%v, %v", page, err)
	}
	page, err = s.ListJobs(ctx, app.JobFilter{Limit: 9, After: app.Cursor{At: page[1].CreatedAt, ID: page[1].ID}, States: []domain.JobState{domain.JobFailed}})
	if err != nil || len(page) != 2 || page[0].ID != ids[2] || page[1].ID != ids[0] {
		t.Fatalf("%v, %v", page, err)
	}
}
