package memstore

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// Task implements consumer.Store.
func (s *Store) Task(_ context.Context, id string) (*domain.Task, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if row := s.tasks[id]; row != nil {
		return decode[domain.Task](row.record), nil
	}
	return nil, app.ErrNotFound
}

// TaskByRequest implements consumer.Store.
func (s *Store) TaskByRequest(ctx context.Context, requestID string) (*domain.Task, error) {
	s.mu.Lock()
	id := s.requests[requestID]
	s.mu.Unlock()
	return s.Task(ctx, id)
}

func (s *Store) part(id string, get func(*taskRow) []byte) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if row := s.tasks[id]; row != nil {
		return get(row), nil
	}
	return nil, app.ErrNotFound
}

// Secret implements consumer.Store.
func (s *Store) Secret(_ context.Context, id string) ([]byte, error) {
	return s.part(id, func(r *taskRow) []byte { return r.secret })
}

// Payload implements consumer.Store.
func (s *Store) Payload(_ context.Context, id string) ([]byte, error) {
	return s.part(id, func(r *taskRow) []byte { return r.payload })
}

// Body implements consumer.Store.
func (s *Store) Body(_ context.Context, id string) ([]byte, error) {
	return s.part(id, func(r *taskRow) []byte { return r.body })
}

func (s *Store) selectTasks(keep func(*domain.Task) bool) []*domain.Task {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*domain.Task
	for _, row := range s.tasks {
		if keep(row.task) {
			out = append(out, decode[domain.Task](row.record))
		}
	}
	return out
}

func (s *Store) selectEntries(keep func(*domain.Entry, *entryRow) bool) []*domain.Entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*domain.Entry
	for _, row := range s.entries {
		if keep(row.entry, row) {
			out = append(out, decode[domain.Entry](row.record))
		}
	}
	return out
}

func first[T any](s []T, n int) []T { return s[:min(len(s), n)] }

// OpenTasks implements consumer.Store.
func (s *Store) OpenTasks(_ context.Context, after string, limit int) ([]*domain.Task, error) {
	out := s.selectTasks(func(t *domain.Task) bool { return !t.State.Terminal() && t.ID > after })
	slices.SortFunc(out, func(a, b *domain.Task) int { return cmp.Compare(a.ID, b.ID) })
	return first(out, limit), nil
}

// ListTasks implements consumer.Store.
func (s *Store) ListTasks(_ context.Context, f app.TaskFilter) ([]*domain.Task, error) {
	out := s.selectTasks(func(t *domain.Task) bool {
		text := t.ID
		for k, v := range t.Labels {
			text += "\n" + k + "=" + v
		}
		if t.Error != nil {
			text += "\n" + t.Error.Reason + "\n" + t.Error.Message
		}
		return matches(f, t.ID, t.Type, t.State, t.CreatedAt, text)
	})
	slices.SortFunc(out, func(a, b *domain.Task) int { return newest(a.CreatedAt, b.CreatedAt, a.ID, b.ID) })
	return first(out, f.Limit), nil
}

// ListEntries implements provider.Store.
func (s *Store) ListEntries(_ context.Context, f app.TaskFilter) ([]*domain.Entry, error) {
	out := s.selectEntries(func(e *domain.Entry, _ *entryRow) bool {
		text := e.TaskID + "\n" + e.What
		if e.Outcome != nil {
			text += "\n" + e.Outcome.Reason + "\n" + e.Outcome.Message
		}
		return matches(f, e.TaskID, e.Sub.Type, e.State, e.CreatedAt, text)
	})
	slices.SortFunc(out, func(a, b *domain.Entry) int { return newest(a.CreatedAt, b.CreatedAt, a.TaskID, b.TaskID) })
	return first(out, f.Limit), nil
}

// Stores compare microseconds.
func newest(a, b time.Time, ida, idb string) int {
	return cmp.Or(cmp.Compare(b.UnixMicro(), a.UnixMicro()), cmp.Compare(idb, ida))
}

func matches(f app.TaskFilter, id, typ string, st domain.State, created time.Time, text string) bool {
	switch {
	case len(f.States) > 0 && !slices.Contains(f.States, st),
		f.Type != "" && f.Type != typ,
		!f.CreatedAfter.IsZero() && created.UnixMicro() <= f.CreatedAfter.UnixMicro(),
		!f.CreatedBefore.IsZero() && created.UnixMicro() >= f.CreatedBefore.UnixMicro(),
		f.Text != "" && !strings.Contains(strings.ToLower(text), strings.ToLower(f.Text)),
		!f.After.At.IsZero() && newest(f.After.At, created, f.After.ID, id) >= 0:
		return false
	}
	return true
}

// FinishedBefore implements consumer.Store.
func (s *Store) FinishedBefore(_ context.Context, t time.Time, limit int) ([]string, error) {
	var ids []string
	for _, task := range s.selectTasks(func(x *domain.Task) bool { return x.State.Terminal() && x.FinishedAt.Before(t) }) {
		ids = append(ids, task.ID)
	}
	return first(ids, limit), nil
}

// Releases implements consumer.Store.
func (s *Store) Releases(_ context.Context, limit int) ([]app.ReleaseRow, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []app.ReleaseRow
	for _, r := range s.releases {
		out = append(out, r)
	}
	return first(out, limit), nil
}

// Share implements consumer.Store.
func (s *Store) Share(_ context.Context, persona, peer string, sum domain.Hash) (app.ShareRow, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r, ok := s.shares[shareKey{persona, peer, sum}]; ok {
		return r, nil
	}
	return app.ShareRow{}, app.ErrNotFound
}

// Outbox implements app.OutboxReader.
func (s *Store) Outbox(_ context.Context, after uint64, limit int) ([]app.OutboxRow, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []app.OutboxRow
	for id, r := range s.outbox {
		if id > after {
			out = append(out, r)
		}
	}
	slices.SortFunc(out, func(a, b app.OutboxRow) int { return cmp.Compare(a.ID, b.ID) })
	return first(out, limit), nil
}

// Entry implements provider.Store.
func (s *Store) Entry(_ context.Context, k domain.EntryKey) (*domain.Entry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if row := s.entries[k]; row != nil {
		return decode[domain.Entry](row.record), nil
	}
	return nil, app.ErrNotFound
}

// Entries implements provider.Store.
func (s *Store) Entries(_ context.Context, taskID string) ([]*domain.Entry, error) {
	out := s.selectEntries(func(e *domain.Entry, _ *entryRow) bool { return e.TaskID == taskID })
	slices.SortFunc(out, func(a, b *domain.Entry) int { return b.CreatedAt.Compare(a.CreatedAt) })
	return first(out, 64), nil
}

// OpenEntries implements provider.Store.
func (s *Store) OpenEntries(context.Context) ([]*domain.Entry, error) {
	out := s.selectEntries(func(e *domain.Entry, _ *entryRow) bool { return !e.State.Terminal() })
	slices.SortFunc(out, func(a, b *domain.Entry) int { return a.CreatedAt.Compare(b.CreatedAt) })
	return out, nil
}

// KeptEntries implements provider.Store.
func (s *Store) KeptEntries(_ context.Context, after domain.EntryKey, limit int) ([]*domain.Entry, error) {
	return s.page(after, limit, func(_ *domain.Entry, r *entryRow) bool { return r.result != nil }), nil
}

// Replicated implements provider.Store.
func (s *Store) Replicated(_ context.Context, after domain.EntryKey, limit int) ([]*domain.Entry, error) {
	return s.page(after, limit, func(e *domain.Entry, _ *entryRow) bool { return e.IsReplica() && !e.Collected || e.Replicates() }), nil
}

// page gives entries by their keys.
func (s *Store) page(after domain.EntryKey, limit int, keep func(*domain.Entry, *entryRow) bool) []*domain.Entry {
	compare := func(a, b domain.EntryKey) int {
		return cmp.Or(cmp.Compare(a.TaskID, b.TaskID), cmp.Compare(a.Attempt, b.Attempt), cmp.Compare(a.Consumer, b.Consumer))
	}
	out := s.selectEntries(func(e *domain.Entry, r *entryRow) bool { return keep(e, r) && compare(e.Key(), after) > 0 })
	slices.SortFunc(out, func(a, b *domain.Entry) int { return compare(a.Key(), b.Key()) })
	return first(out, limit)
}

// Overdue implements provider.Store.
func (s *Store) Overdue(_ context.Context, now time.Time, limit int) ([]*domain.Entry, error) {
	out := s.selectEntries(func(e *domain.Entry, _ *entryRow) bool { return e.State.Terminal() && !e.ForgetAt.After(now) })
	slices.SortFunc(out, func(a, b *domain.Entry) int { return a.ForgetAt.Compare(b.ForgetAt) })
	return first(out, limit), nil
}

// Material implements provider.Store.
func (s *Store) Material(_ context.Context, k domain.EntryKey) (app.Material, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	row := s.entries[k]
	if row == nil {
		return app.Material{}, app.ErrNotFound
	}
	if row.material == nil {
		return app.Material{}, nil
	}
	return *row.material, nil
}

// Result implements provider.Store.
func (s *Store) Result(_ context.Context, k domain.EntryKey) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if row := s.entries[k]; row != nil {
		return row.result, nil
	}
	return nil, app.ErrNotFound
}

// Setting returns a value that is made once.
func (s *Store) Setting(_ context.Context, name string, make func() ([]byte, error)) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if v, ok := s.settings[name]; ok {
		return v, nil
	}
	v, err := make()
	if err == nil {
		s.settings[name] = v
	}
	return v, err
}
